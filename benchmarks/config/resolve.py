"""Merge recipe < dataset < command line into one validated, frozen `Recipe`.

A recipe states the method, a dataset file the scale, and the command line overrides both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, get_args

from typing_extensions import Unpack  # in typing from Python 3.11

from benchmarks.config.files import check_keys, load_dataset, load_recipe
from benchmarks.config.reading import is_config_file
from benchmarks.config.recipe import (
    RECIPE_KEYS,
    Augment,
    Count,
    Init,
    Recipe,
    Start,
    Training,
    Views,
    Windows,
    defaults,
)
from benchmarks.config.settings import is_tracker_key, parse_setting, set_value, spell
from benchmarks.config.values import build_section, check_values, row_fields, smoothing_of, typed
from registry import BACKBONES, HEADS, PRIORS, UserError


class Changes(TypedDict, total=False):
    """What the command line changes in a recipe. Every key is optional, and None changes nothing."""

    backbone: str | None
    """Replaces the recipe's backbone together with its arguments."""
    weights: str | None
    """Path for the backbone's argument `weights`."""
    head: str | None
    """Replaces the recipe's head together with its arguments."""
    checkpoint: str | None
    """Path of trained weights, of the head or of the whole model, to score instead of training."""
    settings: Sequence[str]
    """`key=value` pairs with dotted keys, such as `training.lr=1e-3`."""
    limit: int | None
    """At most this many windows per split."""


def resolve(recipe: str, dataset: str = "synthlam", **changes: Unpack[Changes]) -> Recipe:
    """Merge recipe < dataset < command line and validate the result.

    Args:
        recipe: name of a recipe, or a path ending in `.py`, `.yaml` or `.json`.
        dataset: name of a dataset, or a path ending in `.py`, `.yaml` or `.json`.
        changes: see `Changes`.

    Raises:
        UserError: an unknown key or name, a wrong type, or arguments left over from another `type`.

    Example:
        >>> resolve("internlstm", head="gru", settings=["training.epochs=2"]).name
        'internlstm+head=gru+training.epochs=2'
    """
    method, scale = load_recipe(recipe), load_dataset(dataset)
    settings = [parse_setting(setting) for setting in changes.get("settings", ())]
    limit = changes.get("limit")
    values: dict[str, Any] = {key: method[key] for key in RECIPE_KEYS}
    for key in ("backbone", "head", "windows", "training", "augment"):  # the scale looks into these, and at the start
        typed(values[key], dict, key)
    for key in ("backbone", "head"):
        typed(values[key].get("type"), str, f"{key}.type")
    typed(values["init"], Init, "init")

    stands_in_for = _replace_parts(values, scale, changes)
    frozen = dict(settings).get("backbone.frozen", values["backbone"].get("frozen", True)) is not False
    named = bool(values["backbone"].get("weights") or dict(settings).get("backbone.weights"))
    _apply_scale(values, scale, f"dataset {dataset}", frozen, named)
    changed = [
        f"{key}={spell(value)}" for key, value in settings if set_value(values, key, value) and not is_tracker_key(key)
    ]
    typed(limit, Count | None, "--limit")

    checkpoint = changes.get("checkpoint")
    if checkpoint is not None:
        values["init"] = None  # nothing starts
    if values["init"] in ("imagenet", "renders"):
        values["backbone"] = {"pretrained": values["init"], **values["backbone"]}
    _check_parts(values)
    spelled = [*_spelled(dataset, changes), *changed, *_spelled_limit(limit)]
    resolved = Recipe(
        **row_fields(recipe, spelled, values),
        dataset=scale["type"],
        backbone=values["backbone"],
        stands_in_for=stands_in_for,
        head=values["head"],
        windows=build_section(Windows, values["windows"], "windows"),
        views=build_section(Views, values["views"], "views"),
        training=build_section(Training, values["training"], "training"),
        smoothing=smoothing_of(values["smoothing"]),
        priors=values["priors"],
        temporal_dropout=typed(values["temporal_dropout"], bool, "temporal_dropout"),
        augment=build_section(Augment, values["augment"], "augment"),
        init=typed(values["init"], Init, "init"),
        published_faults=typed(values["published_faults"], bool, "published_faults"),
        checkpoint=checkpoint,
        limit=limit,
        changes=tuple(spelled),
    )
    check_values(resolved)
    return resolved


def _replace_parts(values: dict[str, Any], scale: Mapping[str, Any], changes: Changes) -> str | None:
    """Put in the backbone and head that the command line or the dataset names; returns the backbone stood in for."""
    stands_in_for = None
    named, backbone = values["backbone"].get("type"), changes.get("backbone")
    if backbone is not None:
        values["backbone"], values["init"] = {"type": backbone}, None
    elif named in scale.get("stand_in", {}):
        values["backbone"], stands_in_for = dict(scale["stand_in"][named]), named
    if changes.get("weights") is not None:
        values["backbone"]["weights"] = changes["weights"]
    if changes.get("head") is not None:
        values["head"] = {"type": changes["head"]}
    return stands_in_for


def _apply_scale(values: dict[str, Any], scale: Mapping[str, Any], where: str, frozen: bool, named: bool) -> None:
    """Merge a dataset's sizes into a recipe's values: head, windows, training, augmentation, start, priors.

    Args:
        values: of the recipe; changed.
        scale: from `load_dataset`.
        where: names the dataset in errors.
        frozen: whether the backbone is.
        named: whether the command line names weights, which take the place of the dataset's.
    """
    head = values["head"]["type"]
    values["head"] = {**values["head"], **scale.get("heads", {}).get(head, {})}
    pixels = {} if frozen else scale.get("pixels", {})
    own = (scale if frozen else pixels).get("backbones", {}).get(values["backbone"]["type"], {})
    if named:
        own = {key: value for key, value in own.items() if key != "pretrained"}
    values["backbone"] = {**own, **values["backbone"]}
    values["training"] = {**defaults(Training), **values["training"]}
    values["augment"] = {**defaults(Augment), **values["augment"]}
    stand_ins = pixels.get("init", {})
    check_keys(stand_ins, get_args(Start), f"{where}: pixels.init")
    values["init"] = stand_ins.get(values["init"], values["init"])
    for section in ("windows", "training", "augment"):
        for part, of_part in ((scale, where), (pixels, f"{where}: pixels")):
            values[section] = merge_values(values[section], part.get(section, {}), f"{of_part}: {section}")
    if values["priors"] is None and _needs_priors(head):
        values["priors"] = scale.get("priors")


def _needs_priors(head: str) -> Sequence[str]:
    return getattr(HEADS.get(head), "needs_priors", ())


def _check_parts(values: Mapping[str, Any]) -> None:
    """Check the arguments of backbone, head and prior against their signatures."""
    for key in ("feature_dim", "window"):
        if key in values["head"]:
            raise UserError(f"head.{key} follows from the backbone and windows.radius; it cannot be set")
    HEADS.check(values["head"])
    BACKBONES.check(values["backbone"])
    head = values["head"]["type"]
    check_priors(values["priors"], f"head {head}", bool(_needs_priors(head)))


def check_priors(priors: Any, reader: str, reads: bool) -> None:
    """Check the arguments of a prior, if one is set.

    Args:
        priors: value of the key `priors`.
        reader: what would read it, for the message.
        reads: whether it does.

    Raises:
        UserError: an unknown prior, a wrong argument, or nothing reads it.
    """
    if priors is None:
        return
    for key in ("root", "cache"):
        if key in typed(priors, dict, "priors"):
            raise UserError(f"priors.{key} follows from --root and --out; it cannot be set")
    PRIORS.check(priors)
    if not reads:
        raise UserError(f"priors are set, but {reader} takes none; remove them")


def _spelled(dataset: str, changes: Changes) -> list[str]:
    """Changes of parts as they stand in the row's name."""
    # A path names a place, not a model: the record has the sha256 of the weights loaded from it.
    weights, checkpoint = changes.get("weights"), changes.get("checkpoint")
    named = {
        "dataset": Path(dataset).stem if is_config_file(dataset) else None,
        "backbone": changes.get("backbone"),
        "weights": None if weights is None else Path(weights).name,
        "head": changes.get("head"),
        "checkpoint": None if checkpoint is None else Path(checkpoint).name,
    }
    return [f"{key}={value}" for key, value in named.items() if value is not None]


def _spelled_limit(limit: int | None) -> list[str]:
    return [] if limit is None else [f"limit={limit}"]


def merge_values(base: Mapping[str, Any], over: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Deep merge. A key that the base lacks is an error, because every recipe is complete."""
    check_keys(over, list(base), where)
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(base[key], Mapping)
        merged[key] = merge_values(base[key], value, f"{where}.{key}") if nested else value
    return merged
