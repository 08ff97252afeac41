"""`result.json`, the record of a row: its schema, and how it is written, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from typing_extensions import NotRequired  # typing has it from Python 3.11 on

from benchmarks.config.reference import BOUNDS, Bound, Scorer
from benchmarks.evaluation.diagnosis import BINS, Diagnosis
from registry import UserError
from zoo.files.atomic import write_json
from zoo.files.checksums import check_file
from zoo.files.untrusted import checked, read_json

SCHEMA = 1


# The sections declare only the keys that are read again.


class ConfigSection(TypedDict):
    """Section `config`."""

    recipe: str
    version: int
    method: str
    published: str | None
    dataset: str
    limit: int | None
    changes: list[str]
    init: NotRequired[str | None]
    checkpoint: NotRequired[str | None]
    scorer: NotRequired[Scorer]


class DatasetSplit(TypedDict):
    """A split in section `dataset`."""

    rows: int
    crops: int
    clips: int
    sha256: str


class DatasetSection(TypedDict):
    """Section `dataset`."""

    name: str
    note: str
    checksum: str | None
    splits: dict[str, DatasetSplit]


class WeightsSection(TypedDict):
    """Section `backbone.weights`."""

    name: NotRequired[str]
    origin: str
    licence: str
    sha256: str | None
    random_init: bool


class InitialWeights(TypedDict):
    """Section `head.initialised_from`."""

    kind: str | None


class PartSection(TypedDict):
    """Section `backbone` or `head`; an ensemble's `of` has the sections of its members, a reference row's is empty."""

    type: str
    parameters: int
    initialised_from: NotRequired[InitialWeights | None]
    of: NotRequired[list[dict[str, Any]]]


class BackboneSection(PartSection):
    """Section `backbone` of a recipe."""

    stands_in_for: str | None
    weights: WeightsSection


class TrainingStart(TypedDict):
    """Section `training[].initial`."""

    sha256: str


class TrainingSection(TypedDict):
    """An entry of section `training`."""

    initial: NotRequired[TrainingStart]


class SecondsSection(TypedDict):
    """Section `seconds`."""

    features: float
    training: float


class CodeVersion(TypedDict):
    """Section `environment.code`."""

    commit: str | None
    dirty: bool | None


class DeterministicSection(TypedDict):
    """Section `environment.deterministic`: which results are byte-identical when run again; see `deterministic`."""

    features: bool
    training: bool
    scores: bool
    settings: NotRequired[dict[str, Any]]


class EnvironmentSection(TypedDict):
    """Section `environment`."""

    python: str
    packages: dict[str, str | None]
    platform: str
    processor: str
    cores: int
    device: str
    code: CodeVersion
    deterministic: NotRequired[DeterministicSection]


class Metric(TypedDict):
    """One metric over the seeds, as a fraction."""

    mean: float | None
    """Mean over the seeds; None if the metric is undefined, because the split has only one class."""
    std: float | None
    """Sample standard deviation over the seeds; 0 for one seed."""
    interval: list[float] | None
    """95 % interval of the mean, by bootstrap over clips and seeds; None if it was not computed."""
    per_seed: list[float | None]
    """One figure per seed, in the order of `seeds`."""


# The metrics of a split.
Metrics = TypedDict("Metrics", {"mAP": Metric, "AP.looking": Metric, "AP.not_looking": Metric, "accuracy": Metric})


class Confusion(TypedDict):
    """The confusion matrix of a split at threshold 0.5, averaged over the seeds."""

    true_positives: float
    false_positives: float
    true_negatives: float
    false_negatives: float


class Split(TypedDict):
    """The figures of one labelled split."""

    windows: int
    """Number of key frames."""
    positives: int
    """Number of key frames labelled looking."""
    clips: int
    stride: int
    """Frames from one key frame of a track to the next."""
    metrics: dict[str, Metric]
    """`mAP`, `AP.looking`, `AP.not_looking`, `accuracy` of the row's final scores, after averaging and smoothing."""
    confusion: dict[str, float]
    """As in `Confusion`."""
    views: dict[str, Metric]
    """mAP of each view before averaging and smoothing; in an ensemble, of each member."""
    without_clip: NotRequired[dict[str, list[float | None]]]
    """Clip -> mAP without this clip, one per seed; used to compare rows. Older records lack it. Without this video if
    there is `videos`."""
    videos: NotRequired[dict[str, str]]
    """Clip -> video. Intervals and comparisons resample whole videos. Absent if no video has two clips, or if the
    annotations do not say; then they resample clips."""


class Result(TypedDict):
    """The content of `result.json`."""

    schema: int
    """`SCHEMA`."""
    name: str
    """Recipe and changes, for example `internlstm_flip_tta+head=gru`."""
    config: dict[str, Any]
    """The resolved recipe, with all values that determine the figures. A reference row has `scorer`."""
    settings: dict[str, Any]
    """The identity of the row: config, data and code versions. Another run with the same identity reuses the row."""
    dataset: dict[str, Any]
    """`name`, `note`, `checksum`, and per split `rows`, `crops`, `labelled`, `positives`, `clips`, `sha256`.

    And `absent`, the share of frames without a crop, if that is above 20 %.
    """
    backbone: dict[str, Any]
    """`type`, `stands_in_for`, `feature_dim`, `parameters`, `fingerprint`, `weights` (name, origin, sha256, ...).

    For a trainable backbone, fingerprint and weights are the initial ones. An ensemble has `type`, `parameters` and
    `of`, the sections of its members' backbones, each once; so has a reference row, with an empty `of`.
    """
    head: dict[str, Any]
    """`type`, `parameters`, and `initialised_from`: `file`, `kind` and `tensors` of imported weights, or None.

    An ensemble has `type`, `parameters` and `of`, the sections of its members; a reference row's `of` is empty.
    """
    seeds: list[int]
    """A reference row, of which nothing is drawn, has the one entry 0."""
    training: list[dict[str, Any]]
    """Per seed `seed`, `best_epoch`, `best_mAP` (validation, a fraction), `seconds`, `history`. Empty if the row itself
    trains nothing: in ensembles and reference rows.

    With a trainable backbone also `initial`, with the `sha256` of all initial weights.
    """
    trainings: NotRequired[list[list[str]]]
    """In an ensemble, per seed: names of its members' trainings and initial weights, see
    `benchmarks.rows.trainings`."""
    fitted: dict[str, Any]
    """Values fitted on validation after training: `smoothing window`; `weights`, member -> one per seed."""
    counts: dict[str, int]
    """Windows per split, training windows over all views, skipped damaged crops."""
    splits: dict[str, Split]
    """Labelled splits by name."""
    diagnosis: Diagnosis | None
    """None in older records."""
    seconds: dict[str, float]
    """Duration of the steps: `features` (all rows and views), `training` and `scoring` (mean per seed).

    With a trainable backbone, `features` is the time to read and decode the crops.
    """
    environment: dict[str, Any]
    """Versions, platform, processor, device, git commit of the code and whether it was changed.

    Also `deterministic`, which older records lack.
    """
    date: str
    """UTC, ISO 8601."""


_SECTIONS = {
    "config": ConfigSection,
    "dataset": DatasetSection,
    "backbone": PartSection,
    "head": PartSection,
    "seconds": SecondsSection,
    "environment": EnvironmentSection,
}


def write_result(folder: Path, result: Result) -> None:
    """Write `result.json` atomically."""
    write_json(folder / "result.json", result)


def read_result(path: Path) -> Result:
    """Read a `result.json` or a committed record.

    Raises:
        UserError: the file cannot be read, is damaged, or has another schema.
    """
    check_file(path, path.name, "run the recipe again to rebuild it")
    try:
        result = read_json(path, "the record of a row")
    except UserError as error:
        raise UserError(f"{path} is not a valid record ({error}); delete it and run the recipe again") from error
    if isinstance(result, dict) and result.get("schema", SCHEMA) != SCHEMA:
        raise UserError(f"{path} has schema {result['schema']!r}, this program reads {SCHEMA}; run the recipe again")
    try:
        if isinstance(result, dict):
            result.setdefault("fitted", {})  # older records lack both
            result.setdefault("diagnosis", None)
        checked(result, Result)
        for name, kind in _SECTIONS.items():
            checked(result[name], kind, name)
        for part in parts_of(result["backbone"]):
            checked(part, BackboneSection, "backbone")
        for part in parts_of(result["head"]):
            checked(part, PartSection, "head")
        for split, figures in result["splits"].items():
            checked(figures["metrics"], Metrics, f"splits.{split}.metrics")
            checked(figures["confusion"], Confusion, f"splits.{split}.confusion")
        for report in result["training"]:
            checked(report, TrainingSection, "training")
        _check_lengths(result)
    except ValueError as error:
        raise UserError(f"{path} is not a valid record ({error}); delete it and run the recipe again") from error
    return result


def _check_lengths(result: Result) -> None:
    """Check the lengths of lists with one entry per seed, bin or group, and that all splits belong to the data set."""
    seeds, found = len(result["seeds"]), result["diagnosis"]
    trained = "of" not in result["backbone"]  # ensembles and reference rows train nothing themselves
    lengths: list[tuple[str, int, int]] = [("training", len(result["training"]), seeds if trained else 0)]
    lengths += [("trainings", len(result["trainings"]), seeds)] if "trainings" in result else []
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
            raise ValueError(f"{what} has {length} entries, not {wanted}")


def shown_split(result: Result) -> str | None:
    """The split that is shown in tables: test if labelled, else val; None if neither is."""
    return next((split for split in ("test", "val") if split in result["splits"]), None)


def bound_of(result: Result) -> Bound | None:
    """Whether a row is a floor or a ceiling; None if it is neither, but trained."""
    scorer: Scorer | None = result["config"].get("scorer")
    return None if scorer is None else BOUNDS[scorer]


def parts_of(section: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A record's section `backbone` or `head` as a list of one, or the sections of an ensemble's members."""
    parts: list[Mapping[str, Any]] = section.get("of", [section])
    return parts
