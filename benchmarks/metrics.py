"""Figures of the benchmark: mAP over looking and not looking, accuracy, confusion, intervals by bootstrap over clips.

All figures are fractions. Everything is independent of the order of rows: rows of equal score enter the ranking
together, their looking and not-looking frames evenly mixed. (The published program ranks equal scores by their place in
the file, so on tied scores its figure is one of many; ours is that of the one order that favours neither class.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from registry import UserError

THRESHOLD = 0.5  # a frame is called looking when its score is not below this
STEPS = np.arange(1, 100) / 100  # thresholds that are tried
NAMES = ("mAP", "AP.looking", "AP.not_looking", "accuracy")

# Elements of one block of resampled weights: about 2 MB as float64, what a core's cache holds.
_BLOCK = 1 << 18

# Ranks that resamples tell apart. More are merged with their neighbours in rank, which moves a resample's mAP
# by less than 0.0001: measured at a million rows, and a fiftieth of what a thousand resamples leave uncertain.
_BINS = 1 << 14


@dataclass(frozen=True)
class Metrics:
    """Figures of one set of scores; None where a figure is undefined, and then `note` says why.

    Confusion counts at the threshold 0.5: `true_positives` are looking frames called looking, and so on.
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
        """Return the figures under the names of `NAMES`, with the counts, ready for JSON."""
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


def best_threshold(looks: np.ndarray, labels: np.ndarray, clips: np.ndarray, resamples: int = 1000) -> float:
    """The threshold, in hundredths, at which looking frames are found with the best F1, as a mean over drawn clips.

    About the best, F1 hardly depends on the threshold, so that of one set of clips lies now here, now there; the mean
    over sets that are drawn from them with replacement ("bagging", Breiman 1996) lies about the middle.

    Args:
        looks: ``(N, 99)`` bool, the frames that are found at each of `STEPS`.
        labels: ``(N,)`` 1 for looking, 0 for not.
        clips: ``(N,)`` which clip each frame is of.
        resamples: sets of clips that are drawn, always the same ones.

    Returns:
        Between 0.01 and 0.99; `THRESHOLD` where no frame looks.
    """
    if not (labels == 1).any():
        return THRESHOLD
    number = np.unique(clips, return_inverse=True)[1]
    count = int(number.max()) + 1
    called = np.stack([np.bincount(number, each, count) for each in looks.T], axis=1)
    found = np.stack([np.bincount(number, each & (labels == 1), count) for each in looks.T], axis=1)
    looking = np.bincount(number, labels == 1, count)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), resamples)
    drawn = drawn[drawn @ looking > 0]
    f1 = 2 * (drawn @ found) / (drawn @ called + (drawn @ looking)[:, None])
    best = f1 == f1.max(axis=1, keepdims=True)  # often several in a row
    return round(float((best @ STEPS / best.sum(axis=1)).mean()), 2)


def lam_map(scores: np.ndarray, labels: np.ndarray) -> Metrics:
    """Compute the Ego4D Looking-At-Me figures of one set of scores.

    mAP is the mean of two average precisions: of looking, ranked by score, and of not looking, ranked by 1 - score.
    Each is VOC's (2010 on): at every recall the highest precision reached there or further down the list, and the area
    under that staircase. scikit-learn's `average_precision_score` takes the precision at each recall as it is, so it
    is never above this and equals it where precision only falls.

    Args:
        scores: (N,) P(looking), in [0, 1].
        labels: (N,) 1 looking, 0 not looking.

    Returns:
        Metrics; with one class only, or no rows, the average precisions are None.

    Raises:
        UserError: lengths differ, a score is NaN or outside [0, 1], or a label is neither 0 nor 1.

    Example:
        >>> figures = lam_map(np.array([0.9, 0.6, 0.4, 0.2]), np.array([1, 0, 1, 0]))
        >>> round(figures.ap_looking, 4), round(figures.ap_not_looking, 4), figures.accuracy
        (0.8333, 0.8333, 0.5)
    """
    scores, labels = _checked(scores, labels)
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


@dataclass(frozen=True)
class Interval:
    """95 % intervals (low, high) by the name of the figure, None where undefined, and what they rest on."""

    bounds: dict[str, tuple[float, float] | None]
    clips: int
    seeds: int
    repeats: int
    undefined: int  # resamples without one of the classes, left out
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return everything ready for JSON: bounds as [low, high]."""
        values: dict[str, Any] = {name: list(pair) if pair else None for name, pair in self.bounds.items()}
        values.update(level=0.95, clips=self.clips, seeds=self.seeds, repeats=self.repeats, undefined=self.undefined)
        if self.note:
            values["note"] = self.note
        return values


def bootstrap_interval(
    scores: np.ndarray, labels: np.ndarray, clips: np.ndarray, repeats: int = 1000, seed: int = 0
) -> Interval:
    """Compute 95 % intervals by drawing clips, and seeds where there are several, with replacement.

    Frames of a clip are anything but independent, so whole clips are drawn, as many as there are. With the scores of S
    trainings each repeat also draws S of them with replacement, scores them on the same drawn clips and takes the mean:
    the interval of "mean over seeds", nested. Percentile bounds (Efron and Tibshirani 1993, chapter 13), expanded for
    few clips and seeds (`_tail`): of 30 clips the plain ones would miss the truth 7 times in 100, not 5.

    Args:
        scores: (N,) P(looking), or (S, N) of S seeds.
        labels: (N,) 0 or 1.
        clips: (N,) the clip of each row, any type.
        repeats: resamples.
        seed: of the draws; equal inputs give equal bounds, in any order of rows.

    Returns:
        Interval; bounds are None with fewer than two clips, or when most resamples lack a class.

    Raises:
        UserError: as `lam_map`.
    """
    table = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    names, clip = np.unique(np.asarray(clips), return_inverse=True)
    if len(clip) != table.shape[1]:
        raise UserError(f"{table.shape[1]} scores but {len(clip)} clips: there must be one clip a row")
    random = np.random.default_rng(seed)
    seeds, count = len(table), len(names)
    values = np.empty((len(NAMES), seeds, repeats))
    if count < 2:
        _checked(table[0], labels)
        note = "no interval: clips are what is resampled, and there is only one" if count else "no interval: no rows"
        return Interval(dict.fromkeys(NAMES), count, seeds, repeats, 0, note)
    draws = random.multinomial(count, np.full(count, 1 / count), size=repeats).astype(np.float64)
    with threadpool_limits(1, user_api="blas"):  # thousands of small products: threads would wait for each other
        for number in range(seeds):
            values[:, number] = resampled(*_checked(table[number], labels), clip, draws)
    drawn = random.integers(seeds, size=(repeats, seeds))  # with one seed, that seed
    means = values[:, drawn, np.arange(repeats)[:, None]].mean(axis=-1)  # (4, repeats)
    bounds: dict[str, tuple[float, float] | None] = {}
    for name, row, by_seed in zip(NAMES, means, values, strict=True):
        known = ~np.isnan(row)
        if 2 * known.sum() <= repeats:
            bounds[name] = None
            continue
        tail = _tail(by_seed[:, known], count)
        low, high = np.quantile(row[known], (tail, 1 - tail)).tolist()
        bounds[name] = low, high
    undefined = int(np.isnan(means[0]).sum())
    note = f"{undefined} of {repeats} resamples lack a class and are left out" if undefined else ""
    return Interval(bounds, count, seeds, repeats, undefined, note)


def _tail(values: np.ndarray, clips: int) -> float:
    """Share of the resamples to leave out on either side so that 95 % of the intervals hold the truth.

    Resamples of n spread by sqrt((n - 1) / n) less than what they imitate, and the tails of few are Student's, not
    Gauss's: where the plain percentile is taken at the normal quantile 1.96 the expanded one is taken at Student's,
    times the root (Hesterberg 2015, "What Teachers Should Know about the Bootstrap"). Clips and seeds have each their
    n; degrees of freedom of both together by Satterthwaite.

    Args:
        values: (S, R) one figure of S seeds in R resamples of the clips.
        clips: how many clips there are.
    """
    from scipy.special import ndtr, stdtrit

    seeds = len(values)
    of_clips = float(values.mean(axis=0).var()) * clips / (clips - 1)
    of_seeds = float(values.mean(axis=1).var(ddof=1)) / seeds if seeds > 1 else 0.0
    if of_clips + of_seeds == 0:
        return 0.025
    squares = of_clips**2 / (clips - 1) + (of_seeds**2 / (seeds - 1) if seeds > 1 else 0.0)
    shown = of_clips * (clips - 1) / clips + of_seeds * (seeds - 1) / seeds  # by the resamples
    widening = np.sqrt((of_clips + of_seeds) / shown) if shown else 1.0
    return float(ndtr(-widening * stdtrit((of_clips + of_seeds) ** 2 / squares, 0.975)))


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _rankings(scores: np.ndarray, labels: np.ndarray, clip: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers from the highest score to the lowest, and from the lowest to the highest.

    Among rows of equal score looking and not-looking ones alternate as evenly as their numbers allow: the k-th of p
    looking ones stands at (k - 1/2) / p of the way, and so do the not-looking ones, which go first where places meet.
    Both rankings take them in that sequence, as the published program takes both in the order of its file.

    Args:
        scores: (N,).
        labels: (N,).
        clip: (N,) int; settles which of several rows of one score and label comes first, where that matters.
    """
    order = np.argsort(scores)[::-1]
    down, up = _mixed(scores[order], labels[order] == 1, None if clip is None else clip[order])
    return order[down], order[up]


def sorted_labels(scores: np.ndarray, looking: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels in the order of `_rankings`: bool (N,) from the highest score to the lowest, and the other way."""
    # The bits of a float64 that is not negative sort as the integer that they are, and those of 0 to 1 leave the two
    # highest free: with the label put below, sorting numbers does what sorting row numbers and two look-ups would.
    packed = ((scores + 0.0).view(np.int64) << 1) | looking  # + 0.0 makes -0.0 positive
    packed.sort()
    packed = packed[::-1]
    looking = (packed & 1).astype(bool)
    down, up = _mixed(packed >> 1, looking)
    return looking[down], looking[up]


def _mixed(
    ranked: np.ndarray, looking: np.ndarray, clip: np.ndarray | None = None
) -> tuple[slice | np.ndarray, slice | np.ndarray]:
    """Both orders of `_rankings` for rows that stand from the highest score to the lowest: an index into the rows.

    Args:
        ranked: (N,) scores, or numbers in their order and equal where they are.
        looking: bool (N,).
        clip: as for `_rankings`.
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
    """VOC average precision of rows, best first, of which each counts once: bool (N,), at least one True."""
    rank = np.flatnonzero(hits) + 1
    precision = np.arange(1, len(rank) + 1) / rank  # between two hits it only falls
    return float(np.maximum.accumulate(precision[::-1]).mean())


def _average_precision(gain: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """VOC average precision along the last axis.

    Args:
        gain: (..., G) weight of the class at each rank, best first.
        loss: (..., G) weight of everything else there.

    Returns:
        (...) fractions; NaN where the class has no weight.
    """
    found = np.cumsum(gain, axis=-1)
    listed = found + np.cumsum(loss, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(listed > 0, found / listed, 0.0)
        best_from_here = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
        return np.einsum("...g,...g->...", best_from_here, gain) / found[..., -1]


def resampled(scores: np.ndarray, labels: np.ndarray, clip: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Compute the figures of clips that count several times or not at all, all at once; rows are sorted once.

    Args:
        scores: (N,) P(looking) of one seed.
        labels: (N,) 0 or 1.
        clip: int (N,) the clip's number.
        draws: float64 (R, C) how often each clip counts.

    Returns:
        float64 (4, R) in the order of `NAMES`, NaN where a class is missing. mAP is exact up to 16,384 rows, beyond
        that to 0.0001.
    """
    clips, bins = draws.shape[1], min(len(scores), _BINS)
    bin_of_rank = np.arange(len(scores)) * bins // max(len(scores), 1)
    values = np.empty((len(NAMES), len(draws)))
    step = max(1, _BLOCK // max(bins, 1))
    for figure, own, order in zip((1, 2), (1, 0), _rankings(scores, labels, clip), strict=True):
        cell = clip[order] * bins + bin_of_rank
        ours = np.bincount(cell, labels[order] == own, clips * bins).reshape(clips, bins)
        others = np.bincount(cell, minlength=clips * bins).reshape(clips, bins) - ours
        for begin in range(0, len(draws), step):
            block = slice(begin, begin + step)
            values[figure, block] = _average_precision(draws[block] @ ours, draws[block] @ others)
    both = ~np.isnan(values[1] + values[2])
    values[1:3, ~both] = np.nan
    values[0] = (values[1] + values[2]) / 2
    correct = np.bincount(clip, (scores >= THRESHOLD) == (labels == 1), minlength=draws.shape[1])
    values[3] = (draws @ correct) / (draws @ np.bincount(clip, minlength=draws.shape[1]))
    return values
