"""Compare two rows: difference in mAP, its 95 % interval, and p by swapping the rows within clips.

A row's mAP varies with its seeds and with the clips it is scored on; two rows share the clips, and some share their
trainings. This is the design of reader studies in radiology, where many readers judge the same cases by two methods:
seeds are the readers, clips the cases. The method is theirs too: a jackknife over cases, with readers and cases both
random (Dorfman, Berbaum and Metz 1992; degrees of freedom as in Hillis 2007).

Where a clip is part of a video with other clips, "clip" means the video throughout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.evaluation.bootstrap import resampled

SWAPS = 1000  # permutations per p
MIN_SEEDS, MIN_CLIPS = 5, 5  # advised if there are too few for an interval


@dataclass(frozen=True)
class Scored:
    """A row's mAP on one set of key frames, with all clips and without each of them.

    Attributes:
        seeds: S seeds.
        map: float64 (S,) fractions.
        clips: C names, sorted.
        without: float64 (S, C) mAP of all clips but one; NaN if the others have one class only.
        trainings: per seed, names of the trainings and initial weights behind it. Seeds of two rows with a name in
            common are paired. Empty if unknown: nothing is paired.
        fixed: whether nothing about the row is drawn, so that its one seed has no spread.
    """

    seeds: tuple[int, ...]
    map: np.ndarray
    clips: tuple[str, ...]
    without: np.ndarray
    trainings: tuple[frozenset[str], ...] = ()
    fixed: bool = False


class SeedSpread(NamedTuple):
    """Variance of mAP over the seeds of one row, estimated from many rows, and its degrees of freedom."""

    variance: float
    freedom: float


@dataclass(frozen=True)
class Difference:
    """Difference between the mean mAPs of two rows, a and b, as fractions.

    Attributes:
        value: mean over the seeds of a, minus mean over the seeds of b.
        low: lower end of the 95 % interval.
        high: upper end.
        error: standard error over clips and seeds.
        of_clips: share of the variance over clips that is not part of the variance over seeds already.
        seed_error: standard error over seeds; 0 if both rows have a single seed.
        seed_freedom: degrees of freedom of `seed_error`.
        freedom: degrees of freedom of the interval.
        seed_count: number of seeds of the row with fewer, of those that have a spread.
        clip_count: number of clips.
        paired: seeds of the first row that are paired with seeds of the second.
    """

    value: float
    low: float
    high: float
    error: float
    of_clips: float
    seed_error: float
    seed_freedom: float
    freedom: float = math.inf
    seed_count: int = MIN_SEEDS
    clip_count: int = MIN_CLIPS
    paired: tuple[int, ...] = ()

    @property
    def too_few(self) -> bool:
        """Whether the runs are too few for an interval: it has under 2 degrees of freedom, or impossible ends."""
        return self.freedom < 2 or self.low < -1 or self.high > 1

    @property
    def includes_zero(self) -> bool:
        """Whether the rows are statistically tied."""
        return self.low <= 0 <= self.high

    @property
    def student_p(self) -> float:
        """Two-sided p of Student's t, the test that belongs to the interval: below 0.05 if it excludes 0."""
        from scipy.special import stdtr

        if self.error == 0:
            return float(self.value == 0)
        return 2 * float(stdtr(self.freedom, -abs(self.value) / self.error))


def without_each_clip(scores: np.ndarray, labels: np.ndarray, clips: np.ndarray) -> dict[str, list[float | None]]:
    """Compute the mAP without each clip, which `difference` needs; small enough for a record.

    Args:
        scores: (S, N) P(looking) of S seeds.
        labels: (N,) 0 or 1.
        clips: (N,) names.

    Returns:
        Clip, sorted by name -> mAP of all other clips per seed, to six decimals; None if they have one class only.
    """
    names, clip = np.unique(np.asarray(clips, dtype=str), return_inverse=True)
    others = 1.0 - np.eye(len(names))
    with threadpool_limits(1, user_api="blas"), np.errstate(invalid="ignore"):  # without a single clip, 0 / 0
        values = np.array([resampled(of_seed, labels, clip, others)[0] for of_seed in scores])
    return {
        str(name): [None if math.isnan(value) else round(float(value), 6) for value in column]
        for name, column in zip(names, values.T, strict=True)
    }


def scored(
    seeds: Sequence[int],
    per_seed: Sequence[float],
    without: Mapping[str, list[float | None]],
    trainings: Sequence[frozenset[str]] = (),
    fixed: bool = False,
) -> Scored:
    """A row for `difference`, from its record's `seeds`, mAP `per_seed`, `without_clip`, and names of its trainings.

    `fixed`: as in `Scored`.
    """
    values = np.array([without[name] for name in without], dtype=np.float64).T  # None becomes NaN
    return Scored(tuple(seeds), np.array(per_seed, dtype=np.float64), tuple(without), values, tuple(trainings), fixed)


def difference(a: Scored, b: Scored, spread: SeedSpread | None = None) -> Difference | None:
    """Compute the difference in mean mAP between two rows, and a 95 % interval over seeds and clips.

    The pseudo-value of a seed and a clip is C times the mAP of all clips minus C - 1 times the mAP without this clip.
    The differences of pseudo-values between the rows give three variances of the mean: between seeds, between clips,
    and of the residuals per cell. The residuals are part of the first two, so they are subtracted once:
    `seeds + max(clips - cells, 0)`, with Student's quantile at Satterthwaite's degrees of freedom.

    Seeds that share a training or initial weights are a pair and count as one draw; other seeds are independent, even
    if their numbers are equal. A row with a single seed is given the spread of the other row, unless it is fixed. If no
    row has several seeds, the interval is over clips alone.

    Args:
        a: one row.
        b: the other, on the same clips.
        spread: of many rows over their seeds. Rows without pairs then have their own spread or this one, whichever is
            larger, with its degrees of freedom: five seeds alone say little about their spread.

    Returns:
        None if there are fewer than two clips, or a single clip holds all frames of a class.

    Raises:
        ValueError: the rows have different clips.
    """
    from scipy.special import stdtrit

    if a.clips != b.clips:
        raise ValueError("rows over different clips cannot be paired")
    count = len(a.clips)
    if count < 2 or np.isnan(a.without).any() or np.isnan(b.without).any():
        return None
    clips_a, clips_b = (-(count - 1) * (row.without - row.without.mean(axis=1, keepdims=True)) for row in (a, b))
    of_clips = _squared(clips_a.mean(axis=0) - clips_b.mean(axis=0)) / (count * (count - 1))
    pairs = paired_seeds(a, b)
    of_cells = _squared(_by_seed(a, b, clips_a, clips_b)) / (count * (count - 1))
    if spread is None or pairs:
        of_seeds = _squared(_by_seed(a, b, a.map[:, None], b.map[:, None]))
        freedom = _freedom(a, b) if of_seeds else math.inf
    else:
        of_seeds = sum(max(_variance(row), spread.variance) / len(row.seeds) for row in (a, b) if not row.fixed)
        freedom = spread.freedom
    beyond = max(of_clips - of_cells, 0.0)
    variance = of_seeds + beyond
    value = float(a.map.mean() - b.map.mean())
    squares = beyond**2 / (count - 1) + of_seeds**2 / freedom
    of_interval = variance**2 / squares if variance else math.inf
    error = math.sqrt(variance)
    reach = float(stdtrit(of_interval, 0.975)) * error if variance else 0.0
    return Difference(
        value,
        value - reach,
        value + reach,
        error=error,
        of_clips=beyond / of_clips if of_clips else 0.0,
        seed_error=math.sqrt(of_seeds),
        seed_freedom=freedom,
        freedom=of_interval,
        seed_count=min((len(row.seeds) for row in (a, b) if not row.fixed), default=MIN_SEEDS),
        clip_count=count,
        paired=tuple(a.seeds[one] for one, _ in pairs),
    )


def paired_seeds(a: Scored, b: Scored) -> list[tuple[int, int]]:
    """Find the seeds of two rows that share a training or initial weights; returns their places in `a` and in `b`."""
    return [
        (one, other)
        for one, of_a in enumerate(a.trainings)
        for other, of_b in enumerate(b.trainings)
        if not of_a.isdisjoint(of_b)
    ]


def permutation_p(
    found: Difference, scores_a: np.ndarray, scores_b: np.ndarray, labels: np.ndarray, clips: np.ndarray
) -> float:
    """Compute the probability of a difference as large as `found` if the rows were equally good.

    This is a permutation test over clips and Student's t over seeds. Each permutation swaps the rows' ranks in a random
    half of the clips. Whole clips are swapped, because frames of a clip are far from independent; ranks, because scores
    of two models are not on one scale (Venkatraman and Begg 1996).

    A lucky training is better on all clips, which swaps within clips do not show, so two sets of seeds of one recipe
    would differ "significantly". Therefore the spread over seeds is added to each permutation as Student's t, with the
    error and degrees of freedom of the interval. (Permuting the trainings instead could not give a p below 2 / 2^5 with
    five paired seeds.) The variance over clips is scaled to the part that the seeds do not contain already.

    Args:
        found: from `difference`.
        scores_a: (S, N) P(looking) of the first row, in the order of its seeds.
        scores_b: (S', N) of the second row, on the same key frames.
        labels: (N,) 0 or 1.
        clips: (N,) names.

    Returns:
        Two-sided p, above 0.
    """
    from scipy.special import stdtr

    swapped = math.sqrt(found.of_clips) * _swapped_clips(scores_a, scores_b, labels, clips)
    size = abs(found.value) - 1e-12  # tolerance for sums in another order
    if found.seed_error == 0:
        beyond = (np.abs(swapped) >= size).astype(np.float64)
    else:
        below, above = (-size - swapped) / found.seed_error, (swapped - size) / found.seed_error
        beyond = stdtr(found.seed_freedom, below) + stdtr(found.seed_freedom, above)
    return min(1.0, (float(beyond.sum()) + 1) / (len(beyond) + 1))


def _swapped_clips(scores_a: np.ndarray, scores_b: np.ndarray, labels: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Differences of mean mAP, (SWAPS,), after swapping the rows in random clips, the same clips for all seeds."""
    names, clip = np.unique(np.asarray(clips, dtype=str), return_inverse=True)
    turned = np.random.default_rng(0).integers(2, size=(SWAPS, len(names))).astype(np.float64)
    # The frames of both rows are joined, and their clips numbered apart, so a swap is a choice of clips.
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
    """Contribution of each seed to the difference of means, scaled so that the squares sum to its variance.

    Args:
        a: one row.
        b: the other.
        of_a: (S, K) values per seed of `a`.
        of_b: (S', K) values per seed of `b`.

    Returns:
        (U, K), one row per draw. Contributions of paired seeds are added, so common parts cancel.
    """
    pairs = {other: one for one, other in paired_seeds(a, b)}
    places = [pairs.get(number, len(a.seeds) + number) for number in range(len(b.seeds))]
    shares = np.zeros((len(a.seeds) + len(b.seeds), of_a.shape[1]))
    lent = 0.0
    for row, other, values, sign, draws in (
        (a, b, of_a, 1, list(range(len(a.seeds)))),
        (b, a, of_b, -1, places),
    ):
        size = len(row.seeds)
        if size > 1:
            own = sign * (values - values.mean(axis=0)) / math.sqrt(size * (size - 1))
            shares[draws] += own
            if len(other.seeds) == 1 and not other.fixed:
                lent = own * math.sqrt(size)
    return shares if isinstance(lent, float) else np.concatenate([shares, lent])


def _freedom(a: Scored, b: Scored) -> float:
    """Degrees of freedom of the variance over seeds: of pairs, or Welch's for two samples."""
    sizes = [len(row.seeds) for row in (a, b)]
    if sizes[0] == sizes[1] == len(paired_seeds(a, b)) or min(sizes) == 1:
        return max(sizes) - 1
    first, second = (_variance(row) / size for row, size in zip((a, b), sizes, strict=True))
    return (first + second) ** 2 / (first**2 / (sizes[0] - 1) + second**2 / (sizes[1] - 1))


def _variance(row: Scored) -> float:
    """Variance of mAP over the seeds; 0 for one seed."""
    return float(row.map.var(ddof=1)) if len(row.seeds) > 1 else 0.0


def sentence(a: str, b: str, found: Difference, p: float | None) -> str:
    """Say what a comparison means, in points of mAP.

    Args:
        a: name of the first row.
        b: name of the second row.
        found: from `difference`.
        p: from `permutation_p`; None if it was not computed.

    Example:
        >>> sentence("one", "two", Difference(0.012, -0.004, 0.028, 0.007, 1.0, 0.01, 4.0), p=0.2)
        'one is 1.20 points above two; the interval -0.40 to 2.80 includes 0: the two are statistically tied.'
    """
    side = "above" if found.value > 0 else "below"
    start = f"{a} is {100 * abs(found.value):.2f} points {side} {b}; "
    if found.too_few:
        advice = [f"with --seeds {MIN_SEEDS} or more"] * (found.seed_count < MIN_SEEDS)
        advice += [f"on more than these {found.clip_count} clips"] * (found.clip_count < MIN_CLIPS)
        return f"{start}too few runs to compare: run both again {' and '.join(advice) or 'with more seeds'}."
    start += f"the interval {100 * found.low:.2f} to "
    if found.includes_zero:
        return f"{start}{100 * found.high:.2f} includes 0: the two are statistically tied."
    better = a if found.value > 0 else b
    doubt = "" if p is None or p < 0.05 else f", but p = {p:.2g}, so train more seeds to be sure"
    return f"{start}{100 * found.high:.2f} excludes 0: {better} is better{doubt}."
