"""Diagnosis of a row: calibration of its scores, and mAP by groups of frames.

Nothing here changes a score. Recalibrations are fitted on validation and reported beside the raw scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from benchmarks.evaluation.bootstrap import bootstrap_interval
from benchmarks.evaluation.calibration import LOGIT_CUT, fit_platt, fit_temperature, recalibrate
from benchmarks.evaluation.metrics import lam_map

if TYPE_CHECKING:
    import pandas as pd

# Resamples per group's interval. Its bounds vary by about a twelfth of its half width, and all groups take one second;
# the 1000 resamples of a row's own interval would take three.
REPEATS = 300

# Groups by absent frames per window: edges and names.
_ABSENT = (1.0, 3.0), ("none", "1 or 2", "3 or more")

BINS = 15  # of the reliability diagram; Guo et al. 2017


class Calibration(TypedDict):
    """Calibration of scores. If it is perfect, 7 of 10 frames with a score of 0.7 are labelled looking."""

    ece: float
    """Expected calibration error (see `benchmarks.evaluation.diagnosis.calibration_error`), mean over the seeds."""
    ece_std: float
    """Sample standard deviation over the seeds; 0 for one seed."""
    log_loss: float
    """Mean negative log likelihood of the labels in nats, mean over the seeds; scores are clipped to
    [1e-6, 1 - 1e-6]."""


class Reliability(TypedDict):
    """A reliability diagram: 15 bins of equal width from score 0 to 1, the scores of all seeds together."""

    count: list[int]
    score: list[float | None]
    """Mean score of each bin; None for an empty bin."""
    looking: list[float | None]
    """Share of each bin's frames that are labelled looking; None for an empty bin."""


class Groups(TypedDict):
    """mAP by a property of the key frames; every list but `edges` has one entry per group."""

    edges: list[float]
    """Boundaries between the groups, ascending; a value on an edge belongs to the group above. Key frames with an
    unknown value are the last group."""
    groups: list[str]
    """Names of the groups: `below 31`, `31 to 41`, `49.2 or more`, `unknown`."""
    windows: list[int]
    positives: list[int]
    clips: list[int]
    mAP: list[float | None]
    """Mean over the seeds; None for a group with one class only."""
    low: list[float | None]
    """Lower end of its 95 % interval, by bootstrap over clips and seeds; None without an interval."""
    high: list[float | None]


class SplitDiagnosis(TypedDict):
    """The diagnosis of one labelled split."""

    calibration: dict[str, Calibration]
    """Of the row's own scores (`raw`), and of the scores recalibrated by `temperature` and by `platt`."""
    reliability: dict[str, Reliability]
    """Of `raw` and `platt`."""
    groups: dict[str, Groups]
    """By `face size` (shorter side of the box, pixels), `absent frames` (of the window), `sharpness` (variance of the
    Laplacian), `head yaw` (absolute, degrees). A property that is unknown for all frames is left out."""


class Diagnosis(TypedDict):
    """Calibration of a row's scores, and mAP by groups of frames; see docs/diagnosis.md."""

    temperature: list[float] | None
    """One temperature per seed, fitted on validation; None if validation lacks a class."""
    platt: list[list[float]] | None
    """One pair per seed, slope and bias of the logits, fitted on validation; None as for `temperature`."""
    splits: dict[str, SplitDiagnosis]
    """All labelled splits except train. No score, metric or rank of the row depends on anything here."""


@dataclass(frozen=True)
class LabelledScores:
    """The scores of one split's labelled key frames, and what is known of these frames.

    Attributes:
        scores: (S, N) P(looking) of S seeds.
        labels: (N,) 0 or 1.
        frames: N rows of the frame table.
        windows: (N, T) row numbers of the windows' frames, -1 if absent.
        properties: measured property -> (N,) float64, NaN if unknown.
        videos: clip -> video, where a video has several clips.
    """

    scores: np.ndarray
    labels: np.ndarray
    frames: pd.DataFrame
    windows: np.ndarray
    properties: Mapping[str, np.ndarray]
    videos: Mapping[str, str] = field(default_factory=dict)

    @property
    def clips(self) -> np.ndarray:
        """The clip of each key frame, (N,)."""
        return self.frames["clip"].to_numpy()

    @property
    def clusters(self) -> np.ndarray:
        """What intervals resample, (N,): the video of each key frame, or its clip where no video is known."""
        names, number = np.unique(self.clips.astype(str), return_inverse=True)
        return np.array([self.videos.get(name, name) for name in names])[number]


def diagnose(splits: Mapping[str, LabelledScores]) -> Diagnosis:
    """Diagnose the scores of a row; `splits` are all labelled splits except train."""
    temperatures: list[float] | None = None
    lines: list[tuple[float, float]] | None = None
    val = splits.get("val")
    if val is not None and 0 < val.labels.sum() < len(val.labels):
        temperatures = [fit_temperature(of_seed, val.labels) for of_seed in val.scores]
        lines = [fit_platt(of_seed, val.labels) for of_seed in val.scores]
    found: dict[str, SplitDiagnosis] = {}
    for split, of_split in splits.items():
        scores, labels = of_split.scores, of_split.labels
        versions = {"raw": scores}
        if temperatures is not None and lines is not None:
            versions["temperature"] = np.stack(
                [recalibrate(s, 1 / t) for s, t in zip(scores, temperatures, strict=True)]
            )
            versions["platt"] = np.stack([recalibrate(s, *line) for s, line in zip(scores, lines, strict=True)])
        found[split] = {
            "calibration": {name: measure_calibration(version, labels) for name, version in versions.items()},
            "reliability": {
                name: measure_reliability(version, labels)
                for name, version in versions.items()
                if name != "temperature"
            },
            "groups": _all_groups(of_split),
        }
    return {
        "temperature": None if temperatures is None else [_rounded(temperature) for temperature in temperatures],
        "platt": None if lines is None else [[_rounded(slope), _rounded(bias)] for slope, bias in lines],
        "splits": found,
    }


def face_size(frames: pd.DataFrame) -> np.ndarray:
    """Shorter side of each row's box in pixels: (N,) float64, NaN without a box."""
    width, height = (frames[f"{axis}2"].to_numpy() - frames[f"{axis}1"].to_numpy() for axis in "xy")
    return np.minimum(width, height)


def measure_calibration(scores: np.ndarray, labels: np.ndarray) -> Calibration:
    """Measure the calibration of scores (S, N) of S seeds against labels (N,), 0 or 1."""
    from sklearn.metrics import log_loss  # half a second of import

    errors = [calibration_error(of_seed, labels) for of_seed in scores]
    clipped = np.clip(np.asarray(scores, dtype=np.float64), LOGIT_CUT, 1 - LOGIT_CUT)
    return {
        "ece": _rounded(float(np.mean(errors))),
        "ece_std": _rounded(float(np.std(errors, ddof=1))) if len(errors) > 1 else 0.0,
        "log_loss": _rounded(float(np.mean([log_loss(labels, of_seed, labels=[0, 1]) for of_seed in clipped]))),
    }


def calibration_error(scores: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error of P(looking): the sum over bins b of n_b / N * |share looking - mean score|.

    Naeini et al. 2015, for two classes, with the bins of Guo et al. 2017. The formula of Guo et al. compares accuracy
    with the score of the predicted class. For two classes that puts frames scored p and 1 - p into one bin, where the
    errors of scores that are all too high cancel out; training with balanced classes gives such scores.

    Perfectly calibrated scores also have an error above 0, and the fewer the frames the larger it is.

    Args:
        scores: (N,) P(looking).
        labels: (N,) 0 or 1.

    Example:
        >>> round(calibration_error(np.array([0.9, 0.9, 0.2, 0.2]), np.array([1, 0, 0, 0])), 4)
        0.3
    """
    _, total, looking = _bins(scores, labels)
    return float(np.abs(looking - total).sum() / len(scores))


def measure_reliability(scores: np.ndarray, labels: np.ndarray) -> Reliability:
    """Compute the reliability diagram of scores (S, N), pooled over S seeds, against labels (N,), 0 or 1."""
    count, total, looking = _bins(scores.ravel(), np.tile(labels, len(scores)))
    filled = [n or None for n in count.tolist()]
    return {
        "count": count.tolist(),
        "score": [n and _rounded(part / n) for part, n in zip(total.tolist(), filled, strict=True)],
        "looking": [n and _rounded(part / n) for part, n in zip(looking.tolist(), filled, strict=True)],
    }


def _bins(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, sum of scores and looks per bin, each (BINS,), of scores (N,). A score on an edge is in the lower bin."""
    place = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], scores)
    looking = np.bincount(place[labels == 1], minlength=BINS)
    return np.bincount(place, minlength=BINS), np.bincount(place, scores, BINS), looking


def _all_groups(split: LabelledScores) -> dict[str, Groups]:
    """Group the key frames by each property that is known for any of them."""
    values = {"face size": face_size(split.frames), **split.properties}
    groups = {
        name: _groups(split, of_frames, *_quarters(of_frames))
        for name, of_frames in values.items()
        if np.isfinite(of_frames).any()
    }
    return {**groups, "absent frames": _groups(split, (split.windows < 0).sum(axis=1), *_ABSENT)}


def _quarters(values: np.ndarray) -> tuple[list[float], list[str]]:
    """Edges and names of groups that are cut at the quartiles of the known (N,) values.

    The edges are rounded to three digits before grouping, so those in the record are exact.
    """
    known = values[np.isfinite(values)]
    quartiles = {float(f"{edge:.3g}") for edge in np.quantile(known, (0.25, 0.5, 0.75), method="higher")}
    edges = sorted(edge for edge in quartiles if known.min() < edge <= known.max())  # others would leave a group empty
    if not edges:
        return [], ["all"]
    written = [f"{edge:g}" for edge in edges]
    between = [f"{low} to {high}" for low, high in zip(written, written[1:], strict=False)]
    return edges, [f"below {written[0]}", *between, f"{written[-1]} or more"]


def _groups(split: LabelledScores, values: np.ndarray, edges: Sequence[float], names: Sequence[str]) -> Groups:
    """Compute mAP by groups of key frames.

    Args:
        split: the key frames.
        values: (N,) value of each, NaN if unknown.
        edges: G - 1 boundaries, ascending; a value on an edge belongs to the group above.
        names: G names.
    """
    labels, clips, clusters = split.labels, split.clips, split.clusters
    group = np.where(np.isfinite(values), np.searchsorted(edges, values, side="right"), len(names))
    if (group == len(names)).any():
        names = [*names, "unknown"]
    members = [group == number for number in range(len(names))]
    reached = [_map(split.scores[:, own], labels[own], clusters[own]) for own in members]
    return {
        "edges": list(edges),
        "groups": list(names),
        "windows": [int(own.sum()) for own in members],
        "positives": [int(labels[own].sum()) for own in members],
        "clips": [len(np.unique(clips[own])) for own in members],
        "mAP": [mean for mean, _, _ in reached],
        "low": [low for _, low, _ in reached],
        "high": [high for _, _, high in reached],
    }


def _map(scores: np.ndarray, labels: np.ndarray, clips: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """Mean over seeds of the mAP of scores (S, N), and its interval; None if undefined."""
    values = [lam_map(of_seed, labels).map for of_seed in scores]
    defined = [value for value in values if value is not None]
    if not defined:
        return None, None, None
    bounds = bootstrap_interval(scores, labels, clips, repeats=REPEATS).bounds["mAP"]
    low, high = (None, None) if bounds is None else map(_rounded, bounds)
    return _rounded(float(np.mean(defined))), low, high


def _rounded(fraction: float) -> float:
    """Round to a hundredth of a percent, because people read the record too."""
    return round(fraction, 4)
