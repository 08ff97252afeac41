"""Where a row is right, and how far its scores can be trusted: mAP by groups of frames, and calibration.

Nothing here changes a score. The recalibrations are fitted on validation and reported beside the raw scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from benchmarks.evaluation.bootstrap import bootstrap_interval
from benchmarks.evaluation.calibration import fit_platt, fit_temperature, log_odds, recalibrate
from benchmarks.evaluation.metrics import lam_map

if TYPE_CHECKING:
    import pandas as pd

    from benchmarks.data.windows import KeyFrames


# Resamples per group's interval. A bound is then uncertain by about a twelfth of the interval's half width, and the
# groups take one second; the 1000 resamples of a row's own interval would take three.
REPEATS = 300

# Absent frames per window: none, one or two, more.
_ABSENT = (1.0, 3.0), ("none", "1 or 2", "3 or more")

BINS = 15  # of the reliability diagram; Guo et al. 2017


class Calibration(TypedDict):
    """How far scores are from frequencies: of frames scored 0.7, 7 of 10 should be labelled looking."""

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
    """Boundaries between the groups, ascending; a value on an edge belongs to the group above. Key frames whose value
    is unknown are the last group."""
    groups: list[str]
    """Their names: `below 31`, `31 to 41`, `49.2 or more`, `unknown`."""
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
    Laplacian), `head yaw` (absolute, degrees); a property that is unknown for every frame is left out."""


class Diagnosis(TypedDict):
    """Where a row is right, and how far its scores can be trusted; see docs/diagnosis.md."""

    temperature: list[float] | None
    """One temperature per seed, fitted on validation; None unless validation has frames of both classes."""
    platt: list[list[float]] | None
    """One pair per seed, slope and bias of the logits, fitted on validation; None as for `temperature`."""
    splits: dict[str, SplitDiagnosis]
    """Every labelled split but train. No score, metric or rank of the row depends on anything here."""


def diagnose(
    scores: Mapping[str, np.ndarray],
    plans: Mapping[str, KeyFrames],
    tables: Mapping[str, pd.DataFrame],
    facts: Mapping[str, Mapping[str, np.ndarray]],
) -> Diagnosis:
    """Diagnose the scores of a row on every labelled split but train.

    Args:
        scores: split -> (S, M) P(looking) of S seeds.
        plans: split -> its M key frames.
        tables: split -> frame table; face sizes come from its boxes.
        facts: split -> name -> (rows of the table,) float64, NaN where unknown; may be empty.

    Returns:
        The record's section.
    """
    known = {split: plan.labels >= 0 for split, plan in plans.items() if split != "train"}
    known = {split: rows for split, rows in known.items() if rows.any()}
    temperatures: list[float] | None = None
    lines: list[tuple[float, float]] | None = None
    if "val" in known:
        own, labels = scores["val"][:, known["val"]], plans["val"].labels[known["val"]]
        if 0 < labels.sum() < len(labels):
            temperatures = [fit_temperature(of_seed, labels) for of_seed in own]
            lines = [fit_platt(of_seed, labels) for of_seed in own]
    splits: dict[str, SplitDiagnosis] = {}
    for split, rows in known.items():
        own, labels, centres = scores[split][:, rows], plans[split].labels[rows], plans[split].centres[rows]
        versions = {"raw": own}
        if temperatures is not None and lines is not None:
            versions["temperature"] = np.stack([recalibrate(s, 1 / t) for s, t in zip(own, temperatures, strict=True)])
            versions["platt"] = np.stack([recalibrate(s, *line) for s, line in zip(own, lines, strict=True)])
        frames = tables[split].iloc[centres]
        values = {"face size": face_size(frames)}
        values |= {name: of_rows[centres] for name, of_rows in facts.get(split, {}).items()}
        clips = frames["clip"].to_numpy()
        groups = {
            name: _groups(own, labels, clips, of_key, _quarters(of_key))
            for name, of_key in values.items()
            if np.isfinite(of_key).any()
        }
        absent = (plans[split].rows[rows] < 0).sum(axis=1)
        groups["absent frames"] = _groups(own, labels, clips, absent, _ABSENT)
        splits[split] = {
            "calibration": {name: calibration(version, labels) for name, version in versions.items()},
            "reliability": {
                name: reliability(version, labels) for name, version in versions.items() if name != "temperature"
            },
            "groups": groups,
        }
    return {
        "temperature": None if temperatures is None else [_rounded(temperature) for temperature in temperatures],
        "platt": None if lines is None else [[_rounded(slope), _rounded(bias)] for slope, bias in lines],
        "splits": splits,
    }


def face_size(frames: pd.DataFrame) -> np.ndarray:
    """Shorter side of the box of each row in pixels: (N,) float64, NaN where there is no box."""
    width, height = (frames[f"{axis}2"].to_numpy() - frames[f"{axis}1"].to_numpy() for axis in "xy")
    return np.minimum(width, height)


def calibration(scores: np.ndarray, labels: np.ndarray) -> Calibration:
    """Measure the calibration of scores (S, N) of S seeds against labels (N,), 0 or 1."""
    errors = [calibration_error(of_seed, labels) for of_seed in scores]
    margin = np.where(labels == 1, 1.0, -1.0) * log_odds(scores)
    return {
        "ece": _rounded(float(np.mean(errors))),
        "ece_std": _rounded(float(np.std(errors, ddof=1))) if len(errors) > 1 else 0.0,
        "log_loss": _rounded(float(np.logaddexp(0, -margin).mean())),
    }


def calibration_error(scores: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error of P(looking): the sum over bins b of n_b / N * |share looking - mean score|.

    Naeini et al. 2015, for two classes, with the bins of Guo et al. 2017. The latter's own formula compares the score
    of the class that is called with accuracy. Of two classes that puts frames scored p and 1 - p into one bin, where
    scores that are all too high cancel out, and such are those of a training that weights both classes alike.

    Calibrated scores have an error above 0, too, the more so the fewer frames there are.

    Args:
        scores: (N,) P(looking).
        labels: (N,) 0 or 1.

    Example:
        >>> round(calibration_error(np.array([0.9, 0.9, 0.2, 0.2]), np.array([1, 0, 0, 0])), 4)
        0.3
    """
    _, total, looking = _bins(scores, labels)
    return float(np.abs(looking - total).sum() / len(scores))


def reliability(scores: np.ndarray, labels: np.ndarray) -> Reliability:
    """Count out the reliability diagram of scores (S, N) of S seeds, all together, against labels (N,), 0 or 1."""
    count, total, looking = _bins(scores.ravel(), np.tile(labels, len(scores)))
    filled = [n or None for n in count.tolist()]
    return {
        "count": count.tolist(),
        "score": [n and _rounded(part / n) for part, n in zip(total.tolist(), filled, strict=True)],
        "looking": [n and _rounded(part / n) for part, n in zip(looking.tolist(), filled, strict=True)],
    }


def _bins(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort scores (N,) into the bins, one on an edge into the lower: count, sum of scores and looks, each (BINS,)."""
    place = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], scores)
    looking = np.bincount(place[labels == 1], minlength=BINS)
    return np.bincount(place, minlength=BINS), np.bincount(place, scores, BINS), looking


def _quarters(values: np.ndarray) -> tuple[list[float], list[str]]:
    """Edges and names of the groups between the quartiles of what is known of (N,) values.

    Edges are rounded to three digits before anything is grouped by them: the record holds what was done.
    """
    known = values[np.isfinite(values)]
    quartiles = {float(f"{edge:.3g}") for edge in np.quantile(known, (0.25, 0.5, 0.75), method="higher")}
    edges = sorted(edge for edge in quartiles if known.min() < edge <= known.max())  # others part nothing
    if not edges:
        return [], ["all"]
    written = [f"{edge:g}" for edge in edges]
    between = [f"{low} to {high}" for low, high in zip(written, written[1:], strict=False)]
    return edges, [f"below {written[0]}", *between, f"{written[-1]} or more"]


def _groups(
    scores: np.ndarray,
    labels: np.ndarray,
    clips: np.ndarray,
    values: np.ndarray,
    division: tuple[Sequence[float], Sequence[str]],
) -> Groups:
    """Score each group of key frames.

    Args:
        scores: (S, N) of S seeds.
        labels: (N,) 0 or 1.
        clips: (N,) the clip of each.
        values: (N,) what they are grouped by, NaN where unknown.
        division: G - 1 edges, ascending, and the names of the G groups; a value on an edge belongs to the group above.
    """
    edges, names = division
    group = np.where(np.isfinite(values), np.searchsorted(edges, values, side="right"), len(names))
    if (group == len(names)).any():
        names = [*names, "unknown"]
    members = [group == number for number in range(len(names))]
    reached = [_map(scores[:, own], labels[own], clips[own]) for own in members]
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
    """Mean mAP of the scores (S, N) and its interval, None where undefined."""
    values = [lam_map(of_seed, labels).map for of_seed in scores]
    defined = [value for value in values if value is not None]
    if not defined:
        return None, None, None
    bounds = bootstrap_interval(scores, labels, clips, repeats=REPEATS).bounds["mAP"]
    low, high = (None, None) if bounds is None else map(_rounded, bounds)
    return _rounded(float(np.mean(defined))), low, high


def _rounded(fraction: float) -> float:
    """To a hundredth of a per cent: the record is read by people, too."""
    return round(fraction, 4)
