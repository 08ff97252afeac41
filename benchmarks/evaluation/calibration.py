"""What is fitted on the validation split after training: weights of members, window of a smoothing, calibration.

All look at validation scores and labels alone; test scores are transformed by what was found there.
"""

from __future__ import annotations

import numpy as np

from registry import UserError

TEMPERATURES = (0.01, 100.0)  # from scores made certain to scores all but equal; beyond, nothing changes any more


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

    margin = np.where(both_classes(labels, "a temperature is"), 1.0, -1.0) * log_odds(scores)

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

    looking = both_classes(labels, "a calibration is")
    positives, count = int(looking.sum()), len(looking)
    target = np.where(looking, (positives + 1) / (positives + 2), 1 / (count - positives + 2))
    x = log_odds(scores)
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
    return sigmoid(np.clip(slope * log_odds(scores) + bias, -500, 500))


def both_classes(labels: np.ndarray, what: str) -> np.ndarray:
    """Which of the labels say looking: bool (N,), some of them and not all."""
    looking = np.asarray(labels) == 1
    if looking.all() or not looking.any():
        raise UserError(f"{what} fitted on validation frames of both classes; here is one only")
    return looking


# Where the logit of a score of 0 or 1 is cut off: about 14, more than a float32 softmax can tell from certain.
LOGIT_CUT = 1e-6


def log_odds(scores: np.ndarray | float, cut: float = LOGIT_CUT) -> np.ndarray:
    """Log odds of scores in [0, 1], after clipping to [cut, 1 - cut]."""
    clipped = np.clip(np.asarray(scores, dtype=np.float64), cut, 1 - cut)
    return np.log(clipped / (1 - clipped))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Scores of log odds."""
    return 1 / (1 + np.exp(-x))
