"""Types and bounds of configuration values."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.config.files import check_keys
from benchmarks.config.recipe import VIEWS, Recipe, Smoothing
from registry import UserError


def leaves(cls: type) -> Iterator[str]:
    """Dotted names of the values of a section."""
    for name, kind in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind):
            yield from (f"{name}.{leaf}" for leaf in leaves(typing.cast(type, kind)))
        else:
            yield name


def build_section(cls: Any, values: Any, where: str) -> Any:
    """Build one frozen section from a mapping, checking keys and types."""
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is {values!r}; it has to be a dict of {', '.join(leaves(cls))}")
    hints = typing.get_type_hints(cls)
    check_keys(values, list(hints), where)
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in values and f.default is dataclasses.MISSING]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}")
    return cls(**{name: typed(value, hints[name], f"{where}.{name}") for name, value in values.items()})


def typed(value: Any, kind: Any, where: str) -> Any:
    """The value as `kind`, or an error that names the key. A whole number is a float too; a list is a tuple too."""
    if dataclasses.is_dataclass(kind):
        return build_section(kind, value, where)
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise UserError(f"{where} is {value!r}; it has to be a list of {inner.__name__}")
        return tuple(typed(item, inner, where) for item in value)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kinds = typing.get_args(kind)
        if value is None and type(None) in kinds:
            return None
        return typed(value, next(k for k in kinds if k is not type(None)), where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(
            f"{where} is {value!r}, {_article(type(value).__name__)}; it has to be {_article(kind.__name__)}"
        )
    return value


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def check_values(recipe: Recipe) -> None:
    """Raise a UserError where a value is out of its bounds."""
    for where, views in (("views.train", recipe.views.train), ("views.test", recipe.views.test)):
        wrong = [view for view in views if view not in VIEWS]
        if wrong or not views or len(set(views)) != len(views):
            raise UserError(f"{where} is {list(views)}; it has to be one or both of {', '.join(VIEWS)}, each once")
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
            raise UserError(f"{where} is {number}; it has to be at least {least}")
    if not 0 < training.lr < float("inf"):
        raise UserError(f"training.lr is {training.lr}; it has to be a positive number")
    if training.weight_decay < 0:
        raise UserError(f"training.weight_decay is {training.weight_decay}; it cannot be negative")
    if training.class_weight not in ("balanced", None):
        raise UserError(f"training.class_weight is {training.class_weight!r}; it has to be balanced or none")
    for where, value, known in (
        ("training.schedule", training.schedule, ("constant", "cosine")),
        ("training.precision", training.precision, ("float32", "bfloat16")),
    ):
        if value not in known:
            raise UserError(f"{where} is {value!r}; it has to be {' or '.join(known)}")
    if not recipe.on_pixels:
        for where, differs in (
            ("temporal_dropout", recipe.temporal_dropout),
            ("training.precision", training.precision != "float32"),
            ("training.block", training.block != 1),
        ):
            if differs:
                raise UserError(f"{where} is for backbones that train; --set backbone.frozen=false makes one of it")


def smoothing_of(values: Mapping[str, Any] | None) -> Smoothing | None:
    """Check a section `smoothing`.

    Raises:
        UserError: of the wrong type or value.
    """
    if values is None:
        return None
    smoothing: Smoothing = build_section(Smoothing, values, "smoothing")
    if smoothing.filter not in ("median", "gaussian"):
        raise UserError(f"smoothing.filter is {smoothing.filter!r}; it has to be median or gaussian")
    window = smoothing.window
    if window is not None and (window < 1 or window % 2 == 0):
        raise UserError(f"smoothing.window is {window}; it has to be an odd number of frames, or none")
    return smoothing
