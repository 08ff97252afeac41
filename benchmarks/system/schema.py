"""Whether what was read from JSON is what a `TypedDict` says: the data of results, which anybody may have written."""

from __future__ import annotations

import math
import types
import typing
from typing import Any, get_args, get_origin

from typing_extensions import NotRequired, get_type_hints, is_typeddict


def check(value: Any, hint: Any, where: str = "") -> None:
    """Check a value against an annotation: `TypedDict`, list, dict, union, or a plain type; `Any` takes all.

    Keys that a `TypedDict` does not name may be there. Numbers are finite, and a whole one will do for a float.

    Args:
        value: of JSON.
        hint: what it has to be.
        where: dotted keys that lead to it, for the message.

    Raises:
        ValueError: it is not; names the first place.
    """
    origin = get_origin(hint)
    if hint is Any:
        return
    if origin is NotRequired:
        check(value, get_args(hint)[0], where)
    elif origin in (typing.Union, types.UnionType):
        _check_union(value, get_args(hint), where)
    elif is_typeddict(hint):
        if not isinstance(value, dict):
            raise _wrong(value, "an object", where)
        for key, inner in get_type_hints(hint, include_extras=True).items():
            if key in value:
                check(value[key], inner, f"{where}.{key}".lstrip("."))
            elif get_origin(inner) is not NotRequired:
                raise ValueError(f"it lacks {f'{where}.{key}'.lstrip('.')}")
    elif origin is dict:
        if not isinstance(value, dict):
            raise _wrong(value, "an object", where)
        for key, item in value.items():
            check(item, get_args(hint)[1], f"{where}.{key}")
    elif origin is list:
        if not isinstance(value, list):
            raise _wrong(value, "a list", where)
        for number, item in enumerate(value):
            check(item, get_args(hint)[0], f"{where}.{number}")
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(_small(value)):
            raise _wrong(value, "a number", where)
    elif type(value) is not hint or (hint is int and _small(value) != value):
        raise _wrong(value, {int: "a whole number", str: "a text", bool: "true or false"}.get(hint, "null"), where)


def _check_union(value: Any, kinds: tuple[Any, ...], where: str) -> None:
    if value is None and type(None) in kinds:
        return
    (kind,) = (kind for kind in kinds if kind is not type(None))  # the records have no other union
    check(value, kind, where)


def _small(value: float) -> float:
    """The number, or infinity for a whole one that no machine's word holds."""
    return value if isinstance(value, float) or abs(value) < 1 << 63 else math.inf


def _wrong(value: Any, wanted: str, where: str) -> ValueError:
    return ValueError(f"{where or 'it'} is {value!r:.60}, and has to be {wanted}")
