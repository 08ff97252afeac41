"""95 % intervals by bootstrap over clips and seeds, and the threshold that resampled clips agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.evaluation.metrics import NAMES, THRESHOLD, checked_scores, mix_ties
from registry import UserError

STEPS = np.arange(1, 100) / 100  # thresholds that are tried

# Elements of one block of resampled weights: about 2 MB as float64, what a core's cache holds.
BLOCK = 1 << 18

# Ranks that resamples tell apart. More are merged with their neighbours in rank, which moves a resample's mAP
# by less than 0.0001: measured at a million rows, and a fiftieth of what a thousand resamples leave uncertain.
RANK_BINS = 1 << 14


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
        checked_scores(table[0], labels)
        note = "no interval: clips are what is resampled, and there is only one" if count else "no interval: no rows"
        return Interval(dict.fromkeys(NAMES), count, seeds, repeats, 0, note)
    draws = random.multinomial(count, np.full(count, 1 / count), size=repeats).astype(np.float64)
    with threadpool_limits(1, user_api="blas"):  # thousands of small products: threads would wait for each other
        for number in range(seeds):
            values[:, number] = resampled(*checked_scores(table[number], labels), clip, draws)
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
    down, up = mix_ties(scores[order], labels[order] == 1, None if clip is None else clip[order])
    return order[down], order[up]


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
    clips, bins = draws.shape[1], min(len(scores), RANK_BINS)
    bin_of_rank = np.arange(len(scores)) * bins // max(len(scores), 1)
    values = np.empty((len(NAMES), len(draws)))
    step = max(1, BLOCK // max(bins, 1))
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
