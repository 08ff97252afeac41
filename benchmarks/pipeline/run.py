"""The straight line: data -> features -> head -> scores -> views fused -> metrics -> record. Each step once.

Where the backbone trains too, windows are pixels and the step of features is left out.

`run` goes all of it; `extract` as far as the features, which may be done beforehand and by many machines.

Features are keyed by the backbone's fingerprint, trainings by a hash of all that determines them, rows by their name;
torch's training stack is imported only where there is work for it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.config.ensemble import Ensemble, recipes_of
from benchmarks.config.files import load_dataset
from benchmarks.config.recipe import TRACKERS, VIEWS, Recipe, Training, defaults
from benchmarks.data.dataset import Dataset, table_sha256
from benchmarks.data.windows import KeyFrames, key_frames, windows
from benchmarks.features.source import FeatureSource
from benchmarks.pipeline.ensemble import run_ensemble, settings_of
from benchmarks.pixels.properties import frame_properties
from benchmarks.rows import identity, provenance, schema
from benchmarks.rows.folder import result_folder, write_row_sums
from benchmarks.rows.record import RowScores, record
from benchmarks.scoring.smooth import smoothed
from benchmarks.system.locks import NAME, locked
from benchmarks.system.progress import plural, say
from registry import BACKBONES, HEADS, PRIORS, UserError
from zoo.files.atomic import check_writable
from zoo.files.checksums import NAME as SUMS
from zoo.files.checksums import damaged
from zoo.files.untrusted import below

if TYPE_CHECKING:
    import torch

    from backbones.base import Backbone
    from benchmarks.features.extract import Extraction
    from benchmarks.features.store import FeatureStore
    from benchmarks.pixels.source import PixelSource
    from benchmarks.priors.base import Prior


# Raised when equal settings would come to other numbers: of what a training is found again by, and of a whole row.
TRAINING_VERSIONS = {"features": 2, "pixels": 1}
ROW_VERSION = 3

# Weights up to this size are hashed again before a finished row is believed; 200 MB take a fifth of a second.
_RECHECKED_BYTES = 200_000_000


def run(
    rows: Sequence[Recipe | Ensemble],
    dataset: Dataset,
    *,
    seeds: int = 1,
    out: Path = Path("runs"),
    device: str = "cpu",
    skip_damaged: bool = False,
    dry_run: bool = False,
    workers: int = 1,
    plugins: Sequence[str] = (),
) -> list[schema.Result]:
    """Run each row to its record; of an ensemble, its members first, each to its own.

    Args:
        rows: resolved recipes and ensembles of one dataset.
        dataset: where the frames come from.
        seeds: how many; the first is the recipe's `training.seed`, the others follow it.
        out: receives `features/`, `trainings/` and `results/<dataset>/<name>/`.
        device: torch device.
        skip_damaged: treat crops that cannot be decoded as absent.
        dry_run: say what would be done, and do nothing.
        workers: trainings of a row to run side by side on a CPU, one core each, where they take one core anyway.
        plugins: loaded by those processes too.

    Returns:
        One result a row, in order; none when `dry_run`, and of several processes in the first alone.

    Raises:
        UserError: anything that the user can put right.
    """
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two recipes are called {name}; rename the file of one of them")
    recipes = recipes_of(rows)
    ensembles = [row for row in rows if isinstance(row, Ensemble)]
    for recipe in recipes:
        _check_needs(recipe)
    if not dry_run:
        check_writable(out)
    started = time.perf_counter()
    tables = {split: dataset.frames(split) for split in dataset.splits()}
    for split in ("train", "val"):
        if split not in tables:
            raise UserError(
                f"dataset {recipes[0].dataset} has no {split} split; heads learn from train and are chosen on val"
            )
    description = _describe(dataset, recipes[0].dataset, tables)

    finished: dict[str, schema.Result] = {}
    groups: dict[str, list[Recipe]] = {}
    providers = {recipe.name: _provider(recipe, dataset, out) for recipe in recipes}
    settings = {recipe.name: _settings(recipe, description, providers[recipe.name]) for recipe in recipes}
    for ensemble in ensembles:
        settings[ensemble.name] = settings_of(ensemble, settings, ROW_VERSION)
    everything: list[Recipe | Ensemble] = [*recipes, *ensembles]
    stamps = {row.name: _stamp(row, out) for row in everything}
    for row in everything:
        first = row.members[0] if isinstance(row, Ensemble) else row
        found = _finished(row, out, settings[row.name], _seeds(first, seeds), skip_damaged)
        if found is not None:
            finished[row.name] = found
            say(f"{row.name}: done before, {plural(len(found['seeds']), 'seed')} reused from {result_folder(out, row)}")
        elif isinstance(row, Recipe):
            groups.setdefault(_group(row), []).append(row)

    plans = {recipe.name: {split: _plan(recipe, split, table) for split, table in tables.items()} for recipe in recipes}
    if dry_run:
        _show_plan([recipe for group in groups.values() for recipe in group], plans, seeds)
        for ensemble in ensembles:
            if ensemble.name not in finished:
                print(f"{ensemble.name}: weights for {', '.join(member.name for member in ensemble.members)}")
        return []
    if groups:
        from benchmarks.system import processes

        processes.meet()  # before any of several processes writes what another one still looks for
    unfinished = any(row.name not in finished for row in everything)
    facts = _facts(recipes, plans, dataset, tables, out, providers) if unfinished else {}
    for group in groups.values():
        source: FeatureSource | PixelSource
        if group[0].on_pixels:
            with processes.first_alone():
                source = _pixels(group, plans, dataset, tables, out, skip_damaged, providers[group[0].name])
        else:
            source = _features(group, plans, dataset, tables, out, device, skip_damaged)
        for recipe in group:
            with _alone(recipe, out):
                if stamps[recipe.name] != _stamp(recipe, out) and processes.count() == 1:  # another one was at it
                    found = _finished(recipe, out, settings[recipe.name], _seeds(recipe, seeds), skip_damaged)
                    if found is not None:
                        finished[recipe.name] = found
                        continue
                result = _row(
                    recipe,
                    plans[recipe.name],
                    source,
                    settings[recipe.name],
                    description,
                    tables,
                    facts,
                    seeds,
                    out,
                    device,
                    workers,
                    plugins,
                )
            if result is not None:
                finished[recipe.name] = result
    for ensemble in ensembles:
        if ensemble.name not in finished and all(member.name in finished for member in ensemble.members):
            with _alone(ensemble, out):
                finished[ensemble.name] = run_ensemble(
                    ensemble,
                    out,
                    settings=settings[ensemble.name],
                    description=description,
                    plans=plans,
                    tables=tables,
                    facts=facts,
                    device=device,
                )
    for split, facts in description["splits"].items() if groups else ():
        if facts["crops"] < facts["rows"]:
            absent = facts["rows"] - facts["crops"]
            say(f"{split}: {absent:,} of {plural(facts['rows'], 'frame')} have no crop and count as absent")
    say(f"finished in {time.perf_counter() - started:.0f} s")
    return [finished[name] for name in names if name in finished]


def extract(
    rows: Sequence[Recipe | Ensemble],
    dataset: Dataset,
    *,
    out: Path = Path("runs"),
    device: str = "cpu",
    batch_size: int | None = None,
    skip_damaged: bool = False,
    share: tuple[int, int] = (0, 1),
    plugins: Sequence[str] = (),
    engine: str = "local",
) -> Extraction:
    """Fill the feature stores that `run` of these rows looks into, with the frames that some window touches.

    Args:
        rows: resolved recipes and ensembles of one dataset.
        dataset: where the frames come from.
        out: as for `run`.
        device: torch device.
        batch_size: images a forward pass; None for what suits the device.
        skip_damaged: leave out crops that cannot be decoded.
        share: this process's number and how many there are.
        plugins: loaded by the workers of a cluster too.
        engine: ``local``, or ``ray`` for the machines of a cluster.

    Returns:
        What was computed and found over all backbones.

    Raises:
        UserError: anything that the user can put right.
    """
    from benchmarks.features.extract import Extraction

    recipes = recipes_of(rows)
    for recipe in recipes:
        _check_needs(recipe)
    check_writable(out)
    tables = {split: dataset.frames(split) for split in dataset.splits()}
    plans = {recipe.name: {split: _plan(recipe, split, table) for split, table in tables.items()} for recipe in recipes}
    groups: dict[str, list[Recipe]] = {}
    for recipe in recipes:
        if recipe.on_pixels:
            say(f"{recipe.name}: its backbone trains, so there are no features to compute beforehand")
        else:
            groups.setdefault(_group(recipe), []).append(recipe)
    total = Extraction()
    for group in groups.values():
        plan = _plan_features(group, plans, dataset, tables, out, device if engine == "local" else "cpu")
        done = _encode(plan, dataset, device, skip_damaged, batch_size, share, plugins, engine)
        if share[0] == 0:  # of several processes one speaks
            _say_encoded(plan, done, dataset.root)
        total.add(done)
    return total


@contextmanager
def _alone(row: Recipe | Ensemble, out: Path) -> Iterator[None]:
    """Hold a row's folder; another run that works on it is waited for."""
    from benchmarks.system import processes

    if processes.rank() > 0:  # the first process holds it for all
        yield
        return
    folder = result_folder(out, row)
    with locked(folder / NAME, str(folder), wait=True):
        yield


def _stamp(row: Recipe | Ensemble, out: Path) -> int:
    """When a row's record was written; 0 where there is none."""
    try:
        return (result_folder(out, row) / "result.json").stat().st_mtime_ns
    except OSError:
        return 0


def _describe(dataset: Dataset, name: str, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    splits = {}
    for split, table in tables.items():
        splits[split] = {
            "rows": len(table),
            "crops": int((table["image"] != "").sum()),
            "labelled": int((table["label"] >= 0).sum()),
            "positives": int((table["label"] == 1).sum()),
            "clips": int(table["clip"].nunique()),
            "sha256": table_sha256(table),
        }
    return {"name": name, "note": dataset.note, "checksum": dataset.checksum(), "splits": splits}


def _check_needs(recipe: Recipe) -> None:
    """Say now what the head would miss, not after hours of extraction.

    Raises:
        UserError: a head that needs more than features over a frozen backbone, or priors that nobody provides.
    """
    from benchmarks.features.windows import check_takes_features
    from benchmarks.priors.base import lacking

    head: Any = HEADS.get(recipe.head["type"])
    if not recipe.on_pixels:
        check_takes_features(recipe.head["type"], head)
    elif head.needs_priors and recipe.priors is None:
        raise lacking(recipe.name, head.needs_priors)


def _group(recipe: Recipe) -> str:
    """Recipes of one group share what is read and computed before the first of them trains."""
    on_pixels = [recipe.temporal_dropout, recipe.priors] if recipe.on_pixels else []
    return json.dumps([recipe.backbone, *on_pixels], sort_keys=True)


def _provider(recipe: Recipe, dataset: Dataset, out: Path) -> Prior | None:
    if recipe.priors is None:
        return None
    return PRIORS.build({**recipe.priors, "root": dataset.root, "cache": _own_folder(out / "priors", recipe, dataset)})


def _facts(
    recipes: Sequence[Recipe],
    plans: Mapping[str, Mapping[str, KeyFrames]],
    dataset: Dataset,
    tables: Mapping[str, pd.DataFrame],
    out: Path,
    providers: Mapping[str, Prior | None],
) -> dict[str, dict[str, np.ndarray]]:
    """What is known of the labelled key frames of all rows, for their diagnosis."""
    from benchmarks.system import processes

    provider = next((each for each in providers.values() if each is not None), None)
    shipped = load_dataset(recipes[0].dataset).get("priors") if dataset.checksum() else None  # a --root may lack them
    if provider is None and shipped is not None:
        cache = _own_folder(out / "priors", recipes[0], dataset)
        provider = PRIORS.build({**shipped, "root": dataset.root, "cache": cache})
    with processes.first_alone():
        return frame_properties(
            dataset.root, tables, list(plans.values()), _sharpness_cache(out, recipes[0], dataset), provider
        )


def _sharpness_cache(out: Path, recipe: Recipe, dataset: Dataset) -> Path:
    return _own_folder(out / "sharpness", recipe, dataset).with_suffix(".npz")


def _own_folder(folder: Path, recipe: Recipe, dataset: Dataset) -> Path:
    """The place of a data set among those of others."""
    return folder / f"{recipe.dataset}-{_hash(_identity(dataset))}"


def _identity(dataset: Dataset) -> str:
    """What a data set is told from others by: the checksum it is shipped under, else where it lies."""
    return dataset.checksum() or str(dataset.root.resolve())


def _settings(recipe: Recipe, dataset: Mapping[str, Any], provider: Prior | None) -> dict[str, Any]:
    config = recipe.as_dict()
    config["training"] = {key: value for key, value in config["training"].items() if key not in TRACKERS}
    frames = {split: facts["sha256"] for split, facts in dataset["splits"].items()}
    return {
        "config": config,
        "data": {"name": dataset["name"], "checksum": dataset["checksum"], **frames},
        **({} if provider is None else {"priors": provider.fingerprint()}),
        "code": {"training": _training_version(recipe), "row": ROW_VERSION},
    }


def _training_version(recipe: Recipe) -> int:
    return TRAINING_VERSIONS["pixels" if recipe.on_pixels else "features"]


def _finished(
    row: Recipe | Ensemble, out: Path, settings: Mapping[str, Any], seeds: Sequence[int], skip_damaged: bool
) -> schema.Result | None:
    """The row's record, if it is there, of these settings, and of these seeds at least."""
    folder = result_folder(out, row)
    if not (folder / "result.json").exists():
        return None
    spoilt = damaged(folder, "result.json")
    if spoilt:
        say(f"damaged in {folder}: {', '.join(spoilt)}; the row is made anew")
        if {SUMS, "result.json"} & {*spoilt}:  # then nobody knows of which settings it was
            return None
    found = schema.read_result(folder / "result.json")
    differs = identity.first_difference(found["settings"], settings)
    if differs is None and isinstance(row, Recipe):  # an ensemble's members are looked at one by one
        differs = _weights_differ(found)
    if differs:
        raise UserError(
            f"run folder {folder} comes from other settings ({differs}); delete it, or use another --out DIR"
        )
    if spoilt or found["counts"]["damaged"] and not skip_damaged or found["diagnosis"] is None:
        return None
    if not set(seeds) <= set(found["seeds"]):
        return None
    if not (folder / SUMS).exists():  # killed just before they were written, or of an older version
        write_row_sums(folder)
    return found


def _weights_differ(found: schema.Result) -> str | None:
    """Whether the backbone's weights are others by now than those of the record; told by their bytes."""
    from backbones.base import file_sha256

    weights, named = found["backbone"]["weights"], found["config"]["backbone"].get("weights")
    if weights["file"] is None and named is None:
        return None
    path = provenance.HOME / weights["file"] if weights["file"] is not None else Path(named)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path] if path.is_file() else []
    if not files or sum(file.stat().st_size for file in files) > _RECHECKED_BYTES:
        return None
    sha256 = file_sha256(*files)
    return None if sha256 == weights["sha256"] else f"weights {path}: sha256 {weights['sha256']} there, {sha256} now"


def _seeds_there(folder: Path) -> list[int]:
    """The seeds of a row that was run before, even where its record is damaged."""
    if {SUMS, "result.json"} & {*damaged(folder, "result.json")}:
        names = (path.name.removeprefix("seed") for path in folder.glob("seed*"))
        return [int(name) for name in names if name.isdecimal()]
    return schema.read_result(folder / "result.json")["seeds"]


def _seeds(recipe: Recipe, count: int) -> list[int]:
    return list(range(recipe.training.seed, recipe.training.seed + count))


def _plan(recipe: Recipe, split: str, table: pd.DataFrame) -> KeyFrames:
    """Choose the key frames of one split and find their neighbours."""
    keys = key_frames(table, getattr(recipe.windows.stride, split))
    labels = table["label"].to_numpy()
    if split == "train":
        # The published programs train on windows whose key frame has no crop, as zeros. Nothing is to be learnt there.
        keys &= (labels >= 0) & (table["image"] != "").to_numpy(dtype=bool)
    if recipe.limit is not None:
        chosen = np.flatnonzero(keys)
        chosen = chosen[np.linspace(0, len(chosen) - 1, min(recipe.limit, len(chosen))).round().astype(np.int64)]
        keys = np.zeros(len(table), dtype=bool)
        keys[chosen] = True
    centres = np.flatnonzero(keys)
    return KeyFrames(rows=windows(table, recipe.windows.radius, keys), centres=centres, labels=labels[centres])


def _views(recipe: Recipe, split: str) -> tuple[str, ...]:
    """Views that a recipe reads in one split. The epoch is chosen on the original view of val."""
    wanted = {
        *recipe.views.test,
        *(recipe.views.train if split == "train" else ()),
        *(("original",) if split == "val" else ()),
    }
    return tuple(view for view in VIEWS if view in wanted)


def _show_plan(recipes: Sequence[Recipe], plans: Mapping[str, Mapping[str, KeyFrames]], seeds: int) -> None:
    for recipe in recipes:
        own = plans[recipe.name]
        counts = ", ".join(f"{len(plan.centres):,} {split}" for split, plan in own.items())
        frames = sum(len(_touched([plan])) * len(_views(recipe, split)) for split, plan in own.items())
        print(
            f"{recipe.name}: {recipe.backbone['type']} on {plural(frames, 'frame')} (all views), "
            f"{recipe.head['type']} for {plural(recipe.training.epochs, 'epoch')}, {plural(seeds, 'seed')}; "
            f"windows: {counts}"
        )


def _touched(plans: Sequence[KeyFrames]) -> np.ndarray:
    rows = np.unique(np.concatenate([plan.rows.ravel() for plan in plans]))
    return rows[rows >= 0]


@dataclass
class FeaturePlan:
    """What a group of recipes of one backbone needs encoded.

    Attributes:
        backbone: built, on its device.
        part: the recipes' configuration of it.
        fingerprint: of its features.
        stores: tree of crops -> its store. Train and val crops lie under one folder, test crops under another.
        images: tree -> view -> image paths there.
        touched: split -> rows of the frame table that some window touches.
        views: split -> views that some recipe reads.
    """

    backbone: Backbone
    part: dict[str, Any]
    fingerprint: dict[str, Any]
    stores: dict[str, FeatureStore]
    images: dict[str, dict[str, list[str]]]
    touched: dict[str, np.ndarray]
    views: dict[str, tuple[str, ...]]


def _plan_features(
    recipes: Sequence[Recipe],
    plans: Mapping[str, Mapping[str, KeyFrames]],
    dataset: Dataset,
    tables: Mapping[str, pd.DataFrame],
    out: Path,
    device: str,
) -> FeaturePlan:
    """Find what the windows of some recipes of one backbone touch, and the stores that are to hold it."""
    from benchmarks.features.extract import fingerprint_of
    from benchmarks.features.store import FORMAT, FeatureStore

    backbone = BACKBONES.build(recipes[0].backbone).to(device)
    fingerprint = fingerprint_of(backbone)
    place = {"dataset": recipes[0].dataset, "data": _identity(dataset), "format": FORMAT, **fingerprint}
    folder = out / "features" / f"{recipes[0].dataset}-{_hash(place)}"

    touched = {split: _touched([plans[recipe.name][split] for recipe in recipes]) for split in tables}
    views = {
        split: tuple(view for view in VIEWS if any(view in _views(recipe, split) for recipe in recipes))
        for split in tables
    }
    images: dict[str, dict[str, list[str]]] = {}
    for split, table in tables.items():
        for tree, path in map(_tree, table["image"].to_numpy()[touched[split]]):
            for view in views[split]:
                images.setdefault(tree, {}).setdefault(view, []).append(path)
    stores = {tree: FeatureStore(below(folder, tree, "an image's tree"), fingerprint) for tree in images}
    return FeaturePlan(backbone, recipes[0].backbone, fingerprint, stores, images, touched, views)


def _encode(
    plan: FeaturePlan,
    dataset: Dataset,
    device: str,
    skip_damaged: bool,
    batch_size: int | None = None,
    share: tuple[int, int] = (0, 1),
    plugins: Sequence[str] = (),
    engine: str = "local",
) -> Extraction:
    """Encode what the stores lack; of the damaged crops it says in which tree they lie."""
    from benchmarks.features.extract import Extraction, extract
    from benchmarks.features.ray import extract_with_ray

    total = Extraction()
    how: dict[str, Any] = dict(batch_size=batch_size, device=device, skip_damaged=skip_damaged)
    for tree, views in plan.images.items():
        root, store = dataset.root / tree, plan.stores[tree]
        if engine == "ray":
            done = extract_with_ray(plan.part, plugins, root, views, store, **how)
        else:
            done = extract(plan.backbone, root, views, store, share=share, **how)
        done.damaged = [f"{tree}/{image}" for image in done.damaged]
        total.add(done)
    return total


def _say_encoded(plan: FeaturePlan, done: Extraction, root: Path) -> None:
    name = plan.part["type"]
    if done.encoded:
        speed = f" in {done.seconds:.0f} s" if done.seconds >= 1 else ""
        say(f"{name}: {plural(done.encoded, 'feature vector')} computed{speed}, {done.reused:,} reused")
    else:
        folders = {store.folder.parent for store in plan.stores.values()}
        say(f"{name}: {plural(done.reused, 'feature vector')} reused from {', '.join(map(str, folders))}")
    _say_damaged(done.damaged, root)


def _say_damaged(damaged: Sequence[str], root: Path) -> None:
    if damaged:
        say(f"{plural(len(damaged), 'damaged crop')} left out, as if absent; the first: {root / damaged[0]}")


def _features(
    recipes: Sequence[Recipe],
    plans: Mapping[str, Mapping[str, KeyFrames]],
    dataset: Dataset,
    tables: Mapping[str, pd.DataFrame],
    out: Path,
    device: str,
    skip_damaged: bool,
) -> FeatureSource:
    """Encode what the windows of some recipes of one backbone touch, and read it back."""
    plan = _plan_features(recipes, plans, dataset, tables, out, device)
    done = _encode(plan, dataset, device, skip_damaged)
    _say_encoded(plan, done, dataset.root)
    left_out = set(done.damaged)
    arrays, positions = {}, {}
    for split, table in tables.items():
        usable = np.array([row for row in plan.touched[split] if table["image"].iat[row] not in left_out], np.int64)
        positions[split] = np.full(len(table), -1)
        positions[split][usable] = np.arange(len(usable))
        by_tree = [_tree(path) for path in table["image"].to_numpy()[usable]]
        for view in plan.views[split]:
            arrays[split, view] = _read(plan.stores, view, by_tree, plan.backbone.feature_dim)
    section = _backbone_section(recipes[0], plan.backbone, plan.fingerprint)
    return FeatureSource(arrays, positions, section, sum(store.seconds for store in plan.stores.values()), done.damaged)


def _pixels(
    recipes: Sequence[Recipe],
    plans: Mapping[str, Mapping[str, KeyFrames]],
    dataset: Dataset,
    tables: Mapping[str, pd.DataFrame],
    out: Path,
    skip_damaged: bool,
    provider: Prior | None,
) -> PixelSource:
    """Decode what the windows of some recipes of one backbone that trains touch."""
    from benchmarks.pixels.crops import read_pixels
    from benchmarks.pixels.sharpness import cumulative_normal, sharpness
    from benchmarks.pixels.source import PixelSource

    recipe = recipes[0]
    backbone: Backbone = BACKBONES.build(recipe.backbone)
    started = time.perf_counter()
    judged = None
    if recipe.temporal_dropout:  # by the standard of all frames of a split, whatever --limit leaves of them
        cache = _sharpness_cache(out, recipe, dataset)
        judged = {
            split: cumulative_normal(sharpness(dataset.root, table["image"].tolist(), cache))
            for split, table in tables.items()
        }
    touched = {split: _touched([plans[recipe.name][split] for recipe in recipes]) for split in tables}
    crops, positions, damaged = read_pixels(
        dataset.root, tables, touched, backbone.preprocessing, skip_damaged=skip_damaged
    )
    _say_damaged(damaged, dataset.root)
    fingerprint = backbone.fingerprint()
    if backbone.weights_info.random_init and "seed" not in recipe.backbone:
        fingerprint["weights"] = "random init, drawn by the seed of each training"
    section = _backbone_section(recipe, backbone, fingerprint)
    seconds = time.perf_counter() - started
    return PixelSource(crops, positions, tables, section, seconds, damaged, judged, provider)


def _tree(path: str) -> tuple[str, str]:
    """Split the path of a crop into the tree it lies in and its path there."""
    tree, _, rest = path.partition("/")
    return tree, rest


def _read(stores: Mapping[str, Any], view: str, by_tree: Sequence[tuple[str, str]], feature_dim: int) -> torch.Tensor:
    import torch

    features = torch.empty(len(by_tree), feature_dim)
    for tree in {tree for tree, _ in by_tree}:
        rows = [row for row, (of, _) in enumerate(by_tree) if of == tree]
        features[rows] = stores[tree].read(view, [by_tree[row][1] for row in rows]).float()
    return features


def _backbone_section(recipe: Recipe, backbone: Backbone, fingerprint: dict[str, Any]) -> dict[str, Any]:
    """The record's facts on the backbone of a group of recipes."""
    return {
        "type": recipe.backbone["type"],
        "stands_in_for": recipe.stands_in_for,
        "feature_dim": backbone.feature_dim,
        "parameters": sum(parameter.numel() for parameter in backbone.parameters()),
        "fingerprint": fingerprint,
        "weights": _weights_section(backbone.weights_info),
    }


def _weights_section(info: Any) -> dict[str, Any]:
    """The record's facts on weights, free of this machine's folders; `file` only where the project ships it."""
    origin = Path(info.origin)
    shipped = origin.is_absolute() and origin.is_relative_to(provenance.HOME)
    file = str(origin.relative_to(provenance.HOME)) if shipped else None
    return {
        "name": info.name,
        "origin": file or (origin.name if origin.is_absolute() else info.origin),
        "file": file,
        "sha256": info.sha256,
        "licence": info.licence,
        "random_init": info.random_init,
    }


def _row(
    recipe: Recipe,
    plans: Mapping[str, KeyFrames],
    source: FeatureSource | PixelSource,
    settings: dict[str, Any],
    description: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    facts: Mapping[str, Mapping[str, np.ndarray]],
    seeds: int,
    out: Path,
    device: str,
    workers: int,
    plugins: Sequence[str],
) -> schema.Result | None:
    """Train or find the models of one recipe, score every split, and write the row's folder.

    Of several processes that train together the first alone has scores.
    """
    from benchmarks.system import processes
    from benchmarks.training.seeds import TrainingJob, run_seeds
    from benchmarks.training.train import class_weights

    folder = result_folder(out, recipe)
    wanted = _seeds(recipe, seeds)
    if (folder / "result.json").exists():  # more seeds join those that are there
        wanted = sorted({*wanted, *_seeds_there(folder)})

    plans = {split: _drop_absent_centres(plan, source.positions[split], split) for split, plan in plans.items()}
    sizes = {"feature_dim": source.backbone["feature_dim"], "window": 2 * recipe.windows.radius + 1}
    with processes.first_alone():  # a provider of priors may compute them
        job = TrainingJob(
            head_config={**recipe.head, **sizes},
            backbone_config=recipe.backbone if recipe.on_pixels else None,
            training=recipe.training,
            data=source.window_data(plans["train"], "train", recipe.views.train),
            validation=source.window_data(plans["val"], "val", ["original"]),
            weights=class_weights(tables["train"]["label"].to_numpy(), recipe.training.class_weight),
            to_score={
                (split, view): source.window_data(plan, split, [view])
                for split, plan in plans.items()
                for view in recipe.views.test
            },
            folder=out / "trainings" / _hash(_determines_training(recipe, source, settings, description)),
            device=device,
            name=recipe.name,
        )
    outcomes = run_seeds(job, wanted, workers=workers, plugins=plugins)
    if processes.rank() > 0:
        return None
    reports = [outcome.report for outcome in outcomes]
    scored = {
        split: {view: [outcome.scores[split, view] for outcome in outcomes] for view in recipe.views.test}
        for split in plans
    }
    reused = [report["seed"] for report in reports if report.pop("reused")]
    trained = len(wanted) - len(reused)
    say(
        f"{recipe.name}: {plural(trained, 'training')} done, {len(reused)} reused; best validation mAP "
        + ", ".join(f"{100 * report['best_mAP']:.2f} (epoch {report['best_epoch']})" for report in reports)
    )

    fused = {
        split: np.mean([np.stack(of_view) for of_view in views.values()], axis=0) for split, views in scored.items()
    }
    fused, fitted = smoothed(fused, plans, tables, recipe.smoothing)
    made = RowScores(
        seeds=wanted,
        parts=scored,
        fused=fused,
        fitted=fitted,
        backbone={**source.backbone, "stands_in_for": recipe.stands_in_for},
        head={
            "type": recipe.head["type"],
            "parameters": reports[0]["parameters"],
            "initialised_from": reports[0].get("initial", {}).get("lstm"),
        },
        training=reports,
        counts={"training windows, all views": len(job.data), "damaged": len(source.damaged)},
        seconds={
            "features": source.seconds,
            "training": float(np.mean([report["seconds"] for report in reports])),
            "scoring": float(np.mean([outcome.seconds for outcome in outcomes])),
        },
    )
    return record(
        folder,
        recipe,
        made,
        settings=settings,
        description=description,
        plans=plans,
        tables=tables,
        strides={split: getattr(recipe.windows.stride, split) for split in plans},
        facts=facts,
        device=device,
    )


def _drop_absent_centres(plan: KeyFrames, positions: np.ndarray, split: str) -> KeyFrames:
    """Take damaged crops out of the training key frames; elsewhere each is scored, from its neighbours if need be."""
    if split != "train":
        return plan
    keep = positions[plan.centres] >= 0
    return KeyFrames(plan.rows[keep], plan.centres[keep], plan.labels[keep])


def _determines_training(
    recipe: Recipe, source: FeatureSource | PixelSource, settings: Mapping[str, Any], description: Mapping[str, Any]
) -> dict[str, Any]:
    config = recipe.as_dict()
    usual = defaults(Training)  # left out, so that a training is found again when a key is added
    training = {
        key: value
        for key, value in config["training"].items()
        if key not in ("seed", *TRACKERS) and not (key in usual and usual[key] == value)
    }
    stride = {split: config["windows"]["stride"][split] for split in ("train", "val")}
    pixels = {
        "temporal_dropout": recipe.temporal_dropout,
        "priors": settings.get("priors"),
        "weights": source.backbone["weights"]["sha256"],  # of a file, which may hold more than the backbone's
    }
    return {
        "version": _training_version(recipe),
        "features": source.backbone["fingerprint"],
        "frames": [description["splits"][split]["sha256"] for split in ("train", "val")],
        "damaged": source.damaged,
        "windows": {"radius": recipe.windows.radius, "stride": stride, "limit": recipe.limit},
        "views": config["views"]["train"],
        "head": config["head"],
        "training": training,
        **({"pixels": pixels} if recipe.on_pixels else {}),
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
