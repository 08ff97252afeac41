"""Fuzzing with bad input. `KINDS` of each module here are rows in the table of `python -m tests.fuzz`."""

from __future__ import annotations

import importlib
import pkgutil

from tests.fuzz.harness import Kind


def modules() -> list[str]:
    """Return the names of all modules that may define kinds."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [name for name in names if name != "__main__" and not name.startswith("test_")]


def kinds(*of: str) -> dict[str, Kind]:
    """Return the kinds of input by name, of the given modules or of all."""
    found: dict[str, Kind] = {}
    for module in of or modules():
        for kind in getattr(importlib.import_module(f"tests.fuzz.{module}"), "KINDS", ()):
            assert kind.name not in found, f"two kinds are called {kind.name}"
            found[kind.name] = kind
    return found
