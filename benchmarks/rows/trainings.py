"""Which trainings the seeds of a row come from, as its record shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.evaluation.compare import Scored, scored
from benchmarks.rows.identity import short_hash
from benchmarks.rows.schema import Result, bound_of

# Starts of names: of a training, of the initial weights of one, and of a row's figures, which identify it as a member
# of an ensemble.
TRAINING, START, FIGURES = "training ", "start ", "figures "


def trainings_of(result: Result) -> list[frozenset[str]]:
    """Name the trainings and initial weights behind each seed of a row.

    A training is recognised by its report: seed, losses and validation mAP per epoch. Two rows that were trained apart
    differ there, even with equal settings, because rounding differs between machines. Older records of ensembles lack
    the names of their members' trainings; their members are recognised by their figures.

    Args:
        result: a record.

    Returns:
        One set per seed, in the order of the record's `seeds`. Seeds of two records whose sets have a name in common
        are not independent.
    """
    reports = {report.get("seed"): report for report in result["training"]}
    listed = result.get("trainings") or [[] for _ in result["seeds"]]
    return [
        frozenset([*_of_report(seed, reports.get(seed)), *names, *_figures(result, number)])
        for number, (seed, names) in enumerate(zip(result["seeds"], listed, strict=True))
    ]


def ensemble_trainings(members: Iterable[Result], seeds: Sequence[int]) -> list[list[str]]:
    """Record section `trainings` of an ensemble: the trainings and initial weights of its members, per seed."""
    found: list[set[str]] = [set() for _ in seeds]
    for result in members:
        names = dict(zip(result["seeds"], trainings_of(result), strict=True))
        for own, seed in zip(found, seeds, strict=True):
            own |= {name for name in names[seed] if not name.startswith(FIGURES)}
    return [sorted(own) for own in found]


def shared_in_words(a: Iterable[frozenset[str]], b: Iterable[frozenset[str]]) -> str:
    """What the seeds of two rows share: `same trainings`, `same initial weights` or `no training in common`."""
    ours, theirs = (frozenset[str]().union(*names) for names in (a, b))
    shared = ours & theirs
    if not shared:
        return "no training in common"
    return "same initial weights" if all(name.startswith(START) for name in shared) else "same trainings"


def _of_report(seed: int, report: Mapping[str, Any] | None) -> list[str]:
    if report is None or "history" not in report:
        return []
    own = {key: report.get(key) for key in ("seed", "best_epoch", "best_mAP", "history")}
    start = report.get("initial")
    return [f"{TRAINING}{short_hash(own)}", *([f"{START}{seed} {start['sha256']}"] if start else [])]


def _figures(result: Result, number: int) -> list[str]:
    """Names of a seed's figures: a row's own, and those of an ensemble's members."""
    names = []
    for split, figures in result["splits"].items():
        members = figures["views"] if "of" in result["head"] else {result["name"]: figures["metrics"]["mAP"]}
        for member, metric in members.items():
            value = metric["per_seed"][number]
            if value is not None:
                place = f"{split} {figures['windows']} {result['seeds'][number]}"
                names.append(f"{FIGURES}{member} {place} {value!r}")
    return names


def scored_of(result: Result, split: str) -> Scored | None:
    """The figures of a row in one split, for comparisons; None if it is not labelled or the record is too old."""
    figures = result["splits"].get(split)
    if figures is None or not figures.get("without_clip"):
        return None
    per_seed = [value for value in figures["metrics"]["mAP"]["per_seed"] if value is not None]
    if len(per_seed) < len(result["seeds"]):  # one class only
        return None
    return scored(
        result["seeds"], per_seed, figures["without_clip"], trainings_of(result), bound_of(result) is not None
    )


def frames_of(result: Result, split: str) -> tuple[Any, ...]:
    """What two records must share to have figures on the same key frames."""
    dataset, figures = result["dataset"], result["splits"][split]
    clips = tuple(figures.get("without_clip", ()))
    return dataset["name"], split, dataset["splits"][split]["sha256"], figures["stride"], figures["windows"], clips


def clusters_in(result: Result, split: str, clips: np.ndarray) -> np.ndarray:
    """What comparisons of a row resample: the video of each of some clips, or the clip where no video is known."""
    figures = result["splits"].get(split)
    videos = {} if figures is None else figures.get("videos", {})
    return np.array([videos.get(clip, clip) for clip in clips.tolist()], dtype=str)


def cluster_of(result: Result, split: str) -> str:
    """What intervals and comparisons of a split resample: `clip`, or `video` where a video has several clips."""
    figures = result["splits"].get(split)
    return "video" if figures is not None and figures.get("videos") else "clip"
