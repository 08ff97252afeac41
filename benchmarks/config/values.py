"""Types and bounds of configuration values."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from benchmarks.config.files import check_keys
from benchmarks.config.recipe import VIEWS, Augment, Recipe, Smoothing
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


def row_fields(path: str, spelled: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The `RowFields` of a row file, but the dataset.

    Args:
        path: of the file, or the recipe's name.
        spelled: changes from the command line, as spelled in the row's name.
        values: of the file.

    Raises:
        UserError: a value has the wrong type.
    """
    stem = Path(path).stem
    return {
        "name": "+".join([stem, *spelled]),
        "recipe": stem,
        "version": typed(values["version"], int, "version"),
        "method": typed(values["method"], str, "method"),
        "published": typed(values["published"], str | None, "published"),
    }


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
            name = key.partition("[")[0]
            value, kind = value[name], typing.get_type_hints(kind, include_extras=True)[name]
        if missing is not None:
            raise UserError(f"{where}{keys} lacks {missing}") from error
        raise UserError(f"{where}{keys} is {value!r}; {_choices(kind) or what}") from error
    except UnicodeEncodeError as error:  # an argument that is not UTF-8; msgspec cannot quote it
        raise UserError(f"{where} has text that is not Unicode: {error.object!r:.60}") from error


def _choices(kind: Any) -> str:
    """The values that an annotation lists, such as `expected constant or cosine`; empty without a `Literal`."""
    parts = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    listed = [str(name) for part in parts if typing.get_origin(part) is Literal for name in typing.get_args(part)]
    others = [f"{len(typing.get_args(part))} numbers" for part in parts if typing.get_origin(part) is tuple]
    others += ["none"] if type(None) in parts else []
    return f"expected {' or '.join([*listed, *others])}" if listed else ""


def check_values(recipe: Recipe) -> None:
    """Check what the types of a recipe's values do not say.

    Raises:
        UserError: wrong views; a value that belongs to a trainable backbone while this one is frozen; or values that
            exclude each other.
    """
    for where, views in (("views.train", recipe.views.train), ("views.test", recipe.views.test)):
        wrong = [view for view in views if view not in VIEWS]
        if wrong or not views or len(set(views)) != len(views):
            raise UserError(f"{where} is {list(views)}; it must be one or both of {', '.join(VIEWS)}, each once")
    training = recipe.training
    if not recipe.on_pixels:
        for where, differs in (
            ("temporal_dropout", recipe.temporal_dropout),
            ("augment", recipe.augment != Augment()),
            ("init", recipe.init is not None),
            ("training.precision", training.precision != "float32"),
        ):
            if differs:
                raise UserError(f"{where} needs a trainable backbone; add --set backbone.frozen=false")
    if recipe.published_faults and not recipe.temporal_dropout:
        raise UserError("published_faults needs temporal_dropout; add --set temporal_dropout=true")
    if training.schedule == "cosine" and training.schedule_floor > training.lr:
        raise UserError(f"training.schedule_floor is {training.schedule_floor}, above training.lr, {training.lr}")
    own = recipe.backbone.get("weights") or (recipe.init == "random" and recipe.backbone.get("pretrained"))
    if recipe.init in ("random", "renders") and own:
        raise UserError(
            f"init is {recipe.init}, but the backbone has weights; add --set init=gaze360 if they are Gaze360's, "
            "else init=none"
        )


def smoothing_of(values: Mapping[str, Any] | None) -> Smoothing | None:
    """Build the section `smoothing`; None stays None.

    Raises:
        UserError: an unknown key, or a value of the wrong type or out of bounds.
    """
    if values is None:
        return None
    smoothing: Smoothing = build_section(Smoothing, values, "smoothing")
    window = smoothing.window
    if window is not None and window % 2 == 0:
        raise UserError(f"smoothing.window is {window}; it must be an odd number of frames, or none")
    return smoothing
