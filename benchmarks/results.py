"""What a run leaves behind: `result.json` and its schema, and where its code, machine and numbers came from."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from typing_extensions import NotRequired  # typing has it from Python 3.11 on

from benchmarks import schema
from registry import UserError
from zoo.files import write_json
from zoo.inputs import read_json
from zoo.sums import check_file

SCHEMA = 1
BINS = 15  # of the reliability diagram; Guo et al. 2017

# The folder of the code, not the one the command was typed in.
HOME = Path(__file__).resolve().parent.parent

_PACKAGES = ("torch", "timm", "transformers", "mmengine", "numpy", "pandas", "scikit-learn", "safetensors", "pillow")


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


class Weights(TypedDict):
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
    weights: Weights


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
    """Clip -> mAP of all other clips, one a seed: what comparing rows takes. Older records lack it."""


class Calibration(TypedDict):
    """How far scores are from shares: of frames scored 0.7, 7 of 10 should be looking."""

    ece: float
    """Expected calibration error (see `benchmarks.diagnosis.calibration_error`), mean over the seeds."""
    ece_std: float
    """Sample standard deviation over the seeds; 0 for one seed."""
    log_loss: float
    """Mean negative log likelihood of the labels in nats, of scores cut off 1e-6 from 0 and 1; mean over the seeds."""


class Reliability(TypedDict):
    """A reliability diagram: 15 bins of equal width from score 0 to 1, the scores of all seeds together."""

    count: list[int]
    score: list[float | None]
    """Mean of the bin's scores; None where there are none."""
    looking: list[float | None]
    """Share of them whose frame is labelled looking."""


class Groups(TypedDict):
    """mAP by something known of the key frames; one entry a group in every list but `edges`."""

    edges: list[float]
    """Between the groups, ascending; a value on an edge belongs above it. Key frames of unknown value come last."""
    groups: list[str]
    """What they are called: `below 31`, `31 to 41`, `49.2 or more`, `unknown`."""
    windows: list[int]
    positives: list[int]
    clips: list[int]
    mAP: list[float | None]
    """Mean over the seeds; None where a group has one class only."""
    low: list[float | None]
    """Lower end of its 95 % interval, by bootstrap over clips and seeds; None where there is none."""
    high: list[float | None]


class SplitDiagnosis(TypedDict):
    """Of one labelled split."""

    calibration: dict[str, Calibration]
    """Of the row's own scores (`raw`), and of those after `temperature` and `platt`."""
    reliability: dict[str, Reliability]
    """Of `raw` and `platt`."""
    groups: dict[str, Groups]
    """By `face size` (shorter side of the box, pixels), `absent frames` (of the window), `sharpness` (variance of the
    Laplacian), `head yaw` (absolute, degrees); what is known of no frame is left out."""


class Diagnosis(TypedDict):
    """Where a row is right, and whether its scores can be taken at their word; see docs/diagnosis.md."""

    temperature: list[float] | None
    """Fitted on validation, one a seed; None without validation frames of both classes."""
    platt: list[list[float]] | None
    """Likewise, slope and bias of the logits."""
    splits: dict[str, SplitDiagnosis]
    """The labelled splits but train. No score, metric or rank of the row rests on anything in here."""


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
    """What was fitted on validation after training: `smoothing window`; `weights`, member -> one a seed."""
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


def environment(device: str) -> dict[str, Any]:
    """Versions and hardware, for the record. Never raises."""
    import torch

    on_gpu = device.startswith("cuda")
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores(),
        "device": torch.cuda.get_device_name(device) if on_gpu else device,
        "code": code_version(),
    }


def deterministic(device: str) -> Deterministic:
    """What of a row comes to the same bytes when it is run again, on this machine and with as many threads.

    On a CPU all of it does. On a GPU a batch has as many images as were fastest when tried, and features depend on that
    number. The order in which the kernels of cuDNN and cuBLAS add up is theirs, unless torch was told to use
    deterministic ones alone.

    Returns:
        `features`, `training`, `scores`: whether that is promised. On CUDA also `settings`: what torch was told.
    """
    import torch

    if device == "cpu":
        return {"features": True, "training": True, "scores": True}
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    promised: Deterministic = {"features": False, "training": strict, "scores": strict}
    if device.startswith("cuda"):
        promised["settings"] = {
            "deterministic algorithms": strict,
            "cudnn.deterministic": torch.backends.cudnn.deterministic,
            "cudnn.benchmark": torch.backends.cudnn.benchmark,
            "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        }
    return promised


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def code_version() -> dict[str, Any]:
    """Commit of the code's own folder and whether tracked files differ from it; None where there is no git."""
    commit = _git("rev-parse", "HEAD")
    changed = None if commit is None else bool(_git("status", "--porcelain", "--untracked-files=no"))
    return {"commit": commit, "dirty": changed}


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
        schema.check(result, Result)
        for name, kind in _SECTIONS.items():
            schema.check(result[name], kind, name)
        for part in parts_of(result["backbone"]):
            schema.check(part, BackbonePart, "backbone")
        for part in parts_of(result["head"]):
            schema.check(part, Part, "head")
        for split, figures in result["splits"].items():
            schema.check(figures["metrics"], Metrics, f"splits.{split}.metrics")
            schema.check(figures["confusion"], Confusion, f"splits.{split}.confusion")
        _check_lengths(result)
    except ValueError as error:
        raise UserError(f"{path} is no result ({error}); delete it and run the recipe again") from error
    return result


def _check_lengths(result: Result) -> None:
    """Check that whatever comes one a seed, a bin or a group comes so often, and that splits are of the data set."""
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


def difference(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> str | None:
    """The first key in which two nested settings differ, with both values, or None."""
    for key in dict.fromkeys([*old, *new]):
        where = f"{path}.{key}" if path else key
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found = difference(a, b, where)
            if found:
                return found
        elif a != b:
            return f"{where}: {a} there, {b} now"
    return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=HOME, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
