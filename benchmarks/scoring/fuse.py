"""Fuse scores: the mean of prediction files, and the fitted weights of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmarks.evaluation.calibration import both_classes, log_odds, sigmoid
from benchmarks.scoring.files import is_test, match
from registry import UserError

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

    positives = both_classes(labels, "the weights of an ensemble are")
    x = log_odds(scores)
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
    return sigmoid(np.asarray(weights) @ log_odds(scores))


FUSIONS = ("mean", "logit", "rank")


def fuse_scores(scores: np.ndarray, how: str = "mean") -> np.ndarray:
    """Average K scores of each row.

    Args:
        scores: (K, N) in [0, 1].
        how: "mean" of the probabilities (the published test-time augmentation); "logit", the sigmoid of the mean logit,
            which a confident score moves further; "rank", the mean of each file's ranks as fractions (ties share their
            mean rank), for models whose scores are not comparable. Ranks keep mAP's meaning but not that of 0.5, so
            accuracy means nothing after "rank".

    Returns:
        (N,) in [0, 1].
    """
    scores = np.asarray(scores, dtype=np.float64)
    if how == "mean":
        return scores.mean(axis=0)
    if how == "logit":
        return sigmoid(log_odds(scores).mean(axis=0))
    if how == "rank":
        ranks = pd.DataFrame(scores.T).rank(method="average").to_numpy()
        return ((ranks - 0.5) / max(scores.shape[1], 1)).mean(axis=1)
    raise UserError(f"fusion {how!r}: must be one of {', '.join(FUSIONS)}")


def fuse(tables: Sequence[pd.DataFrame], names: Sequence[str], how: str = "mean") -> pd.DataFrame:
    """Average prediction tables that have the same rows, joined by key.

    Returns:
        The first table with the fused score, sorted by clip, then unique id (test) or track and frame (validation), so
        that the result does not depend on the order of any file's rows.
    """
    first = tables[0]
    rows = [np.arange(len(first))]
    rows += [match(first, table, (names[0], name)) for table, name in zip(tables[1:], names[1:], strict=True)]
    scores = np.stack([t["score"].to_numpy()[found] for t, found in zip(tables, rows, strict=True)])
    order = ["clip", "unique_id", "track"] if is_test(first) else ["clip", "track", "frame"]
    return first.assign(score=fuse_scores(scores, how)).sort_values(order, ignore_index=True)
