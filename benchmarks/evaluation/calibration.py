"""Recalibration of scores, fitted on the validation split, and log odds."""

from __future__ import annotations

import numpy as np

from registry import UserError

TEMPERATURES = (0.01, 100.0)  # at the ends, scores are all but certain or all but equal


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """Fit the temperature T that maximises the likelihood of sigmoid(logit / T). Guo et al. 2017, section 4.2.

    T is above 1 for overconfident scores, and below 1 for underconfident ones. A score of 0.5 stays 0.5, so scores that
    are too high or too low on the whole need `fit_platt`.

    Args:
        scores: (N,) P(looking) on the validation split.
        labels: (N,) 0 or 1.

    Returns:
        T within `TEMPERATURES`: the lower end if the scores separate the classes perfectly, the upper end if they are
        no better than chance.

    Raises:
        UserError: the labels have one class only.
    """
    from scipy.optimize import minimize_scalar

    margin = np.where(both_classes(labels, "fit a temperature"), 1.0, -1.0) * log_odds(scores)

    def loss(exponent: float) -> float:
        return float(np.logaddexp(0, -margin / np.exp(exponent)).mean())

    # Convex in 1 / T, so there is a single minimum in log T too.
    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-7})
    return float(np.exp(found.x))


def fit_platt(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Fit slope and bias that maximise the likelihood of sigmoid(slope * logit + bias). Platt 1999, section 2.2.

    A head trained with balanced classes scores as if half of all frames were looks; the bias corrects that. As in the
    source, labels are softened to (P + 1) / (P + 2) and 1 / (N + 2) for P looking and N other frames, so that the slope
    stays finite even if the scores separate the classes perfectly.

    Args:
        scores: (N,) P(looking) on the validation split.
        labels: (N,) 0 or 1.

    Returns:
        Slope, 0 or more so that the ranking stays, and bias.

    Raises:
        UserError: the labels have one class only.
    """
    from scipy.optimize import minimize

    looking = both_classes(labels, "fit a calibration")
    positives, count = int(looking.sum()), len(looking)
    target = np.where(looking, (positives + 1) / (positives + 2), 1 / (count - positives + 2))
    x = log_odds(scores)
    spread = float(x.std()) if np.ptp(x) else 1.0  # of constant scores it is 0, or the rounding of their mean

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        at = parameters[0] * x / spread + parameters[1]
        pull = (sigmoid(np.clip(at, -500, 500)) - target) / count
        return float((np.logaddexp(0, at) - target * at).mean()), np.array([pull @ x / spread, pull.sum()])

    start = np.array([1.0, 0.0])
    options = {"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)], options=options)
    return float(found.x[0] / spread), float(found.x[1])


def recalibrate(scores: np.ndarray, slope: float, bias: float = 0.0) -> np.ndarray:
    """Apply slope and bias to the logits of scores (N,); the slope of a temperature T is 1 / T."""
    return sigmoid(np.clip(slope * log_odds(scores) + bias, -500, 500))


def both_classes(labels: np.ndarray, what: str) -> np.ndarray:
    """Mark the labels that are looking, bool (N,).

    Args:
        labels: (N,) 0 or 1.
        what: needs both classes, for the message: `fit a temperature`.

    Raises:
        UserError: the labels have one class only.
    """
    looking = np.asarray(labels) == 1
    if looking.all() or not looking.any():
        raise UserError(f"cannot {what}: the validation frames have one class only")
    return looking


LOGIT_CUT = 1e-6  # keeps the logits of 0 and 1 finite, at -14 and 14


def log_odds(scores: np.ndarray | float, cut: float = LOGIT_CUT) -> np.ndarray:
    """Log odds of scores in [0, 1], after clipping to [cut, 1 - cut]."""
    clipped = np.clip(np.asarray(scores, dtype=np.float64), cut, 1 - cut)
    return np.log(clipped / (1 - clipped))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Scores in [0, 1] from log odds."""
    return 1 / (1 + np.exp(-x))
