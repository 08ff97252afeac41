"""Identities: what two runs must share for a finished row or a finished training to be reused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.checksums import file_sha256
from benchmarks.config.ensemble import Ensemble
from benchmarks.config.recipe import OPTIONAL_KEYS, TRACKERS, Recipe, Training, defaults

if TYPE_CHECKING:
    from benchmarks.config.reference import Reference
    from benchmarks.priors.base import Prior

# Raised when the same settings give other numbers than before. A training version is part of the hash that finds a
# finished training; the row version is part of every row's identity.
TRAINING_VERSIONS = {"features": 3, "pixels": 3}
ROW_VERSION = 3
FITTING_VERSION = 2  # of smoothed rows and ensembles
REFERENCE_VERSION = 1  # of reference rows' scores

# Keys that older rows lack. They are omitted at their defaults, so that these rows are found.
_LATER = {"augment", "checkpoint", "init", "published_faults", "schedule_floor", "schedule_unit"}


def recipe_identity(recipe: Recipe, dataset_info: Mapping[str, Any], prior: Prior | None) -> dict[str, Any]:
    """Identity of a recipe's row: configuration, data, priors and code versions.

    Args:
        recipe: resolved.
        dataset_info: record section `dataset`.
        prior: the recipe's prior, if it has one.
    """
    config = recipe.as_dict()
    config["training"] = {key: value for key, value in config["training"].items() if key not in TRACKERS}
    for section, usual in ((config, {**OPTIONAL_KEYS, "checkpoint": None}), (config["training"], defaults(Training))):
        for key in _LATER & section.keys():
            if section[key] == usual[key]:
                del section[key]
    if recipe.checkpoint is not None:
        config["checkpoint"] = Path(recipe.checkpoint).name  # its sha256 follows; the folder does not matter
    return {
        "config": config,
        "data": _data(dataset_info),
        **({} if prior is None else {"priors": prior.fingerprint()}),
        **({} if recipe.checkpoint is None else {"checkpoint": file_sha256(Path(recipe.checkpoint))}),
        "code": {
            "training": _training_version(recipe),
            "row": ROW_VERSION,
            **({} if recipe.smoothing is None else {"fitting": FITTING_VERSION}),
        },
    }


def reference_identity(
    reference: Reference, dataset_info: Mapping[str, Any], source: Mapping[str, Any]
) -> dict[str, Any]:
    """Identity of a reference row: configuration, data, source of the scores and code versions.

    Args:
        reference: resolved.
        dataset_info: record section `dataset`.
        source: the fingerprint of its prior under `priors`, or the sha256 of the true angles under `truth`; empty for
            chance.
    """
    return {
        "config": reference.as_dict(),
        "data": _data(dataset_info),
        **source,
        "code": {"reference": REFERENCE_VERSION, "row": ROW_VERSION},
    }


def ensemble_identity(ensemble: Ensemble, members: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Identity of an ensemble's row.

    Args:
        ensemble: resolved.
        members: member name -> identity of its row.
    """
    return {
        "config": ensemble.as_dict(),
        "members": {member.name: members[member.name] for member in ensemble.members},
        "code": {"row": ROW_VERSION, "fitting": FITTING_VERSION},
    }


def training_identity(
    recipe: Recipe, identity: Mapping[str, Any], dataset_info: Mapping[str, Any], source: Any
) -> dict[str, Any]:
    """Everything that determines the weights of a recipe's trainings, except the seed.

    Recipes that differ only in how they score share this identity, and with it their trainings.

    Args:
        recipe: resolved.
        identity: the row's identity.
        dataset_info: record section `dataset`.
        source: has `backbone`, a record section, and `damaged`, the paths of skipped crops.
    """
    config = recipe.as_dict()
    usual = defaults(Training)  # omitted, so that a new key with a default keeps old trainings valid
    training = {
        key: value
        for key, value in config["training"].items()
        if key not in ("seed", *TRACKERS) and not (key in usual and usual[key] == value)
    }
    stride = {split: config["windows"]["stride"][split] for split in ("train", "val")}
    pixels = {
        "temporal_dropout": recipe.temporal_dropout,
        "augment": config["augment"],
        "priors": identity.get("priors"),
        "weights": source.backbone["weights"]["sha256"],  # of the whole file, which may hold an LSTM as well
    }
    return {
        "version": _training_version(recipe),
        "features": source.backbone["fingerprint"],
        "frames": [dataset_info["splits"][split]["sha256"] for split in ("train", "val")],
        "damaged": source.damaged,
        "windows": {"radius": recipe.windows.radius, "stride": stride, "limit": recipe.limit},
        "views": config["views"]["train"],
        "head": config["head"],
        "training": training,
        **({"pixels": pixels} if recipe.on_pixels else {}),
        **({} if recipe.checkpoint is None else {"checkpoint": identity["checkpoint"]}),
    }


def short_hash(value: Any) -> str:
    """The first 16 hexadecimal digits of a JSON value's sha256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> str | None:
    """The first key in which two nested identities differ, with both values; None if they are equal.

    Example:
        >>> first_difference({"head": {"type": "lstm"}}, {"head": {"type": "gru"}})
        'head.type: lstm there, gru now'
    """
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


def _data(dataset_info: Mapping[str, Any]) -> dict[str, Any]:
    frames = {split: info["sha256"] for split, info in dataset_info["splits"].items()}
    return {"name": dataset_info["name"], "checksum": dataset_info["checksum"], **frames}


def _training_version(recipe: Recipe) -> int:
    return TRAINING_VERSIONS["pixels" if recipe.on_pixels else "features"]
