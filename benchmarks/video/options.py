"""The limits of what users may choose; light enough to be checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from registry import UserError

LIMITS = {
    "threshold": (0.0, 1.0),
    "min_duration": (0.0, 1e6),
    "merge_gap": (0.0, 1e6),
    "change_cost": (0.0, 1000.0),
    "detections": (0.01, 1000.0),
}


def check_limits(values: Mapping[str, Any], shown: Callable[[str], str] = str) -> None:
    """Checks values against `LIMITS`.

    Args:
        values: by name; others than those of `LIMITS` are ignored, and None means the default.
        shown: returns a name as the user writes it.

    Raises:
        UserError: a value is no number, or out of range.
    """
    for name, (low, high) in LIMITS.items():
        value = values.get(name)
        if value is None:
            continue
        number = isinstance(value, int | float)
        if not number or not low <= value <= high:
            said = f"{value:g}" if number else repr(value)
            raise UserError(f"{shown(name)} is {said}; it must be between {low:g} and {high:g}")
