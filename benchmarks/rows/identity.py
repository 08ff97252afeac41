"""What two runs must share to be the same row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> str | None:
    """The first key in which two nested settings differ, with both values, or None."""
    for key in dict.fromkeys([*old, *new]):
        where = f"{path}.{key}" if path else key
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found = first_difference(a, b, where)
            if found:
                return found
        elif a != b:
            return f"{where}: {a} there, {b} now"
    return None
