"""Models made of a backbone, a head and their weights. In a program: `from zoo import load_model, list_models`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.api.models import list_models, load_model

__all__ = ["list_models", "load_model"]


def __getattr__(name: str) -> Any:
    """`load_model` and `list_models` of `benchmarks.api.models`, which is imported when one of them is first used."""
    if name in __all__:
        return getattr(import_module("benchmarks.api.models"), name)
    raise AttributeError(f"module 'zoo' has no attribute '{name}'")
