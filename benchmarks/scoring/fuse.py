"""Fusion of scores: ensembles with fitted weights, and averages of prediction files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from benchmarks.evaluation.calibration import both_classes, log_odds, sigmoid
from benchmarks.scoring.files import is_test, match

_RIDGE = 1e-3  # penalty on the weights, relative to the mean loss; nearly equal members share their weight


def fit_weights(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fit an ensemble's weights: a non-negative logistic regression of the labels on the members' logits.

    Both classes have equal weight, as in mAP. The logits are divided by their standard deviation per member, so the
    penalty does not favour confident members. The problem is convex, so the result does not depend on the start.

    Args:
        scores: (K, N) P(looking) of K members on the validation split.
        labels: (N,) 0 or 1.

    Returns:
        (K,) weights of the logits, 0 or more, with sum 1.

    Raises:
        UserError: the labels have one class only.
    """
    from scipy.optimize import minimize  # takes half a second

    positives = both_classes(labels, "fit the weights of an ensemble")
    x = log_odds(scores)
    spread = x.std(axis=1)
    spread[spread == 0] = 1.0  # a constant member, whose weight has no effect
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
    # All are 0 if every member is worse than chance.
    return weights / weights.sum() if weights.sum() > 0 else np.full(len(x), 1 / len(x))


def fuse_members(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fuse scores (K, N) of an ensemble's K members by the weighted mean of their logits: (N,) in [0, 1]."""
    return sigmoid(np.asarray(weights) @ log_odds(scores))


def average_scores(scores: np.ndarray, how: Literal["mean", "logit", "rank"] = "mean") -> np.ndarray:
    """Average K scores per frame.

    Args:
        scores: (K, N) in [0, 1].
        how: `mean` of the probabilities, as in the published test-time augmentation; `logit`, the sigmoid of the mean
            logit, in which confident scores count more; `rank`, the mean of the ranks divided by N, for models whose
            scores are not on one scale. After `rank`, 0.5 has no meaning, so accuracy has none either. mAP has.

    Returns:
        (N,) in [0, 1].

    Example:
        >>> average_scores(np.array([[0.2, 0.8], [0.4, 0.4]])).round(3).tolist()
        [0.3, 0.6]
        >>> average_scores(np.array([[0.2, 0.8], [0.4, 0.4]]), "rank").tolist()
        [0.375, 0.625]
    """
    scores = np.asarray(scores, dtype=np.float64)
    if how == "mean":
        return scores.mean(axis=0)
    if how == "logit":
        return sigmoid(log_odds(scores).mean(axis=0))
    ranks = pd.DataFrame(scores.T).rank(method="average").to_numpy()
    return ((ranks - 0.5) / max(scores.shape[1], 1)).mean(axis=1)


def average_tables(
    tables: Sequence[pd.DataFrame], names: Sequence[str], how: Literal["mean", "logit", "rank"] = "mean"
) -> pd.DataFrame:
    """Average the scores of prediction tables with the same rows, joined by key.

    Args:
        tables: from `read_prediction_file`, two or more.
        names: of the tables, for messages.
        how: as in `average_scores`.

    Returns:
        The first table with the averaged score, sorted by clip, then unique id (test) or track and frame (validation),
        so that the order of rows in the files does not matter.

    Raises:
        UserError: as `match`.
    """
    first = tables[0]
    rows = [np.arange(len(first))]
    rows += [match(first, table, (names[0], name)) for table, name in zip(tables[1:], names[1:], strict=True)]
    scores = np.stack([t["score"].to_numpy()[found] for t, found in zip(tables, rows, strict=True)])
    order = ["clip", "unique_id", "track"] if is_test(first) else ["clip", "track", "frame"]
    return first.assign(score=average_scores(scores, how)).sort_values(order, ignore_index=True)
