"""What a run leaves behind: `result.json` and its schema, and where its code, machine and numbers came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from typing_extensions import NotRequired  # typing has it from Python 3.11 on

from benchmarks.evaluation.diagnosis import BINS, Diagnosis
from registry import UserError
from zoo.files.atomic import write_json
from zoo.files.checksums import check_file
from zoo.files.untrusted import checked, read_json

SCHEMA = 1


# What of a record's sections is read again; more is in them.


class Config(TypedDict):
    """Of `config`."""

    recipe: str
    version: int
    method: str
    published: str | None
    dataset: str
    limit: int | None
    changes: list[str]


class SplitData(TypedDict):
    """Of a split in `dataset`."""

    rows: int
    crops: int
    clips: int
    sha256: str


class Data(TypedDict):
    """Of `dataset`."""

    name: str
    note: str
    checksum: str | None
    splits: dict[str, SplitData]


class WeightsSection(TypedDict):
    """Of `backbone.weights`."""

    origin: str
    licence: str
    sha256: str | None
    random_init: bool


class Start(TypedDict):
    """Of `head.initialised_from`."""

    kind: str | None


class Part(TypedDict):
    """Of `backbone` or `head`, or of each of an ensemble's in `of`."""

    type: str
    parameters: int
    initialised_from: NotRequired[Start | None]
    of: NotRequired[list[dict[str, Any]]]


class BackbonePart(Part):
    """Of `backbone`, likewise."""

    stands_in_for: str | None
    weights: WeightsSection


class Seconds(TypedDict):
    """Of `seconds`."""

    features: float
    training: float


class Code(TypedDict):
    """Of `environment.code`."""

    commit: str | None
    dirty: bool | None


class Deterministic(TypedDict):
    """Of `environment.deterministic`: what comes to the same bytes when it is run again; see `deterministic`."""

    features: bool
    training: bool
    scores: bool
    settings: NotRequired[dict[str, Any]]


class Environment(TypedDict):
    """Of `environment`."""

    python: str
    packages: dict[str, str | None]
    platform: str
    processor: str
    cores: int
    device: str
    code: Code
    deterministic: NotRequired[Deterministic]


class Metric(TypedDict):
    """One metric over the seeds; a fraction, never percent."""

    mean: float | None
    """Mean over the seeds; None where a split has one class only and the metric is undefined."""
    std: float | None
    """Sample standard deviation over the seeds; 0 for one seed."""
    interval: list[float] | None
    """95 % interval of the mean, by bootstrap over clips and seeds; None where none was computed."""
    per_seed: list[float | None]
    """One figure a seed, in the order of `seeds`."""


# Of a split's `metrics`.
Metrics = TypedDict("Metrics", {"mAP": Metric, "AP.looking": Metric, "AP.not_looking": Metric, "accuracy": Metric})


class Confusion(TypedDict):
    """Of a split's `confusion`."""

    true_positives: float
    false_positives: float
    true_negatives: float
    false_negatives: float


class Split(TypedDict):
    """The figures of one labelled split."""

    windows: int
    """Key frames scored."""
    positives: int
    """Key frames labelled looking."""
    clips: int
    stride: int
    """Every how many frames of a track a key frame lies."""
    metrics: dict[str, Metric]
    """`mAP`, `AP.looking`, `AP.not_looking`, `accuracy`, of the row's own scores: views averaged, smoothed if asked."""
    confusion: dict[str, float]
    """`true_positives`, `false_positives`, `true_negatives`, `false_negatives` at 0.5, mean over the seeds."""
    views: dict[str, Metric]
    """mAP of each view alone, before averaging and smoothing; of an ensemble, of each member's own row."""
    without_clip: NotRequired[dict[str, list[float | None]]]
    """Clip -> mAP of all other clips, one per seed: what comparing rows takes. Older records lack it."""


class Result(TypedDict):
    """One row of the table, as `result.json` holds it."""

    schema: int
    """1."""
    name: str
    """Recipe and changes: `internlstm_flip_tta+head=gru`."""
    config: dict[str, Any]
    """The resolved recipe: every value that decided the numbers."""
    settings: dict[str, Any]
    """What a run must share with this one to be the same row: config, data, and versions of the code that computes."""
    dataset: dict[str, Any]
    """`name`, `note`, `checksum`, and for each split `rows`, `crops`, `labelled`, `positives`, `clips`, `sha256`."""
    backbone: dict[str, Any]
    """`type`, `stands_in_for`, `feature_dim`, `parameters`, `fingerprint`, `weights` (name, origin, sha256, ...).

    Of a backbone that trains, fingerprint and weights are those it starts from. Of an ensemble: `type`, `parameters`,
    and `of`, the sections of its members, each backbone once.
    """
    head: dict[str, Any]
    """`type`, `parameters`, and `initialised_from`: `file`, `kind` and `tensors` of imported weights, or None.

    Of an ensemble: `type`, `parameters`, and `of`, the sections of its members.
    """
    seeds: list[int]
    training: list[dict[str, Any]]
    """For each seed `seed`, `best_epoch`, `best_mAP` (validation, fraction), `seconds`, `history`.

    Where the backbone trains too, `initial` has the `sha256` of all weights as they were at the start.
    """
    fitted: dict[str, Any]
    """What was fitted on validation after training: `smoothing window`; `weights`, member -> one per seed."""
    counts: dict[str, int]
    """Windows of each split, training windows over all views, damaged crops left out."""
    splits: dict[str, Split]
    """By name, the labelled splits only."""
    diagnosis: Diagnosis | None
    """None in records from before there was one."""
    seconds: dict[str, float]
    """What each step took: `features` (of all rows and views), `training` and `scoring` (mean a seed).

    Where the backbone trains too, `features` is reading and decoding the crops.
    """
    environment: dict[str, Any]
    """Versions, platform, processor, device, git commit of the code and whether it was changed.

    And what comes to the same bytes when it is run again, `deterministic`; older records lack it.
    """
    date: str
    """UTC, ISO 8601."""


_SECTIONS = {
    "config": Config, "dataset": Data, "backbone": Part, "head": Part, "seconds": Seconds, "environment": Environment
}  # fmt: skip


def write_result(folder: Path, result: Result) -> None:
    """Write `result.json`, atomically."""
    write_json(folder / "result.json", result)


def read_result(path: Path) -> Result:
    """Read a `result.json` or a committed record.

    Raises:
        UserError: it cannot be read, is damaged, or is of another schema.
    """
    check_file(path, path.name, "run the recipe again, which makes it anew")
    try:
        result = read_json(path, "the record of a row")
    except UserError as error:
        raise UserError(f"{path} is no result ({error}); delete it and run the recipe again") from error
    if isinstance(result, dict) and result.get("schema", SCHEMA) != SCHEMA:
        raise UserError(f"{path} has schema {result['schema']!r}, this program reads {SCHEMA}; run the recipe again")
    try:
        if isinstance(result, dict):
            result.setdefault("fitted", {})  # records from before anything was
            result.setdefault("diagnosis", None)
        checked(result, Result)
        for name, kind in _SECTIONS.items():
            checked(result[name], kind, name)
        for part in parts_of(result["backbone"]):
            checked(part, BackbonePart, "backbone")
        for part in parts_of(result["head"]):
            checked(part, Part, "head")
        for split, figures in result["splits"].items():
            checked(figures["metrics"], Metrics, f"splits.{split}.metrics")
            checked(figures["confusion"], Confusion, f"splits.{split}.confusion")
        _check_lengths(result)
    except ValueError as error:
        raise UserError(f"{path} is no result ({error}); delete it and run the recipe again") from error
    return result


def _check_lengths(result: Result) -> None:
    """Check that lists with one entry per seed, bin or group have that length, and that splits are of the data set."""
    seeds, found = len(result["seeds"]), result["diagnosis"]
    ensemble = "of" in result["backbone"]  # which has no training of its own
    lengths: list[tuple[str, int, int]] = [("training", len(result["training"]), 0 if ensemble else seeds)]
    for split, figures in result["splits"].items():
        each = [*figures["metrics"].values(), *figures["views"].values()]
        lengths += [(f"splits.{split}: per_seed", len(metric["per_seed"]), seeds) for metric in each]
        without = figures.get("without_clip", {}).values()
        lengths += [(f"splits.{split}: without_clip", len(others), seeds) for others in without]
        intervals = (metric["interval"] for metric in each if metric["interval"] is not None)
        lengths += [(f"splits.{split}: interval", len(interval), 2) for interval in intervals]
        if split not in result["dataset"]["splits"]:
            raise ValueError(f"dataset.splits lacks {split}")
    if found is not None:
        for name, fitted in (("temperature", found["temperature"]), ("platt", found["platt"])):
            lengths += [] if fitted is None else [(f"diagnosis.{name}", len(fitted), seeds)]
        lengths += [("diagnosis.platt", len(pair), 2) for pair in found["platt"] or ()]
        for split, of_split in found["splits"].items():
            if split not in result["splits"]:
                raise ValueError(f"splits lacks {split}, which diagnosis has")
            if not of_split["calibration"].keys() >= of_split["reliability"].keys() >= {"raw"}:
                raise ValueError(f"diagnosis.{split} lacks the calibration or the diagram of raw scores")
            for diagram in of_split["reliability"].values():
                columns = (diagram["count"], diagram["score"], diagram["looking"])
                lengths += [("a reliability diagram", len(column), BINS) for column in columns]
            for groups in of_split["groups"].values():
                of_groups = (groups[key] for key in ("windows", "positives", "clips", "mAP", "low", "high"))
                lengths += [("a column of groups", len(column), len(groups["groups"])) for column in of_groups]
    for what, length, wanted in lengths:
        if length != wanted:
            raise ValueError(f"{what} has {length} entries, and has to have {wanted}")


def shown_split(result: Result) -> str | None:
    """The split whose figures are shown of a row: test where that is labelled, else val; None where neither is."""
    return next((split for split in ("test", "val") if split in result["splits"]), None)


def parts_of(section: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A record's section `backbone` or `head` as a list: itself, or those of an ensemble's members."""
    parts: list[Mapping[str, Any]] = section.get("of", [section])
    return parts
