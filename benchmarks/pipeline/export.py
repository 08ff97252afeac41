"""Export one seed of a finished row as a model folder: weights, configuration, and a card made from the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from backbones.base import Backbone
from backbones.hub import nothing_fetched
from benchmarks.evaluation.bootstrap import STEPS, best_threshold
from benchmarks.rows.predictions import read_predictions
from benchmarks.rows.schema import Result, read_result
from benchmarks.rows.trainings import clusters_in
from benchmarks.scoring.looks import COST, GAP, looks_at
from benchmarks.training.job import REPORT
from registry import BACKBONES, DATASETS, UserError
from zoo.cards import Card, Figure
from zoo.files.checksums import check_file
from zoo.files.untrusted import checked, read_json
from zoo.model import LookingAtMeModel, read_model
from zoo.models import Model, four_sides, write_folder
from zoo.weights import read_head


class _Part(TypedDict):
    type: str


class _Windows(TypedDict):
    radius: int


class _Views(TypedDict):
    test: list[str]


class _Training(TypedDict):
    lr: float
    batch_size: int
    epochs: int


class _Smoothing(TypedDict):
    filter: str
    window: int | None


class _Config(TypedDict):
    """The part of a record's `config` that an export reads."""

    backbone: _Part
    head: _Part
    windows: _Windows
    views: _Views
    training: _Training
    smoothing: _Smoothing | None


class _Report(TypedDict):
    """The part of a training report that an export reads."""

    seed: int
    best_epoch: int
    windows: int


def find_training(result: Result, seed: int, out: Path) -> Path:
    """Find the folder below `out/trainings` with the weights of one seed of a row.

    The folder is recognised by its `training.json`, of which the record holds a copy, including losses and seconds. So
    these are the weights that were scored, not weights trained later.

    Raises:
        UserError: there is no such folder.
    """
    report = _report(result, seed)
    for path in sorted((out / "trainings").glob(f"*/seed{seed}/{REPORT}")):
        if read_json(path, "a training's report") == report:
            return path.parent
    raise UserError(
        f"the weights of {result['name']}, seed {seed}, are no longer below {out / 'trainings'}; delete the row's "
        "folder and run it again"
    )


def export_row(row: Path, folder: Path, seed: int | None = None) -> Card:
    """Write the model folder of a row.

    Args:
        row: folder `<out>/results/<dataset>/<name>`.
        folder: to write.
        seed: to export; None for the row's first.

    Returns:
        The model's card.

    Raises:
        UserError: the row has no weights of its own, was not run with this seed, or its weights are missing or damaged.
    """
    result = read_result(row / "result.json")
    name, config = result["name"], result["config"]
    if "members" in config:
        members = config["members"] if isinstance(config["members"], list) else []
        raise UserError(
            f"{row}: {name} is an ensemble and has no weights of its own; export its members: "
            f"{', '.join(map(str, members))}"
        )
    if "scorer" in config:
        raise UserError(f"{row}: {name} is a reference row, which has no weights to export")
    try:
        checked(config, _Config, "config")
        checked(result["training"], list[_Report], "training")
        checked(result["fitted"].get("smoothing window", 1), int, "fitted.smoothing window")
    except ValueError as error:
        raise UserError(f"{row / 'result.json'} cannot be exported ({error}); run the recipe again") from error
    seed = result["seeds"][0] if seed is None else seed
    if seed not in result["seeds"]:
        raise UserError(f"{name} was not run with seed {seed}; its seeds: {', '.join(map(str, result['seeds']))}")
    crops: Any = DATASETS.get(config["dataset"])
    training = find_training(result, seed, row.resolve().parents[2])
    for file in training.glob("*.safetensors"):
        check_file(file, REPORT, f"delete {row} and run the recipe again")
    network = _network(result, training)
    smoothing = config["smoothing"]
    if smoothing is not None and smoothing["window"] is None:
        smoothing = {**smoothing, "window": result["fitted"]["smoothing window"]}
    threshold = _threshold(row, seed, 1 / crops.rate)
    licence = network.backbone.weights_info.licence
    if crops.licence is None:
        licence = f"{licence} (backbone); trained on {config['dataset']}, whose licence applies too"
    model = Model(
        name=folder.resolve().name,
        card=_card(result, seed, folder.resolve().name, threshold),
        network=network,
        views=tuple(config["views"]["test"]),
        rate=crops.rate,
        margin=four_sides(crops.margin),
        square=crops.square,
        smoothing=smoothing,
        rendered_only=_rendered(result),
        threshold=threshold,
        cost=COST,
    )
    origin = f"trained by row {name}, seed {seed}, epoch {_report(result, seed)['best_epoch']}"
    return write_folder(folder, model, config["backbone"], config["head"], origin=origin, licence=licence)


def _threshold(row: Path, seed: int, frame_time: float) -> float:
    """The threshold with the best F1 of looking frames on validation, with the decoder's cost of changes."""
    found = read_predictions(row, "val")
    if seed not in found.scores:
        raise UserError(f"{found.path} has no scores of seed {seed}; delete {row} and run the recipe again")
    frames = found.frames
    starts = ~frames.duplicated(["clip", "track"]).to_numpy() | (np.diff(frames["frame"], prepend=0) * frame_time > GAP)
    looks = looks_at(STEPS, found.scores[seed], starts, frame_time, COST)
    clusters = clusters_in(found.result, "val", frames["clip"].to_numpy())
    return best_threshold(looks, frames["label"].to_numpy(), clusters)


def _rendered(result: Result) -> bool:
    return result["dataset"]["note"] == "synthetic data"


def _network(result: Result, training: Path) -> LookingAtMeModel:
    config = result["config"]["backbone"]
    if not config.get("frozen", True):
        return read_model(training / "model.safetensors")
    with nothing_fetched():
        backbone: Backbone = BACKBONES.build(config)
    if backbone.fingerprint() != result["backbone"].get("fingerprint"):
        raise UserError(
            f"backbone {config['type']} differs from the one {result['name']} was trained on (other weights, or "
            "another version of its code); run the row again"
        )
    return LookingAtMeModel(backbone, read_head(training / "head.safetensors")[0]).eval()


def _report(result: Result, seed: int) -> dict[str, Any]:
    return result["training"][result["seeds"].index(seed)]


def _card(result: Result, seed: int, name: str, threshold: float) -> Card:
    """The model's card. Every number in it comes from the record."""
    config, backbone, seeds = result["config"], result["backbone"], result["seeds"]
    report, data = _report(result, seed), result["dataset"]
    kind, head, train = config["backbone"]["type"], config["head"], config["training"]
    title = {"synthlam": "SynthLAM", "ego4d": "Ego4D"}.get(data["name"], data["name"])
    views = " and the mirrored" if "flipped" in config["views"]["test"] else ""
    stands_in = backbone["stands_in_for"]
    description = (
        f"{config['method']} (lamzoo recipe {config['recipe']}): is this person looking at the camera wearer? "
        f"Backbone {kind} ({backbone['parameters']:,} parameters"
        + (f", standing in for {stands_in}" if stands_in else "")
        + f") on each face crop, head {head['type']} ({result['head']['parameters']:,} parameters) over "
        f"{2 * config['windows']['radius'] + 1} frames, scoring the middle one"
        + (f"; the probabilities of the original{views} crops are averaged." if views else ".")
    )
    split = data["splits"]["train"]
    training = (
        f"{title} ({data['note']}), split train: {split['clips']} clips, {split['crops']:,} crops, "
        f"{report['windows']:,} windows over all views; Adam at {train['lr']:g}, batches of {train['batch_size']}, "
        f"{train['epochs']} epochs; the epoch with the best validation mAP was kept (epoch {report['best_epoch']}). "
        f"Seed {seed}. The backbone was "
        + ("trained with the head." if not config["backbone"].get("frozen", True) else "frozen.")
        + f" Frames with a score of {threshold:g} or more count as looking: the threshold with the best F1 on "
        f"validation, averaged over resampled clips. A change between looking and not costs {COST:.2f} "
        "(log odds x seconds)."
    )
    limits = []
    if _rendered(result):
        limits.append("It was trained on rendered faces only and has not been tested on real ones.")
    if stands_in:
        limits.append(f"{kind} stands in for {stands_in}: the figures are not those of the published model.")
    if backbone["weights"]["random_init"] and config["backbone"].get("frozen", True):
        limits.append("The backbone's weights are random.")
    if config["limit"] is not None:
        limits.append(f"It was trained on at most {config['limit']} windows per split, as a trial.")
    if len(seeds) > 1:
        limits.append(f"It is one of {len(seeds)} seeds; their mean describes the method better than its own figure.")
    limits.append("Scores are not calibrated on other data, and are no basis for judging a person.")
    return Card(
        name=name,
        title=f"{config['method']} on {title}, {kind}, seed {seed}",
        description=description,
        backbone=config["backbone"],
        head=head,
        training=training,
        limits=tuple(limits),
        weights=(),
        figures=_figures(result, seed, title),
    )


def _figures(result: Result, seed: int, dataset: str) -> tuple[Figure, ...]:
    place, count = result["seeds"].index(seed), len(result["seeds"])
    source = f"result.json of row {result['name']}"
    figures = []
    for split, found in result["splits"].items():
        if split == "train":
            continue
        for metric, value in found["metrics"].items():
            own, mean = value["per_seed"][place], value["mean"]
            if own is not None:
                figures.append(
                    Figure(f"{metric}, %", round(100 * own, 2), f"{dataset} {split}", f"{source}, seed {seed}")
                )
            if mean is not None and count > 1:
                figures.append(
                    Figure(f"{metric}, %, mean of {count} seeds", round(100 * mean, 2), f"{dataset} {split}", source)
                )
    return tuple(figures)
