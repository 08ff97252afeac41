"""What is run, on what, and how it is scored. In a program: `from benchmarks import run, results, compare`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.api.rows import compare, results, run

__all__ = ["compare", "results", "run"]


def __getattr__(name: str) -> Any:
    """`run`, `results` and `compare` of `benchmarks.api.rows`, which is imported when one of them is first used."""
    if name in __all__:
        return getattr(import_module("benchmarks.api.rows"), name)
    raise AttributeError(f"module 'benchmarks' has no attribute '{name}'")
