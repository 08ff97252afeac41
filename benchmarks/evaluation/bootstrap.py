"""Bootstrap over clips and seeds: 95 % intervals, and the best threshold averaged over resamples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.evaluation.metrics import NAMES, THRESHOLD, checked_scores, mix_ties
from registry import UserError

STEPS = np.arange(1, 100) / 100  # candidate thresholds of `best_threshold`
RESAMPLES = 1000  # of `best_threshold`

# Elements per block of resampled weights: about 2 MB as float64, which fits a core's cache.
BLOCK = 1 << 18

# Neighbouring ranks are merged into this many bins. At a million rows that moves a resample's mAP by less than 0.0001,
# a fiftieth of the uncertainty that a thousand resamples leave.
RANK_BINS = 1 << 14

# Ties are mixed before clips are drawn, which is fast, and right unless a tie holds many rows: of a constant score the
# resamples would have an mAP several points too high. Above this share of the rows, ties are mixed in each resample.
WIDE_TIE = 0.01


def best_threshold(looks: np.ndarray, labels: np.ndarray, clips: np.ndarray) -> float:
    """Choose the threshold with the best F1 for looking frames: the mean over resamples of the clips.

    F1 is flat around its maximum, so the best threshold of a single set of clips is unstable. Averaging it over sets
    drawn with replacement stabilises it ("bagging", Breiman 1996). The draws are the same in every call.

    Args:
        looks: ``(N, 99)`` bool, the frames called looking at each of `STEPS`.
        labels: ``(N,)`` 1 for looking, 0 for not.
        clips: ``(N,)`` the clip of each frame.

    Returns:
        0.01 to 0.99, in hundredths; `THRESHOLD` if no frame is labelled looking.
    """
    if not (labels == 1).any():
        return THRESHOLD
    number = np.unique(clips, return_inverse=True)[1]
    count = int(number.max()) + 1
    called = np.stack([np.bincount(number, each, count) for each in looks.T], axis=1)
    found = np.stack([np.bincount(number, each & (labels == 1), count) for each in looks.T], axis=1)
    looking = np.bincount(number, labels == 1, count)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    drawn = drawn[drawn @ looking > 0]
    f1 = 2 * (drawn @ found) / (drawn @ called + (drawn @ looking)[:, None])
    best = f1 == f1.max(axis=1, keepdims=True)  # often several thresholds per resample
    return round(float((best @ STEPS / best.sum(axis=1)).mean()), 2)


@dataclass(frozen=True)
class Interval:
    """95 % intervals of the figures in `NAMES`.

    Attributes:
        bounds: figure -> (low, high); None if undefined.
        clips: number of clips.
        seeds: number of seeds.
        repeats: number of resamples.
        undefined: resamples left out because they lack a class.
        note: why bounds are None or resamples are left out.
    """

    bounds: dict[str, tuple[float, float] | None]
    clips: int
    seeds: int
    repeats: int
    undefined: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return everything in a form that JSON can hold, bounds as [low, high]."""
        values: dict[str, Any] = {name: list(pair) if pair else None for name, pair in self.bounds.items()}
        values.update(level=0.95, clips=self.clips, seeds=self.seeds, repeats=self.repeats, undefined=self.undefined)
        if self.note:
            values["note"] = self.note
        return values


def bootstrap_interval(
    scores: np.ndarray, labels: np.ndarray, clips: np.ndarray, repeats: int = 1000, seed: int = 0
) -> Interval:
    """Compute 95 % intervals by resampling clips, and seeds if there are several.

    Frames of a clip are far from independent, so each resample draws whole clips with replacement, as many as there
    are. With S seeds it also draws S of them with replacement and averages their figures on the drawn clips (a nested
    bootstrap of the mean over seeds). The bounds are percentiles (Efron and Tibshirani 1993, chapter 13), expanded for
    few clips and seeds (`tail_share`): with 30 clips, plain percentiles would miss the truth 7 times in 100, not 5.

    Args:
        scores: (N,) P(looking), or (S, N) of S seeds.
        labels: (N,) 0 or 1.
        clips: (N,) the clip of each row, any type.
        repeats: number of resamples.
        seed: of the draws. The bounds do not depend on the order of rows.

    Returns:
        Bounds are None with fewer than two clips, or if most resamples lack a class.

    Raises:
        UserError: as `lam_map`, or there is not one clip per row.

    Example:
        >>> scores = np.array([0.9, 0.2, 0.8, 0.4, 0.6, 0.1])
        >>> interval = bootstrap_interval(scores, np.array([1, 0, 1, 0, 0, 1]), np.array(list("aabbcc")))
        >>> [round(bound, 3) for bound in interval.bounds["accuracy"]]
        [0.0, 1.0]
    """
    table = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    names, clip = np.unique(np.asarray(clips), return_inverse=True)
    if len(clip) != table.shape[1]:
        raise UserError(f"{table.shape[1]} scores but {len(clip)} clips; there must be one clip per row")
    random = np.random.default_rng(seed)
    seeds, count = len(table), len(names)
    values = np.empty((len(NAMES), seeds, repeats))
    if count < 2:
        checked_scores(table[0], labels)
        note = "no interval: clips are resampled, and there is only one" if count else "no interval: no rows"
        return Interval(dict.fromkeys(NAMES), count, seeds, repeats, 0, note)
    draws = random.multinomial(count, np.full(count, 1 / count), size=repeats).astype(np.float64)
    with threadpool_limits(1, user_api="blas"):  # threads would slow down thousands of small products
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
        tail = tail_share(by_seed[:, known], count)
        low, high = np.quantile(row[known], (tail, 1 - tail)).tolist()
        bounds[name] = low, high
    undefined = int(np.isnan(means[0]).sum())
    note = f"{undefined} of {repeats} resamples lack a class and are left out" if undefined else ""
    return Interval(bounds, count, seeds, repeats, undefined, note)


def tail_share(values: np.ndarray, clips: int) -> float:
    """Share of resamples to cut off on each side, so that 95 % of the intervals contain the truth.

    Resamples of n units spread too little, by a factor sqrt((n - 1) / n), and small samples have the tails of Student's
    t. So the normal quantile 1.96 of a plain percentile interval is replaced by Student's, divided by that factor
    (Hesterberg 2015, "What Teachers Should Know about the Bootstrap"). Clips and seeds each have their own n; their
    degrees of freedom are combined by Satterthwaite's formula.

    Args:
        values: (S, R) one figure of S seeds in R resamples of the clips.
        clips: number of clips.
    """
    from scipy.special import ndtr, stdtrit

    seeds = len(values)
    of_clips = float(values.mean(axis=0).var()) * clips / (clips - 1)
    of_seeds = float(values.mean(axis=1).var(ddof=1)) / seeds if seeds > 1 else 0.0
    if of_clips + of_seeds == 0:
        return 0.025
    squares = of_clips**2 / (clips - 1) + (of_seeds**2 / (seeds - 1) if seeds > 1 else 0.0)
    shown = of_clips * (clips - 1) / clips + of_seeds * (seeds - 1) / seeds  # the resamples' variance
    widening = np.sqrt((of_clips + of_seeds) / shown) if shown else 1.0
    return float(ndtr(-widening * stdtrit((of_clips + of_seeds) ** 2 / squares, 0.975)))


def _rankings(scores: np.ndarray, labels: np.ndarray, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers from the highest score to the lowest, and from the lowest to the highest; ties as in `mix_ties`."""
    order = np.argsort(scores)[::-1]
    down, up = mix_ties(scores[order], labels[order] == 1, clip[order])
    return order[down], order[up]


def _average_precision(gain: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """VOC average precision along the last axis.

    Args:
        gain: (..., G) weight of the class at each rank, best first.
        loss: (..., G) weight of the other class.

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
    """Compute the figures of R resamples of the clips, with a single sort of the rows.

    Args:
        scores: (N,) P(looking) of one seed.
        labels: (N,) 0 or 1.
        clip: int (N,) number of the clip.
        draws: float64 (R, C) weight of each clip.

    Returns:
        float64 (4, R) in the order of `NAMES`, NaN if a class is missing. mAP is exact for up to 16,384 rows without
        ties, or with a wide one, and within 0.0001 for more.
    """
    values = np.empty((len(NAMES), len(draws)))
    wide = len(scores) and np.unique(scores, return_counts=True)[1].max() > max(1, WIDE_TIE * len(scores))
    values[1:3] = (_mixed_after_drawing if wide else _mixed_before_drawing)(scores, labels, clip, draws)
    both = ~np.isnan(values[1] + values[2])
    values[1:3, ~both] = np.nan
    values[0] = (values[1] + values[2]) / 2
    correct = np.bincount(clip, (scores >= THRESHOLD) == (labels == 1), minlength=draws.shape[1])
    values[3] = (draws @ correct) / (draws @ np.bincount(clip, minlength=draws.shape[1]))
    return values


def _mixed_before_drawing(scores: np.ndarray, labels: np.ndarray, clip: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """AP of looking and of not looking, (2, R), of R resamples; arguments as in `resampled`."""
    clips, bins = draws.shape[1], min(len(scores), RANK_BINS)
    bin_of_rank = np.arange(len(scores)) * bins // max(len(scores), 1)
    values = np.empty((2, len(draws)))
    step = max(1, BLOCK // max(bins, 1))
    for figure, own, order in zip((0, 1), (1, 0), _rankings(scores, labels, clip), strict=True):
        cell = clip[order] * bins + bin_of_rank
        ours = np.bincount(cell, labels[order] == own, clips * bins).reshape(clips, bins)
        others = np.bincount(cell, minlength=clips * bins).reshape(clips, bins) - ours
        for begin in range(0, len(draws), step):
            block = slice(begin, begin + step)
            values[figure, block] = _average_precision(draws[block] @ ours, draws[block] @ others)
    return values


def _mixed_after_drawing(scores: np.ndarray, labels: np.ndarray, clip: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Like `_mixed_before_drawing`, for whole weights: the rows of each tie are mixed in each resample."""
    order = np.argsort(-scores)
    starts = np.flatnonzero(np.diff(-scores[order], prepend=-np.inf))
    looking, of_rows = (labels[order] == 1).astype(np.int64), clip[order]
    values = np.empty((2, len(draws)))
    for number, draw in enumerate(draws.astype(np.int64)):
        weight = draw[of_rows]
        ours = np.add.reduceat(weight * looking, starts)
        others = np.add.reduceat(weight, starts) - ours
        values[:, number] = _ties_precision(ours, others, True), _ties_precision(others[::-1], ours[::-1], False)
    return values


def _ties_precision(own: np.ndarray, others: np.ndarray, others_first: bool) -> float:
    """VOC average precision of a class whose ties are mixed evenly, as by `benchmarks.evaluation.metrics.mix_ties`.

    Args:
        own: int (G,) rows of the class in each tie, best first.
        others: int (G,) other rows in each tie.
        others_first: whether other rows come first if places are equal.

    Returns:
        Fraction; NaN if the class has no row.
    """
    hits = np.arange(1, own.sum() + 1)
    if not len(hits):
        return np.nan
    tie = np.repeat(np.arange(len(own)), own)
    p, q, place = own[tie], others[tie], hits - (np.cumsum(own) - own)[tie]
    # Of q others at (j - 1/2) / q, those before the k-th of p own at (k - 1/2) / p.
    within = (q * (2 * place - 1) + p - (not others_first)) // (2 * p)
    precision = hits / (hits + (np.cumsum(others) - others)[tie] + within)
    return float(np.maximum.accumulate(precision[::-1]).mean())
