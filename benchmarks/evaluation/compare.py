"""Whether two rows differ: their paired difference in mAP with a 95 % interval, and p by permutation.

A figure of a row varies with the seeds it was trained with and with the clips it was scored on, and the two rows share
the clips and often the seeds. That is the design of reader studies in radiology (many readers judge the same cases in
two ways: seeds are the readers, clips the cases), and their arithmetic is used here: jackknife over the cases, readers
and cases both random (Dorfman, Berbaum and Metz 1992; degrees of freedom in the manner of Hillis 2007).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.evaluation.bootstrap import resampled

# Permutations that p is computed from.
SWAPS = 1000


@dataclass(frozen=True)
class Scored:
    """The mAP of a row's trainings on one set of key frames, and what each clip does to it.

    Attributes:
        seeds: S of them.
        map: float64 (S,), a fraction.
        clips: C names, in order.
        without: float64 (S, C), mAP of all clips but one; NaN where that leaves one class.
    """

    seeds: tuple[int, ...]
    map: np.ndarray
    clips: tuple[str, ...]
    without: np.ndarray


@dataclass(frozen=True)
class Difference:
    """By how much the mean mAP of one row lies above that of another, as fractions.

    Attributes:
        value: mean over the seeds of the one minus mean over the seeds of the other.
        low: where the 95 % interval begins.
        high: where it ends.
        of_clips: of the variance that other clips would cause the share that the seeds do not show already.
        seed_error: standard error that other seeds would cause; 0 where no row has two.
        seed_freedom: degrees of freedom that it is known with.
    """

    value: float
    low: float
    high: float
    of_clips: float
    seed_error: float
    seed_freedom: float

    @property
    def includes_zero(self) -> bool:
        """Whether the rows cannot be told apart."""
        return self.low <= 0 <= self.high


def without_each_clip(scores: np.ndarray, labels: np.ndarray, clips: np.ndarray) -> dict[str, list[float | None]]:
    """Compute what `difference` needs of a row beside its mAP, small enough for a record.

    Args:
        scores: (S, N) P(looking) of S seeds.
        labels: (N,) 0 or 1.
        clips: (N,) names.

    Returns:
        Clip, in the order of their names -> mAP of all other clips, one per seed, to six decimals; None where they have
        one class only.
    """
    names, clip = np.unique(np.asarray(clips, dtype=str), return_inverse=True)
    others = 1.0 - np.eye(len(names))
    # Of a single clip nothing is left without it.
    with threadpool_limits(1, user_api="blas"), np.errstate(invalid="ignore"):
        values = np.array([resampled(of_seed, labels, clip, others)[0] for of_seed in scores])
    return {
        str(name): [None if math.isnan(value) else round(float(value), 6) for value in column]
        for name, column in zip(names, values.T, strict=True)
    }


def scored(seeds: Sequence[int], per_seed: Sequence[float], without: dict[str, list[float | None]]) -> Scored:
    """A row as `difference` takes it, from a record's `seeds`, mAP `per_seed` and `without_clip`."""
    values = np.array([without[name] for name in without], dtype=np.float64).T  # None becomes NaN
    return Scored(tuple(seeds), np.array(per_seed, dtype=np.float64), tuple(without), values)


def difference(a: Scored, b: Scored) -> Difference | None:
    """Compute how far `a` lies above `b`, and a 95 % interval for other seeds and other clips.

    Each seed and clip has a pseudo-value, the mAP of all clips C times less that of the others C - 1 times. Of the
    differences of pseudo-values three variances of the mean are formed: between seeds, between clips, and of what is
    left in the single cells. What varies from cell to cell is part of the first two, so it is taken off once:
    `seeds + max(clips - cells, 0)`, with Student's quantile at Satterthwaite's degrees of freedom.

    Seeds of one number are a pair and count as one draw; others are independent. A row of one seed borrows the spread
    of the other row's; where neither has more, the interval is of other clips alone.

    Args:
        a: one row.
        b: another, over the same clips.

    Returns:
        Difference, or None where there are fewer than two clips, or where one clip holds all frames of a class.
    """
    from scipy.special import stdtrit

    if a.clips != b.clips:
        raise ValueError("rows over different clips cannot be paired")
    count = len(a.clips)
    if count < 2 or np.isnan(a.without).any() or np.isnan(b.without).any():
        return None
    clips_a, clips_b = (-(count - 1) * (row.without - row.without.mean(axis=1, keepdims=True)) for row in (a, b))
    of_clips = _squared(clips_a.mean(axis=0) - clips_b.mean(axis=0)) / (count * (count - 1))
    of_seeds = _squared(_by_seed(a, b, a.map[:, None], b.map[:, None]))
    of_cells = _squared(_by_seed(a, b, clips_a, clips_b)) / (count * (count - 1))
    beyond = max(of_clips - of_cells, 0.0)
    variance = of_seeds + beyond
    value = float(a.map.mean() - b.map.mean())
    freedom = _freedom(a, b) if of_seeds else math.inf
    squares = beyond**2 / (count - 1) + of_seeds**2 / freedom
    reach = float(stdtrit(variance**2 / squares, 0.975)) * math.sqrt(variance) if variance else 0.0
    share = beyond / of_clips if of_clips else 0.0
    return Difference(value, value - reach, value + reach, share, math.sqrt(of_seeds), freedom)


def permutation_p(
    found: Difference, scores_a: np.ndarray, scores_b: np.ndarray, labels: np.ndarray, clips: np.ndarray, seed: int = 0
) -> float:
    """Compute how often a difference as large as `found` comes about where there is none.

    What is exchanged are the rows within a clip, for all seeds and frames of it at once: frames of a clip are anything
    but independent, and the rows' ranks change places, since scores of two models are not on one scale (Venkatraman and
    Begg 1996). But a training that came out well is better on all clips, which no swap within clips shows: two sets of
    seeds of one recipe would differ "significantly". So each swap's difference is taken together with what other seeds
    would add, Student's t with the spread and freedom that the interval has; permuting the trainings themselves could
    not give a p below 2 / 2^5 with five paired seeds, however large the difference. Of the swaps' variance the part
    counts that the seeds do not show already.

    Args:
        found: of `difference`.
        scores_a: (S, N) P(looking) of each seed of the one row; in the order of the seeds.
        scores_b: likewise of the other, of the same key frames.
        labels: (N,) 0 or 1.
        clips: (N,) names.
        seed: of the permutations.

    Returns:
        p, two-sided, above 0.
    """
    from scipy.special import stdtr

    swapped = math.sqrt(found.of_clips) * _swapped_clips(scores_a, scores_b, labels, clips, seed)
    size = abs(found.value) - 1e-12  # sums of the same numbers in another order count as equal
    if found.seed_error == 0:
        beyond = (np.abs(swapped) >= size).astype(np.float64)
    else:
        below, above = (-size - swapped) / found.seed_error, (swapped - size) / found.seed_error
        beyond = stdtr(found.seed_freedom, below) + stdtr(found.seed_freedom, above)
    return min(1.0, (float(beyond.sum()) + 1) / (len(beyond) + 1))


def _swapped_clips(
    scores_a: np.ndarray, scores_b: np.ndarray, labels: np.ndarray, clips: np.ndarray, seed: int
) -> np.ndarray:
    """Differences of means after the rows change places in a random half of the clips, all seeds in the same ones."""
    names, clip = np.unique(np.asarray(clips, dtype=str), return_inverse=True)
    turned = np.random.default_rng(seed).integers(2, size=(SWAPS, len(names))).astype(np.float64)
    # Both rows' frames in one list, each row's clips as clips of their own: a swap is a choice of clips.
    one, other = np.hstack([1 - turned, turned]), np.hstack([turned, 1 - turned])
    both_labels, both_clips = np.tile(labels, 2), np.concatenate([clip, clip + len(names)])
    found = np.zeros(SWAPS)
    pairs = max(len(scores_a), len(scores_b))
    with threadpool_limits(1, user_api="blas"):
        for number in range(pairs):
            ranks = [_ranks(scores[number % len(scores)]) for scores in (scores_a, scores_b)]
            values = resampled(np.concatenate(ranks), both_labels, both_clips, np.concatenate([one, other]))[0]
            found += (values[:SWAPS] - values[SWAPS:]) / pairs
    return found


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks in (0, 1], ascending; ties share their mean rank."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place] / len(scores)


def _squared(shares: np.ndarray) -> float:
    return float((shares**2).sum())


def _by_seed(a: Scored, b: Scored, of_a: np.ndarray, of_b: np.ndarray) -> np.ndarray:
    """What each seed adds to the difference of means, so scaled that the squares sum to the variance of that.

    Args:
        a: one row.
        b: the other.
        of_a: (S, K) K quantities of the seeds of `a`.
        of_b: likewise.

    Returns:
        (U, K), a row a seed; seeds that both have share one, so that what they have in common goes.
    """
    every = sorted({*a.seeds, *b.seeds})
    shares = np.zeros((len(every), of_a.shape[1]))
    lent = 0.0
    for row, other, values, sign in ((a, b, of_a, 1), (b, a, of_b, -1)):
        size = len(row.seeds)
        if size > 1:
            own = sign * (values - values.mean(axis=0)) / math.sqrt(size * (size - 1))
            shares[[every.index(seed) for seed in row.seeds]] += own
            if len(other.seeds) == 1:
                lent = own * math.sqrt(size)
    return shares if isinstance(lent, float) else np.concatenate([shares, lent])


def _freedom(a: Scored, b: Scored) -> float:
    """Degrees of freedom of the seeds' part: of pairs, or Welch's of two samples."""
    sizes = [len(row.seeds) for row in (a, b)]
    if set(a.seeds) == set(b.seeds) or min(sizes) == 1:
        return max(sizes) - 1
    first, second = (float(row.map.var(ddof=1)) / size for row, size in zip((a, b), sizes, strict=True))
    return (first + second) ** 2 / (first**2 / (sizes[0] - 1) + second**2 / (sizes[1] - 1))


def sentence(a: str, b: str, found: Difference, p: float) -> str:
    """What a comparison means, in one sentence; figures in points of mAP.

    Args:
        a: name of the one row.
        b: name of the other.
        found: by how much `a` lies above `b`.
        p: of `permutation_p`.
    """
    side = "above" if found.value > 0 else "below"
    start = f"{a} is {100 * abs(found.value):.2f} points {side} {b}; the interval {100 * found.low:.2f} to "
    if found.includes_zero:
        return f"{start}{100 * found.high:.2f} includes 0: these runs cannot tell them apart."
    better = a if found.value > 0 else b
    doubt = "" if p < 0.05 else f", though p = {p:.2g} leaves a doubt that more seeds would settle"
    return f"{start}{100 * found.high:.2f} excludes 0: {better} is the better one{doubt}."
