"""Reads finished rows for the report: scores with their crops, curves, tracks, mistakes, provenance."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.data.frames import KEY
from benchmarks.evaluation.metrics import THRESHOLD, sorted_labels
from benchmarks.rows.predictions import read_predictions
from benchmarks.rows.schema import Result, parts_of, read_result, shown_split
from registry import UserError


@dataclass(frozen=True)
class ReportRow:
    """A finished row and its scores in one split.

    Attributes:
        result: its record.
        split: `test` if labelled, else `val`, as in the table.
        frames: the N labelled key frames by clip, track and frame, with label and image ("" if missing); none if there
            is only a record.
        scores: (S, N) P(looking) of S seeds.
    """

    result: Result
    split: str
    frames: pd.DataFrame
    scores: np.ndarray


class Track(NamedTuple):
    """A track chosen for its timeline.

    Attributes:
        rows: indices into `ReportRow.frames`.
        error: mean over both classes of |score - label|.
        best: True for one of the best tracks, False for one of the worst.
    """

    rows: np.ndarray
    error: float
    best: bool


class Mistakes(NamedTuple):
    """Frames on the wrong side of the threshold.

    Attributes:
        rows: indices into `ReportRow.frames`: the most confident mistake of each track shown, most confident first.
        frames: number of all mistakes.
        tracks: number of tracks with mistakes.
    """

    rows: np.ndarray
    frames: int
    tracks: int


def read_row(folder: Path, name: str, frames_of: Callable[[str], pd.DataFrame]) -> ReportRow:
    """Read a row's folder.

    Args:
        folder: with `result.json` and `predictions.csv`.
        name: of the report's dataset.
        frames_of: split -> frame table.

    Raises:
        UserError: a file is missing or damaged, the row belongs to another dataset or other frames, or neither test nor
            val is labelled.
    """
    result, split = _read_record(folder / "result.json", folder, name)
    predictions = read_predictions(folder, split)
    images = frames_of(split)[[*KEY, "image"]]
    frames = predictions.frames.merge(images, on=KEY, how="left", validate="one_to_one")
    if frames["image"].isna().any():
        raise UserError(
            f"{frames['image'].isna().sum()} of {len(frames)} key frames in {predictions.path} are not in the {split} "
            f"split of {name} here; give the folder of the data it was run on: --root DIR"
        )
    return ReportRow(result, split, frames, np.stack(list(predictions.scores.values())))


def read_record(path: Path, name: str) -> ReportRow:
    """Read a committed record as a row without scores; arguments and errors as in `read_row`."""
    result, split = _read_record(path, path, name)
    frames = pd.DataFrame(columns=[*KEY, "label", "image"])
    return ReportRow(result, split, frames, np.empty((len(result["seeds"]), 0)))


def _read_record(path: Path, where: Path, name: str) -> tuple[Result, str]:
    """Read a record; returns it with the split to show."""
    result = read_result(path)
    if result["dataset"]["name"] != name:
        other = result["dataset"]["name"]
        raise UserError(f"{where} is a row of dataset {other}, but this report is on {name}; add --dataset {other}")
    split = shown_split(result)
    if split is None:
        raise UserError(f"{where} has no labelled split except train; name the rows to report, without this one")
    return result, split


def precision_curves(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Compute the interpolated precision of both classes, averaged over the seeds.

    As in VOC since 2010 (see `benchmarks.evaluation.metrics`): at each recall, the highest precision at this or any
    higher recall. The mean of a curve is therefore the row's average precision, averaged over the seeds.

    Args:
        scores: (S, N) P(looking) of S seeds.
        labels: (N,) 0 or 1.

    Returns:
        For P looking and Q other frames, the precision (P,) at recall 1 / P, ..., 1, and (Q,) at 1 / Q, ..., 1; None if
        a class is missing.
    """
    looking = labels == 1
    if looking.all() or not looking.any():
        return None
    curves = []
    for of_seed in scores:
        best_first, worst_first = sorted_labels(of_seed, looking)
        curves.append([_interpolated(best_first), _interpolated(~worst_first)])
    own, other = (np.mean(of_class, axis=0) for of_class in zip(*curves, strict=True))
    return own, other


def _interpolated(hits: np.ndarray) -> np.ndarray:
    rank = np.flatnonzero(hits) + 1
    precision = np.arange(1, len(rank) + 1) / rank
    return np.maximum.accumulate(precision[::-1])[::-1]


def choose_tracks(row: ReportRow, each: int) -> list[Track]:
    """Choose the worst and the best tracks with frames of both classes.

    The error of a track is |score - label|, averaged over seeds and frames of each class, then over both classes.

    Args:
        row: of the report.
        each: number of worst tracks, and of best tracks.

    Returns:
        The worst tracks, worst first, then the best, best first; no track twice.
    """
    labels = row.frames["label"].to_numpy()
    error = np.abs(row.scores - labels).mean(axis=0)
    found = []
    for rows in row.frames.groupby(["clip", "track"], sort=True).indices.values():
        looking = labels[rows] == 1
        if looking.any() and not looking.all():
            found.append((float(error[rows][looking].mean() + error[rows][~looking].mean()) / 2, np.asarray(rows)))
    found.sort(key=lambda track: -track[0])
    worst, rest = found[:each], found[each:]
    best = rest[::-1][:each]
    return [*(Track(rows, own, False) for own, rows in worst), *(Track(rows, own, True) for own, rows in best)]


def mistakes(row: ReportRow, label: int, most: int) -> Mistakes:
    """Find the frames of a label that the mean score over the seeds gets wrong, most confident first.

    Args:
        row: of the report.
        label: 0 for false alarms, 1 for missed looks.
        most: maximum number of tracks to show.
    """
    mean = row.scores.mean(axis=0)
    wrong = np.flatnonzero((row.frames["label"].to_numpy() == label) & ((mean >= THRESHOLD) == (label == 0)))
    ranked = wrong[np.argsort(mean[wrong] if label else -mean[wrong], kind="stable")]
    first = ~row.frames.iloc[ranked].duplicated(["clip", "track"]).to_numpy()
    return Mistakes(ranked[first][:most], len(wrong), int(first.sum()))


def provenance(row: ReportRow) -> dict[str, str]:
    """The origin of a row's figures: name -> text."""
    result = row.result
    where, code = result["environment"], result["environment"]["code"]
    backbones, heads, data = parts_of(result["backbone"]), parts_of(result["head"]), result["dataset"]
    weights = [part["weights"] for part in backbones]
    packages = (f"{name} {version}" for name, version in where["packages"].items() if version)
    facts = {
        "recipe": f"{result['config']['recipe']}, version {result['config']['version']}",
        "changes": ", ".join(result["config"]["changes"]),
        "run": result["date"],
        "code": (code["commit"] or "no git") + (", with uncommitted changes" if code["dirty"] else ""),
        "seeds": ", ".join(map(str, result["seeds"])),
        "backbone": ", ".join(f"{part['type']}, {part['parameters']:,} parameters" for part in backbones),
        "weights": "; ".join(
            ", ".join(str(part[key]) for key in ("origin", "licence") if part.get(key))
            + (", random init" if part["random_init"] else "")
            for part in weights
        ),
        "sha256 of the weights": ", ".join(part["sha256"] for part in weights if part.get("sha256")),
        "head": ", ".join(f"{part['type']}, {part['parameters']:,} parameters" for part in heads),
        "fitted on validation": json.dumps(result["fitted"], ensure_ascii=False) if result["fitted"] else "",
        "windows": ", ".join(f"{name.removesuffix(' windows')} {count:,}" for name, count in result["counts"].items()),
        "seconds": ", ".join(f"{name} {seconds:,.1f}" for name, seconds in result["seconds"].items()),
        "dataset": ", ".join(filter(None, [data["name"], data["note"]])),
        "sha256 of the dataset": data["checksum"] or "",
        **{f"sha256 of {split}": of_split["sha256"] for split, of_split in data["splits"].items()},
        "machine": f"{where['cores']} cores of {where['processor']}, {where['device']}, {where['platform']}",
        "reproducible to the byte": ", ".join(
            f"{step} {'yes' if promised else 'not guaranteed'}"
            for step, promised in where.get("deterministic", {}).items()
            if step != "settings"
        ),
        "versions": ", ".join([f"Python {where['python']}", *packages]),
    }
    return {name: fact for name, fact in facts.items() if fact}


def shared(facts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The facts that are the same in all rows."""
    return {name: fact for name, fact in facts[0].items() if all(other.get(name) == fact for other in facts)}
