"""What is fitted on the validation split after training: weights of members, window of a smoothing, calibration.

All look at validation scores and labels alone; test scores are transformed by what was found there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmarks.metrics import lam_map
from benchmarks.scores import logits, sigmoid, smooth_scores
from registry import UserError

WINDOWS = (1, 3, 5, 7, 9, 11, 13, 15, 17, 21, 25, 31, 41, 51)  # frames; at 30 a second, up to one and two thirds of one

TEMPERATURES = (0.01, 100.0)  # from scores made certain to scores all but equal; beyond, nothing changes any more

# Ridge on the weights, in units of the mean loss: members that say nearly the same share their weight.
_RIDGE = 1e-3


def fit_weights(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fit the weights of an ensemble's members: the non-negative logistic regression of the label on their logits.

    Both classes count alike, as they do in mAP; the members' logits are compared in units of their own spread, so a
    confident member is not a heavy one. Convex, so the answer does not depend on where the search begins.

    Args:
        scores: (K, N) P(looking) of K members on the validation split.
        labels: (N,) 0 or 1.

    Returns:
        (K,) weights of the logits, not negative, sum 1.

    Raises:
        UserError: the labels are of one class only.
    """
    from scipy.optimize import minimize  # half a second of import; scikit-learn brings it

    positives = _looking(labels, "the weights of an ensemble are")
    x = logits(scores)
    spread = x.std(axis=1)
    spread[spread == 0] = 1.0  # a constant member; its weight moves nothing
    x = x / spread[:, None]
    sign = np.where(positives, 1.0, -1.0)
    share = np.where(positives, 0.5 / positives.sum(), 0.5 / (~positives).sum())

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = parameters[:-1], parameters[-1]
        margin = sign * (weights @ x + bias)
        pull = -share * sign / (1 + np.exp(np.clip(margin, -500, 500)))
        value = float(share @ np.logaddexp(0, -margin)) + _RIDGE * float(weights @ weights)
        return value, np.append(x @ pull + 2 * _RIDGE * weights, pull.sum())

    start = np.append(np.full(len(x), 1 / len(x)), 0.0)
    bounds = [(0.0, None)] * len(x) + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 1000, "ftol": 1e-12})
    weights = found.x[:-1] / spread
    # All members worse than chance: nothing to choose by, so all alike.
    return weights / weights.sum() if weights.sum() > 0 else np.full(len(x), 1 / len(x))


def combine(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fuse K members' scores (K, N) by the weighted mean of their logits: (N,) in [0, 1]."""
    return sigmoid(np.asarray(weights) @ logits(scores))


def choose_window(
    frames: pd.DataFrame, scores: np.ndarray, labels: np.ndarray, how: str, windows: Sequence[int] = WINDOWS
) -> int:
    """Choose the smoothing window with the highest mAP on the validation split, in the mean over seeds.

    Args:
        frames: N rows with clip, track and frame.
        scores: (S, N) of S seeds.
        labels: (N,) 0 or 1.
        how: the filter, as for `smooth_scores`.
        windows: what to choose from; the first of equals wins.

    Returns:
        Frames, odd; 1 where smoothing does not help.

    Raises:
        UserError: the labels are of one class only.
    """
    reached = []
    for window in windows:
        values = [lam_map(smooth_scores(frames, of_seed, how, window), labels).map for of_seed in scores]
        if None in values:
            raise UserError("a smoothing window is chosen on validation frames of both classes; here is one only")
        reached.append(float(np.mean([value for value in values if value is not None])))
    return windows[int(np.argmax(reached))]


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """Fit the temperature T that makes sigmoid(logit / T) most likely. Guo et al. 2017, section 4.2.

    Above 1 the scores were too confident, below 1 not confident enough. 0.5 stays where it is: that the scores as a
    whole are too high or too low is not repaired, see `fit_platt`.

    Args:
        scores: (N,) P(looking) on the validation split.
        labels: (N,) 0 or 1.

    Returns:
        T within `TEMPERATURES`: the lower end where the scores tell the classes apart without fault, the upper one
        where they are no better than chance.

    Raises:
        UserError: the labels are of one class only.
    """
    from scipy.optimize import minimize_scalar

    margin = np.where(_looking(labels, "a temperature is"), 1.0, -1.0) * logits(scores)

    def loss(exponent: float) -> float:
        return float(np.logaddexp(0, -margin / np.exp(exponent)).mean())

    # Convex in 1 / T, so there is one minimum in log T, too.
    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-7})
    return float(np.exp(found.x))


def fit_platt(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Fit slope and bias that make sigmoid(slope * logit + bias) most likely. Platt 1999, section 2.2.

    A head that was trained with both classes weighted alike scores as if half of all frames were looks: the bias
    takes that back. As in the source, the labels are softened to (P + 1) / (P + 2) and 1 / (N + 2) for P looking and N
    other frames, so that classes told apart without fault do not ask for an infinite slope.

    Args:
        scores: (N,) P(looking) on the validation split.
        labels: (N,) 0 or 1.

    Returns:
        Slope, not negative, so that the ranking stays; and bias.

    Raises:
        UserError: the labels are of one class only.
    """
    from scipy.optimize import minimize

    looking = _looking(labels, "a calibration is")
    positives, count = int(looking.sum()), len(looking)
    target = np.where(looking, (positives + 1) / (positives + 2), 1 / (count - positives + 2))
    x = logits(scores)
    spread = float(x.std()) or 1.0  # a constant score; its slope moves nothing

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        at = parameters[0] * x / spread + parameters[1]
        pull = (sigmoid(np.clip(at, -500, 500)) - target) / count
        return float((np.logaddexp(0, at) - target * at).mean()), np.array([pull @ x / spread, pull.sum()])

    start = np.array([1.0, 0.0])
    options = {"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)], options=options)
    return float(found.x[0] / spread), float(found.x[1])


def recalibrate(scores: np.ndarray, slope: float, bias: float = 0.0) -> np.ndarray:
    """Scores (N,) with their logits stretched and moved; 1 / T is the slope of a temperature T."""
    return sigmoid(np.clip(slope * logits(scores) + bias, -500, 500))


def _looking(labels: np.ndarray, what: str) -> np.ndarray:
    """Which of the labels say looking: bool (N,), some of them and not all."""
    looking = np.asarray(labels) == 1
    if looking.all() or not looking.any():
        raise UserError(f"{what} fitted on validation frames of both classes; here is one only")
    return looking
