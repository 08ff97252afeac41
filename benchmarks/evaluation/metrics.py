"""Figures of the benchmark: mAP over looking and not looking, accuracy, confusion. All are fractions.

No figure depends on the order of rows. Within a tie, looking and not-looking frames are mixed evenly, which favours
neither class. (The published program ranks ties by their place in the file, so its figure changes with that order.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from registry import UserError

THRESHOLD = 0.5  # a frame with this score or more is called looking
NAMES = ("mAP", "AP.looking", "AP.not_looking", "accuracy")


@dataclass(frozen=True)
class Metrics:
    """Figures of one set of scores. An undefined figure is None, and `note` explains why.

    The confusion is counted at threshold 0.5; positive means looking.
    """

    map: float | None
    ap_looking: float | None
    ap_not_looking: float | None
    accuracy: float | None
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    note: str = ""

    @property
    def positives(self) -> int:
        """Frames labelled looking."""
        return self.true_positives + self.false_negatives

    @property
    def negatives(self) -> int:
        """Frames labelled not looking."""
        return self.true_negatives + self.false_positives

    @property
    def rows(self) -> int:
        """Frames scored."""
        return self.positives + self.negatives

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, keyed by `NAMES`, and the counts in a form that JSON can hold."""
        values: dict[str, Any] = dict(
            zip(NAMES, (self.map, self.ap_looking, self.ap_not_looking, self.accuracy), strict=True)
        )
        values["rows"] = self.rows
        values["positives"] = self.positives
        values["negatives"] = self.negatives
        values["confusion"] = {
            "true_positives": self.true_positives,
            "false_positives": self.false_positives,
            "true_negatives": self.true_negatives,
            "false_negatives": self.false_negatives,
        }
        if self.note:
            values["note"] = self.note
        return values


def lam_map(scores: np.ndarray, labels: np.ndarray) -> Metrics:
    """Compute the Ego4D Looking-At-Me figures of one set of scores.

    mAP is the mean of two average precisions: of looking, ranked by score, and of not looking, ranked by 1 - score.
    Both follow VOC 2010: the precision at each recall is the highest at this or any higher recall, and the average
    precision is the area under that staircase. scikit-learn's `average_precision_score` skips this maximum, so it is
    never higher, and equal if precision only falls.

    Args:
        scores: (N,) P(looking), in [0, 1].
        labels: (N,) 1 looking, 0 not looking.

    Returns:
        Metrics, without average precisions if a class is missing.

    Raises:
        UserError: lengths differ, a score is NaN or outside [0, 1], or a label is neither 0 nor 1.

    Example:
        >>> figures = lam_map(np.array([0.9, 0.6, 0.4, 0.2]), np.array([1, 0, 1, 0]))
        >>> round(figures.ap_looking, 4), round(figures.ap_not_looking, 4), figures.accuracy
        (0.8333, 0.8333, 0.5)
    """
    scores, labels = checked_scores(scores, labels)
    looking = labels == 1
    called = scores >= THRESHOLD
    hits = int(np.count_nonzero(called & looking))
    positives = int(np.count_nonzero(looking))
    false_alarms = int(np.count_nonzero(called)) - hits
    negatives = len(labels) - positives
    counts = (hits, false_alarms, negatives - false_alarms, positives - hits)
    accuracy = (hits + negatives - false_alarms) / len(labels) if len(labels) else None
    if not positives or not negatives:
        missing = "no rows" if not len(labels) else "no looking frames" if not positives else "no not-looking frames"
        return Metrics(None, None, None, accuracy, *counts, note=f"AP is undefined: {missing}")
    best_first, worst_first = sorted_labels(scores, looking)
    ap_looking, ap_not_looking = _average_precision_of(best_first), _average_precision_of(~worst_first)
    return Metrics((ap_looking + ap_not_looking) / 2, ap_looking, ap_not_looking, accuracy, *counts)


def checked_scores(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Check scores and labels, both (N,), and return them as arrays; raises a UserError as `lam_map` does."""
    scores = np.asarray(scores, dtype=np.float64)
    labels = np.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise UserError(f"scores of shape {scores.shape} and labels of shape {labels.shape}: both must be (N,)")
    if not len(scores):
        return scores, labels
    if not (scores.min() >= 0 and scores.max() <= 1):  # false for NaN too
        bad = ~((scores >= 0) & (scores <= 1))
        raise UserError(f"{bad.sum()} scores are NaN or outside [0, 1], the first is {scores[bad][0]}")
    unknown = (labels != 0) & (labels != 1)
    if unknown.any():
        raise UserError(f"{unknown.sum()} labels are neither 0 nor 1, the first is {labels[unknown][0]}")
    return scores, labels


def sorted_labels(scores: np.ndarray, looking: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort labels by score, ties evenly mixed: bool (N,) from the highest score down, and from the lowest up."""
    # The bits of a non-negative float64 sort like an int64, and below 2.0 the two highest bits are 0. So each score and
    # its label fit into one integer, and sorting these is faster than argsort and indexing.
    packed = ((scores + 0.0).view(np.int64) << 1) | looking  # + 0.0 makes -0.0 positive
    packed.sort()
    packed = packed[::-1]
    looking = (packed & 1).astype(bool)
    down, up = mix_ties(packed >> 1, looking)
    return looking[down], looking[up]


def mix_ties(
    ranked: np.ndarray, looking: np.ndarray, clip: np.ndarray | None = None
) -> tuple[slice | np.ndarray, slice | np.ndarray]:
    """Mix the ties of rows that are sorted from the highest score to the lowest.

    Within a tie, the k-th of p looking rows is placed at (k - 1/2) / p, and so are the not-looking rows, which come
    first if places are equal.

    Args:
        ranked: (N,) scores, or any numbers with the same order and ties.
        looking: bool (N,).
        clip: int (N,); orders rows of equal score and label. Needed only if the caller weights clips.

    Returns:
        Two indices into the rows: from the highest score to the lowest, and from the lowest to the highest.
    """
    same = ranked[1:] == ranked[:-1]
    if not same.any():
        return slice(None), slice(None, None, -1)
    group = np.cumsum(np.concatenate([[0], ~same]))
    size, own = np.bincount(group), np.bincount(group, looking)
    slots = np.flatnonzero(((own > 0) & (own < size))[group])
    group, label = group[slots], looking[slots].astype(np.int64)
    alike = np.lexsort((np.zeros(len(slots)) if clip is None else clip[slots], label, group))
    starts = np.flatnonzero(np.diff(2 * group[alike] + label[alike], prepend=-1))
    counts = np.diff(np.append(starts, len(alike)))
    place = np.empty(len(slots))
    place[alike] = (np.arange(len(alike)) - np.repeat(starts, counts) + 0.5) / np.repeat(counts, counts)
    down = np.arange(len(ranked))
    up = down[::-1].copy()
    down[slots] = slots[np.lexsort((label, place, group))]
    up[len(ranked) - 1 - slots[::-1]] = slots[np.lexsort((label, place, -group))]
    return down, up


def _average_precision_of(hits: np.ndarray) -> float:
    """VOC average precision of a ranking, best first: bool (N,), at least one True."""
    rank = np.flatnonzero(hits) + 1
    precision = np.arange(1, len(rank) + 1) / rank  # at the hits; between them it only falls
    return float(np.maximum.accumulate(precision[::-1]).mean())
