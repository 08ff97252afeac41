"""Merge recipe < dataset < command line into one validated, frozen `Recipe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.config.files import check_keys, load_dataset, load_recipe
from benchmarks.config.recipe import RECIPE_KEYS, Recipe, Training, Views, Windows, defaults
from benchmarks.config.settings import parse_setting, set_value, spell, tracks
from benchmarks.config.values import build_section, check_values, smoothing_of, typed
from registry import BACKBONES, HEADS, PRIORS, UserError


def resolve(
    recipe: str,
    dataset: str = "synthlam",
    *,
    backbone: str | None = None,
    weights: str | None = None,
    head: str | None = None,
    settings: Sequence[str] = (),
    limit: int | None = None,
) -> Recipe:
    """Merge recipe < dataset < command line and validate the whole.

    Args:
        recipe: name of a recipe, or a path that ends in `.py`.
        dataset: name of a dataset, or a path that ends in `.py`.
        backbone: replaces the recipe's backbone, its arguments too.
        weights: path given to the backbone's argument `weights`.
        head: replaces the recipe's head, its arguments too.
        settings: `key=value` pairs with dotted keys, such as `training.lr=1e-3`.
        limit: at most so many windows a split.

    Raises:
        UserError: anything unknown, of the wrong type or left over from another `type`.
    """
    method, scale = load_recipe(recipe), load_dataset(dataset)
    stem = Path(recipe).stem

    changed = [parse_setting(setting) for setting in settings]
    values: dict[str, Any] = {key: method[key] for key in RECIPE_KEYS}

    stands_in_for = None
    asked = values["backbone"].get("type")
    if backbone is not None:
        values["backbone"] = {"type": backbone}
    elif asked in scale.get("stand_in", {}):
        values["backbone"], stands_in_for = dict(scale["stand_in"][asked]), asked
    if weights is not None:
        values["backbone"]["weights"] = weights

    if head is not None:
        values["head"] = {"type": head}
    values["head"] = {**values["head"], **scale.get("heads", {}).get(values["head"]["type"], {})}

    pixels = scale.get("pixels", {})
    if dict(changed).get("backbone.frozen", values["backbone"].get("frozen", True)) is not False:
        pixels = {}
    own = pixels.get("backbones", {}).get(values["backbone"]["type"], {})
    values["backbone"] = {**own, **values["backbone"]}
    values["training"] = {**defaults(Training), **values["training"]}
    for section in ("windows", "training"):
        for part, where in ((scale, f"dataset {dataset}"), (pixels, f"dataset {dataset}: pixels")):
            values[section] = _merge(values[section], part.get(section, {}), f"{where}: {section}")
    needs_priors = getattr(HEADS.get(values["head"]["type"]), "needs_priors", ())
    if needs_priors and values["priors"] is None:
        values["priors"] = scale.get("priors")

    changes = [f"dataset={Path(dataset).stem}"] if dataset.endswith(".py") else []
    changes += [f"backbone={backbone}"] if backbone is not None else []
    # A path names a place, not a model: what was loaded from it is in the record, by its sha256.
    changes += [f"weights={Path(weights).name}"] if weights is not None else []
    changes += [f"head={head}"] if head is not None else []
    for key, value in changed:
        if set_value(values, key, value) and not tracks(key):
            changes.append(f"{key}={spell(value)}")
    if limit is not None:
        if limit < 1:
            raise UserError(f"--limit is {limit}; it has to be at least 1")
        changes.append(f"limit={limit}")

    for key in ("feature_dim", "window"):
        if key in values["head"]:
            raise UserError(f"head.{key} follows from the backbone and windows.radius; it cannot be set")
    HEADS.check(values["head"])
    BACKBONES.check(values["backbone"])
    if values["priors"] is not None:
        for key in ("root", "cache"):
            if key in typed(values["priors"], dict, "priors"):
                raise UserError(f"priors.{key} follows from --root and --out; it cannot be set")
        PRIORS.check(values["priors"])
        if not needs_priors:
            raise UserError(f"priors are set, and head {values['head']['type']} takes none; leave them out")
    resolved = Recipe(
        name="+".join([stem, *changes]),
        recipe=stem,
        version=typed(values["version"], int, "version"),
        method=typed(values["method"], str, "method"),
        published=typed(values["published"], str | None, "published"),
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
        limit=limit,
        changes=tuple(changes),
    )
    check_values(resolved)
    return resolved


def _merge(base: Mapping[str, Any], over: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Deep merge; a key that the base does not have is an error, since every recipe is complete."""
    check_keys(over, list(base), where)
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(base[key], Mapping)
        merged[key] = _merge(base[key], value, f"{where}.{key}") if nested else value
    return merged
