"""Fits a calibration and a threshold to marked faces, and cross-validates both.

Candidates are the model's log odds alone, and with the backbone's features if these are few. Which one is fitted is
part of what is cross-validated: it is chosen inside each training part, so no face has a say in its own score.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from benchmarks.evaluation.calibration import log_odds, sigmoid
from registry import UserError

FOLDS = 5
BLOCKS = 10  # of time, where there are too few tracks
LEAST_TRACKS = 5  # to cross-validate over
LEAST_FACES = 20
LEAST_OF_A_CLASS = 5
FEW = 32  # features; more are not fitted to some dozens of faces
PENALTY = 1.0  # inverse strength of the L2 penalty, on standardised inputs
RESAMPLES = 200  # of tracks, over which the best threshold is averaged
LOWEST = 1e-3  # threshold


@dataclass(frozen=True)
class MarkedFaces:
    """Marked faces with what the model says about them.

    Attributes:
        scores: ``(N,)`` P(looking) of the model.
        features: ``(N, D)`` of the backbone; D is 0 if they are not to be fitted.
        labels: ``(N,)`` 1 looking, 0 not looking.
        weights: ``(N,)`` faces of the run that each stands for; their mean is 1.
        groups: ``(N,)`` int; faces of a group are scored by a fit without any of them.
        over: what the groups are: ``tracks`` or ``blocks of time``.
    """

    scores: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    over: str

    def part(self, rows: np.ndarray) -> MarkedFaces:
        """Some of the faces."""
        names = ("scores", "features", "labels", "weights", "groups")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


class Fit(NamedTuple):
    """A fitted calibration; see `zoo.calibration`."""

    slope: float
    bias: float
    weights: np.ndarray

    def scores(self, faces: MarkedFaces) -> np.ndarray:
        """P(looking) after the calibration, ``(N,)``."""
        features = faces.features @ self.weights if len(self.weights) else 0.0
        return sigmoid(np.clip(self.slope * log_odds(faces.scores) + self.bias + features, -500, 500))


class Held(NamedTuple):
    """Scores of faces that had no part in the fit, and decisions by thresholds in whose choice they had none.

    Attributes:
        scores: ``(N,)`` calibrated.
        looks: ``(N,)`` bool, calibrated score at the threshold chosen with it.
        moved: ``(N,)`` bool, the model's own score at another threshold.
    """

    scores: np.ndarray
    looks: np.ndarray
    moved: np.ndarray


def group_faces(tracks: np.ndarray, order: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, str]:
    """Divide faces into the groups of a cross-validation: tracks, or blocks of time where these do not suffice.

    Args:
        tracks: ``(N,)`` int.
        order: ``(N,)`` sorts faces by time, one video after another.
        labels: ``(N,)`` 1 looking, 0 not looking.

    Raises:
        UserError: there are too few faces, too few of a class, or one class lies in a single stretch of time.
    """
    counts = [int((labels == 1).sum()), int((labels == 0).sum())]
    if sum(counts) < LEAST_FACES or min(counts) < LEAST_OF_A_CLASS:
        raise UserError(
            f"{counts[0]} faces are marked looking and {counts[1]} not looking; at least {LEAST_FACES} are needed, "
            f"{LEAST_OF_A_CLASS} of each, and 60 are better: mark more"
        )
    if len(np.unique(tracks)) >= LEAST_TRACKS and _folds(labels, tracks):
        return np.unique(tracks, return_inverse=True)[1], "tracks"
    blocks = np.empty(len(labels), dtype=int)
    blocks[np.argsort(order, kind="stable")] = np.arange(len(labels)) * BLOCKS // len(labels)
    if not _folds(labels, blocks):
        raise UserError(
            "all faces of one class lie close together in time, so no part of them can be held out; mark more"
        )
    return blocks, "blocks of time"


def _folds(labels: np.ndarray, groups: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and held-out rows of each fold; none if a training part would lack a class."""
    from sklearn.model_selection import StratifiedGroupKFold

    count = min(FOLDS, len(np.unique(groups)))
    if count < 2:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer faces than folds
        split = StratifiedGroupKFold(count, shuffle=True, random_state=0).split(labels, labels, groups)
        folds = [(train, held) for train, held in split if len(held)]
    return folds if all(0 < labels[train].sum() < len(train) for train, _ in folds) else []


def fit(faces: MarkedFaces, with_features: bool = False) -> Fit:
    """Fit a logistic regression of the labels on the model's log odds, and on features if asked.

    The penalty is on standardised inputs, and standardisation is folded into the result. A slope below 0 would turn the
    model's order of faces around; it becomes 0.
    """
    inputs = [log_odds(faces.scores)[:, None], faces.features if with_features else faces.features[:, :0]]
    x = np.concatenate(inputs, axis=1)
    coefficients, bias = _logistic(x, faces.labels)
    if coefficients[0] < 0:
        own, bias = _logistic(x[:, 1:], faces.labels)
        coefficients = np.concatenate([[0.0], own])
    return Fit(float(coefficients[0]), bias, coefficients[1:])


def _logistic(x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients ``(D,)`` and intercept of a logistic regression on ``x (N, D)``; D may be 0."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if not x.shape[1]:
        return np.empty(0), float(log_odds(labels.mean()))
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=PENALTY, max_iter=2000).fit(scaler.transform(x), labels)
    own = model.coef_[0] / scaler.scale_
    return own, float(model.intercept_[0] - own @ scaler.mean_)


def best_fit(faces: MarkedFaces) -> Fit:
    """Fit with features if these lower the cross-validated log loss by more than its standard error, else without."""
    plain = fit(faces)
    folds = _folds(faces.labels, faces.groups) if faces.features.shape[1] else []
    if not folds:
        return plain
    losses = np.empty((2, len(faces.labels)))
    for with_features in (False, True):
        for train, held in folds:
            scores = fit(faces.part(train), with_features).scores(faces.part(held))
            losses[int(with_features), held] = log_losses(scores, faces.labels[held])
    gain = losses[0] - losses[1]
    by_group = np.bincount(faces.groups, gain - gain.mean())  # faces of a group are alike, so their sum is one draw
    error = np.sqrt((by_group**2).sum()) / len(gain)
    return fit(faces, True) if gain.mean() > error else plain


def log_losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The log loss of each face, ``(N,)``; scores are clipped as in `log_odds`."""
    return np.logaddexp(0, -np.where(labels == 1, 1.0, -1.0) * log_odds(scores))


def best_cut(scores: np.ndarray, faces: MarkedFaces) -> float:
    """Choose the threshold with the best balanced accuracy: the mean over resamples of the groups, in log odds.

    A single sample has its best threshold anywhere between two of its scores; the mean over resamples is stable
    ("bagging", Breiman 1996). The draws are the same in every call.

    Args:
        scores: ``(N,)`` P(looking).
        faces: their labels, weights and groups.
    """
    values = np.unique(log_odds(scores))
    cuts = np.concatenate([values[:1] - 1, (values[1:] + values[:-1]) / 2, values[-1:] + 1])
    called = log_odds(scores)[:, None] >= cuts
    number = np.unique(faces.groups, return_inverse=True)[1]
    count = int(number.max()) + 1
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    drawn = np.concatenate([np.ones((1, count), dtype=drawn.dtype), drawn])[:, number] * faces.weights
    looking = faces.labels == 1
    with np.errstate(invalid="ignore"):
        hits = (drawn[:, looking] @ called[looking]) / drawn[:, looking].sum(axis=1, keepdims=True)
        rejected = (drawn[:, ~looking] @ ~called[~looking]) / drawn[:, ~looking].sum(axis=1, keepdims=True)
    balanced = (hits + rejected)[~np.isnan(hits + rejected).any(axis=1)]
    best = balanced >= balanced.max(axis=1, keepdims=True) - 1e-12
    cut = float(sigmoid(np.array((best @ cuts / best.sum(axis=1)).mean())))
    return round(min(max(cut, LOWEST), 1 - LOWEST), 3)


def cross_validate(faces: MarkedFaces) -> Held:
    """Score every face by a fit, and decide it by thresholds, in which its group had no part."""
    held_out = Held(*(np.empty(len(faces.labels), dtype=kind) for kind in (np.float64, bool, bool)))
    for train, held in _parts(faces):
        found = best_fit(train)
        held_out.scores[held] = found.scores(faces.part(held))
        held_out.looks[held] = held_out.scores[held] >= best_cut(found.scores(train), train)
        held_out.moved[held] = faces.scores[held] >= best_cut(train.scores, train)
    return held_out


def _parts(faces: MarkedFaces) -> Iterator[tuple[MarkedFaces, np.ndarray]]:
    for train, held in _folds(faces.labels, faces.groups):
        yield faces.part(train), held
