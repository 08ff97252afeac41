"""Types and bounds of configuration values."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from benchmarks.config.files import check_keys
from benchmarks.config.recipe import VIEWS, Recipe, Smoothing
from registry import UserError
from zoo.files.untrusted import explained


def leaves(cls: type) -> Iterator[str]:
    """Dotted names of the values in a section, depth first: `radius`, `stride.train`, ..."""
    for name, kind in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind):
            yield from (f"{name}.{leaf}" for leaf in leaves(typing.cast(type, kind)))
        else:
            yield name


def build_section(cls: Any, values: Any, where: str) -> Any:
    """Build one frozen section from a mapping.

    Raises:
        UserError: an unknown or missing key, or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is {values!r}; it must be a dict of {', '.join(leaves(cls))}")
    check_keys(values, [field.name for field in dataclasses.fields(cls)], where)
    for name, kind in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind) and isinstance(values.get(name), Mapping):
            check_keys(values[name], [field.name for field in dataclasses.fields(kind)], f"{where}.{name}")
    return typed(dict(values), cls, where)


def typed(value: Any, kind: Any, where: str) -> Any:
    """Convert a value to an annotated type. Whole numbers are valid floats, lists are valid tuples.

    Args:
        value: plain Python value.
        kind: annotation, or a dataclass.
        where: dotted key, for the message.

    Raises:
        UserError: the value has another type; names the dotted key.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        keys, missing, what = explained(error)
        for key in keys.split(".")[1:]:
            value = value[key.partition("[")[0]]
        if missing is not None:
            raise UserError(f"{where}{keys} lacks {missing}") from error
        raise UserError(f"{where}{keys} is {value!r}; {what}") from error


def check_values(recipe: Recipe) -> None:
    """Check the bounds of a recipe's values.

    Raises:
        UserError: a value is out of bounds, or belongs to a trainable backbone and this one is frozen.
    """
    for where, views in (("views.train", recipe.views.train), ("views.test", recipe.views.test)):
        wrong = [view for view in views if view not in VIEWS]
        if wrong or not views or len(set(views)) != len(views):
            raise UserError(f"{where} is {list(views)}; it must be one or both of {', '.join(VIEWS)}, each once")
    stride, training = recipe.windows.stride, recipe.training
    for where, number, least in (
        ("windows.radius", recipe.windows.radius, 0),
        ("windows.stride.train", stride.train, 1),
        ("windows.stride.val", stride.val, 1),
        ("windows.stride.test", stride.test, 1),
        ("training.epochs", training.epochs, 1),
        ("training.batch_size", training.batch_size, 1),
        ("training.seed", training.seed, 0),
        ("training.block", training.block, 1),
    ):
        if number < least:
            raise UserError(f"{where} is {number}; it must be at least {least}")
    if not 0 < training.lr < float("inf"):
        raise UserError(f"training.lr is {training.lr}; it must be a positive number")
    if training.weight_decay < 0:
        raise UserError(f"training.weight_decay is {training.weight_decay}; it cannot be negative")
    if training.class_weight not in ("balanced", None):
        raise UserError(f"training.class_weight is {training.class_weight!r}; it must be balanced or none")
    for where, value, known in (
        ("training.schedule", training.schedule, ("constant", "cosine")),
        ("training.precision", training.precision, ("float32", "bfloat16")),
    ):
        if value not in known:
            raise UserError(f"{where} is {value!r}; it must be {' or '.join(known)}")
    if not recipe.on_pixels:
        for where, differs in (
            ("temporal_dropout", recipe.temporal_dropout),
            ("training.precision", training.precision != "float32"),
            ("training.block", training.block != 1),
        ):
            if differs:
                raise UserError(f"{where} needs a trainable backbone; add --set backbone.frozen=false")


def smoothing_of(values: Mapping[str, Any] | None) -> Smoothing | None:
    """Build the section `smoothing`; None stays None.

    Raises:
        UserError: an unknown key, or a value of the wrong type or out of bounds.
    """
    if values is None:
        return None
    smoothing: Smoothing = build_section(Smoothing, values, "smoothing")
    if smoothing.filter not in ("median", "gaussian"):
        raise UserError(f"smoothing.filter is {smoothing.filter!r}; it must be median or gaussian")
    window = smoothing.window
    if window is not None and (window < 1 or window % 2 == 0):
        raise UserError(f"smoothing.window is {window}; it must be an odd number of frames, or none")
    return smoothing
