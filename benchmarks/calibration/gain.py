"""How much better a calibrated model is than the one it was made from, on faces that had no part in the calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from benchmarks.calibration.fit import Held, MarkedFaces, log_losses
from benchmarks.evaluation.bootstrap import tail_share

REPEATS = 1000  # resamples of the groups
NAMES = ("AUC", "balanced accuracy", "log loss")


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval.

    Attributes:
        value: on all marked faces.
        low: NaN if there are too few groups to resample.
        high: as `low`.
        error: standard error, over resamples.
    """

    value: float
    low: float
    high: float
    error: float

    def text(self, sign: str = "") -> str:
        """The figure and its interval."""
        if np.isnan(self.low):
            return f"{self.value:{sign}.3f}"
        return f"{self.value:{sign}.3f} [{self.low:{sign}.3f}, {self.high:{sign}.3f}]"


@dataclass(frozen=True)
class Gain:
    """Figures in the order of `NAMES`, weighted like all faces of the runs.

    Attributes:
        before: of the model, at the threshold of the run.
        after: of the calibrated model.
        difference: of the two, paired.
        moved: balanced accuracy of the model at another threshold, less that at the threshold of the run.
    """

    before: tuple[Estimate, ...]
    after: tuple[Estimate, ...]
    difference: tuple[Estimate, ...]
    moved: Estimate

    @property
    def calibrated_is_better(self) -> bool:
        """Whether log loss falls by more than its standard error."""
        return -self.difference[2].value > self.difference[2].error

    @property
    def moved_is_better(self) -> bool:
        """Whether another threshold alone raises balanced accuracy by more than its standard error."""
        return self.moved.value > self.moved.error

    def table(self, name: str) -> str:
        """The figures as a table for the terminal."""
        rows = [
            [figure, old.text(), new.text(), change.text("+")]
            for figure, old, new, change in zip(NAMES, self.before, self.after, self.difference, strict=True)
        ]
        return tabulate(rows, headers=["cross-validated", name, "calibrated", "difference"], disable_numparse=True)


def measure_gain(faces: MarkedFaces, thresholds: np.ndarray, held: Held) -> Gain:
    """Compare a calibrated model with its original on held-out faces.

    Intervals resample whole groups, because faces of a track are alike.

    Args:
        faces: all marked ones.
        thresholds: ``(N,)`` of their runs.
        held: from `cross_validate`.
    """
    number = np.unique(faces.groups, return_inverse=True)[1]
    count = int(number.max()) + 1
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), REPEATS)
    weights = np.concatenate([np.ones((1, count), dtype=draws.dtype), draws])[:, number] * faces.weights
    labels = faces.labels

    def figures(scores: np.ndarray, looks: np.ndarray) -> np.ndarray:
        found = auc(scores, labels, weights), balanced_accuracy(looks, labels, weights), _loss(scores, labels, weights)
        return np.stack(found)

    before, after = figures(faces.scores, faces.scores >= thresholds), figures(held.scores, held.looks)
    moved = balanced_accuracy(held.moved, labels, weights) - before[1]
    of_model, of_fit, paired = (
        tuple(_estimate(row, count) for row in rows) for rows in (before, after, after - before)
    )
    return Gain(of_model, of_fit, paired, _estimate(moved, count))


def _estimate(values: np.ndarray, groups: int) -> Estimate:
    """Of a figure on all faces, and in `REPEATS` resamples; those that lack a class are left out."""
    resampled = values[1:][~np.isnan(values[1:])]
    if 2 * len(resampled) <= REPEATS or groups < 2:
        return Estimate(float(values[0]), np.nan, np.nan, np.inf)
    tail = tail_share(resampled[None], groups)
    low, high = np.quantile(resampled, (tail, 1 - tail)).tolist()
    error = float(resampled.std()) * np.sqrt(groups / (groups - 1))  # resamples of few groups spread too little
    return Estimate(float(values[0]), low, high, error)


def auc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, ``(R,)``: the share of pairs in which the looking face has the higher score.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)`` 1 looking, 0 not looking.
        weights: ``(R, N)`` of the faces, in R resamples.
    """
    looking = labels == 1
    above = scores[looking][:, None] - scores[~looking]
    won = (above > 0) + (above == 0) / 2
    own, other = weights[:, looking], weights[:, ~looking]
    with np.errstate(invalid="ignore"):
        return ((own @ won) * other).sum(axis=1) / (own.sum(axis=1) * other.sum(axis=1))


def balanced_accuracy(called: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of the shares of looking faces called looking and of others called not looking, ``(R,)``."""
    looking = labels == 1
    right = called == looking
    own, other = weights[:, looking], weights[:, ~looking]
    with np.errstate(invalid="ignore"):
        hits = (own @ right[looking]) / own.sum(axis=1)
        return (hits + (other @ right[~looking]) / other.sum(axis=1)) / 2


def _loss(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean log loss, ``(R,)``."""
    return (weights @ log_losses(scores, labels)) / weights.sum(axis=1)
