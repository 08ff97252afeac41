"""Load what the recipes of one backbone train and score on: features from the store, or pixels."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from backbones.base import Backbone, WeightsInfo
from backbones.checkpoints import all_finite
from benchmarks.config.recipe import VIEWS, Recipe
from benchmarks.data.windows import KeyFrames
from benchmarks.features.extract import (
    DEFAULT_OPTIONS,
    Extraction,
    ExtractOptions,
    encoding_of,
    extract,
    fingerprint_of,
)
from benchmarks.features.manifest import FORMAT
from benchmarks.features.ray import extract_with_ray
from benchmarks.features.source import FeatureSource
from benchmarks.features.store import FeatureStore
from benchmarks.features.windows import FeatureData
from benchmarks.pipeline.row import RecipeRow
from benchmarks.pipeline.session import Session
from benchmarks.pixels.crops import read_pixels
from benchmarks.pixels.sharpness import cumulative_normal, sharpness
from benchmarks.pixels.source import PixelSource, check_init
from benchmarks.pixels.windows import PixelData
from benchmarks.rows.identity import short_hash
from benchmarks.rows.provenance import HOME
from benchmarks.system import processes
from benchmarks.system.progress import plural, say
from benchmarks.training.train import check_checkpoint
from registry import BACKBONES, UserError
from zoo.files.untrusted import below
from zoo.weights import read_weights


class Source(Protocol):
    """Windows for training and scoring, with what the record reports about them."""

    positions: dict[str, np.ndarray]
    backbone: dict[str, Any]
    seconds: float
    damaged: list[str]

    def windows(self, key_frames: KeyFrames, split: str, views: Sequence[str]) -> FeatureData | PixelData:
        """The windows around key frames, once per view."""


def load_source(rows: Sequence[RecipeRow]) -> Source:
    """Load the source of a group of rows; see `by_backbone`."""
    if not rows[0].recipe.on_pixels:
        return load_features(rows)
    with processes.first_alone():  # the first process fills the caches
        return load_pixels(rows)


@dataclass
class FeaturePlan:
    """The frames that a group of rows with one backbone needs encoded.

    Attributes:
        backbone: on its device.
        config: the recipes' configuration of it.
        fingerprint: of its features.
        stores: tree of crops -> its store. Train and val crops are in one tree, test crops in another.
        images: tree -> view -> image paths within the tree.
        touched: split -> rows of the frame table that are part of a window.
        views: split -> views that a recipe reads.
    """

    backbone: Backbone
    config: dict[str, Any]
    fingerprint: dict[str, Any]
    stores: dict[str, FeatureStore]
    images: dict[str, dict[str, list[str]]]
    touched: dict[str, np.ndarray]
    views: dict[str, tuple[str, ...]]


def plan_features(rows: Sequence[RecipeRow], device: str) -> FeaturePlan:
    """Find the frames in the windows of some rows with one backbone, and the stores for their features."""
    session, recipe = rows[0].session, rows[0].recipe
    backbone = BACKBONES.build(recipe.backbone).to(device)
    fingerprint = fingerprint_of(backbone)
    place = {"dataset": recipe.dataset, "data": session.data_identity(), "format": FORMAT, **fingerprint}
    folder = session.out / "features" / f"{recipe.dataset}-{short_hash(place)}"

    touched = {split: touched_rows(each for row in rows for each in row.touched(split)) for split in session.tables}
    views = {
        split: tuple(view for view in VIEWS if any(view in views_of(row.recipe, split) for row in rows))
        for split in session.tables
    }
    images: dict[str, dict[str, list[str]]] = {}
    for split, table in session.tables.items():
        for tree, path in map(_split_tree, table["image"].to_numpy()[touched[split]]):
            for view in views[split]:
                images.setdefault(tree, {}).setdefault(view, []).append(path)
    stores = {tree: FeatureStore(below(folder, tree, "an image's tree"), fingerprint) for tree in images}
    return FeaturePlan(backbone, recipe.backbone, fingerprint, stores, images, touched, views)


def encode_missing(
    plan: FeaturePlan,
    session: Session,
    options: ExtractOptions = DEFAULT_OPTIONS,
    engine: str = "local",
) -> Extraction:
    """Encode the frames that the stores of a plan lack.

    Args:
        plan: from `plan_features`.
        session: dataset and options.
        options: how to extract; device, `skip_damaged` and `plugins` come from the session.
        engine: `local`, or `ray` for the machines of a cluster.

    Returns:
        Images computed and found; damaged crops with the tree in front of their path.
    """
    total = Extraction()
    options = replace(options, device=session.device, skip_damaged=session.skip_damaged, plugins=session.plugins)
    encode = encoding_of(plan.backbone, options)
    for tree, views in plan.images.items():
        root, store = session.dataset.root / tree, plan.stores[tree]
        if engine == "ray":
            done = extract_with_ray(plan.config, root, views, store, options)
        else:
            done = extract(encode, root, views, store, options)
        done.damaged = [f"{tree}/{image}" for image in done.damaged]
        total.add(done)
    return total


def say_encoded(plan: FeaturePlan, done: Extraction, root: Path) -> None:
    """Print what an extraction computed, reused and skipped."""
    name = plan.config["type"]
    if done.encoded:
        speed = f" in {done.seconds:.0f} s" if done.seconds >= 1 else ""
        say(f"{name}: {plural(done.encoded, 'feature vector')} computed{speed}, {done.reused:,} reused")
    else:
        folders = {store.folder.parent for store in plan.stores.values()}
        say(f"{name}: {plural(done.reused, 'feature vector')} reused from {', '.join(map(str, folders))}")
    _say_damaged(done.damaged, root)


def load_features(rows: Sequence[RecipeRow]) -> FeatureSource:
    """Encode the missing frames in the windows of some rows with one backbone, and read all features."""
    session = rows[0].session
    plan = plan_features(rows, session.device)
    for row in rows:
        check_recipe_checkpoint(row.recipe, plan.backbone)
    done = encode_missing(plan, session)
    say_encoded(plan, done, session.dataset.root)
    damaged = set(done.damaged)
    arrays, positions = {}, {}
    for split, table in session.tables.items():
        images = table["image"].to_numpy()
        usable = np.array([row for row in plan.touched[split] if images[row] not in damaged], np.int64)
        positions[split] = np.full(len(table), -1)
        positions[split][usable] = np.arange(len(usable))
        paths = [_split_tree(path) for path in images[usable]]
        for view in plan.views[split]:
            arrays[split, view] = _read_features(plan, view, paths)
    section = _backbone_section(rows[0].recipe, plan.backbone, plan.fingerprint)
    return FeatureSource(arrays, positions, section, sum(store.seconds for store in plan.stores.values()), done.damaged)


def load_pixels(rows: Sequence[RecipeRow]) -> PixelSource:
    """Decode the crops in the windows of some rows with one trainable backbone."""
    session, recipe = rows[0].session, rows[0].recipe
    check_init(recipe)
    backbone: Backbone = BACKBONES.build(recipe.backbone)
    for row in rows:
        check_recipe_checkpoint(row.recipe, backbone)
    if recipe.checkpoint is not None:
        backbone.weights_info = _checkpoint_info(Path(recipe.checkpoint), rows[0].identity["checkpoint"])
    started = time.perf_counter()
    blur = None
    if recipe.temporal_dropout:  # relative to all frames of a split, even under --limit
        cache = session.sharpness_cache(recipe.dataset)
        blur = {
            split: cumulative_normal(sharpness(session.dataset.root, table["image"].tolist(), cache))
            for split, table in session.tables.items()
        }
    touched = {split: touched_rows(each for row in rows for each in row.touched(split)) for split in session.tables}
    crops, positions, damaged = read_pixels(
        session.dataset.root, session.tables, touched, backbone.preprocessing, skip_damaged=session.skip_damaged
    )
    _say_damaged(damaged, session.dataset.root)
    fingerprint = backbone.fingerprint()
    if recipe.checkpoint is not None:
        fingerprint["weights"] = backbone.weights_info.sha256
    elif backbone.weights_info.random_init and "seed" not in recipe.backbone:
        fingerprint["weights"] = "random init, drawn by the seed of each training"
    section = _backbone_section(recipe, backbone, fingerprint)
    seconds = time.perf_counter() - started
    faults = recipe.published_faults
    return PixelSource(crops, positions, session.tables, section, seconds, damaged, blur, rows[0].prior, faults)


def head_config(recipe: Recipe, feature_dim: int) -> dict[str, Any]:
    """`type` and arguments of a recipe's head, with the sizes of its windows."""
    return {**recipe.head, "feature_dim": feature_dim, "window": 2 * recipe.windows.radius + 1}


def check_recipe_checkpoint(recipe: Recipe, backbone: Backbone) -> None:
    """Check that the checkpoint of a recipe, if it has one, fits its parts.

    Raises:
        UserError: it does not.
    """
    if recipe.checkpoint is not None:
        config = head_config(recipe, backbone.feature_dim)
        check_checkpoint(Path(recipe.checkpoint), config, backbone if recipe.on_pixels else None)


def touched_rows(key_frames: Iterable[KeyFrames]) -> np.ndarray:
    """Rows of the frame table that are part of a window, ascending."""
    rows = np.unique(np.concatenate([each.rows.ravel() for each in key_frames]))
    return rows[rows >= 0]


def views_of(recipe: Recipe, split: str) -> tuple[str, ...]:
    """Views that a recipe reads in one split. Its epoch is chosen on the original view of val."""
    wanted = {
        *recipe.views.test,
        *(recipe.views.train if split == "train" else ()),
        *(("original",) if split == "val" else ()),
    }
    return tuple(view for view in VIEWS if view in wanted)


def _split_tree(path: str) -> tuple[str, str]:
    """Split a crop's path into its tree, the first folder, and the rest."""
    tree, _, rest = path.partition("/")
    return tree, rest


def _read_features(plan: FeaturePlan, view: str, paths: Sequence[tuple[str, str]]) -> torch.Tensor:
    features = torch.empty(len(paths), plan.backbone.feature_dim)
    for tree in {tree for tree, _ in paths}:
        rows = [row for row, (of, _) in enumerate(paths) if of == tree]
        read = plan.stores[tree].read(view, [paths[row][1] for row in rows]).float()
        if not all_finite(read):  # stores of older versions may hold such features
            bad = rows[int((~read.isfinite()).any(dim=1).nonzero()[0])]
            raise UserError(
                f"{plan.stores[tree].folder}: the features of {'/'.join(paths[bad])} ({view}) are NaN or infinite; "
                "delete this folder to have them computed again"
            )
        features[rows] = read
    return features


def _say_damaged(damaged: Sequence[str], root: Path) -> None:
    if damaged:
        say(f"{plural(len(damaged), 'damaged crop')} left out, as if absent; the first: {root / damaged[0]}")


def _backbone_section(recipe: Recipe, backbone: Backbone, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The record's section `backbone`."""
    return {
        "type": recipe.backbone["type"],
        "stands_in_for": recipe.stands_in_for,
        "feature_dim": backbone.feature_dim,
        "parameters": sum(parameter.numel() for parameter in backbone.parameters()),
        "fingerprint": fingerprint,
        "weights": _weights_section(backbone.weights_info),
    }


def _checkpoint_info(path: Path, sha256: str) -> WeightsInfo:
    """Origin of the weights of a checkpoint that is scored as it is."""
    licence = read_weights(path)[1].get("licence") or "unknown"
    return WeightsInfo(path.name, str(path), sha256, licence)


def _weights_section(info: WeightsInfo) -> dict[str, Any]:
    """The record's section `backbone.weights`, without this machine's folders; `file` only for shipped weights."""
    origin = Path(info.origin)
    shipped = origin.is_absolute() and origin.is_relative_to(HOME)
    file = str(origin.relative_to(HOME)) if shipped else None
    return {
        "name": info.name,
        "origin": file or (origin.name if origin.is_absolute() else info.origin),
        "file": file,
        "sha256": info.sha256,
        "licence": info.licence,
        "random_init": info.random_init,
    }
