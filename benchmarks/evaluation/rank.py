"""Rank rows: which are tied, the ranks that each may have, and the smallest difference that their seeds and clips show.

All pairs of rows are compared at once. The p-values of `difference` are corrected by Holm (1979), which holds for
correlated comparisons. So 95 of 100 tables contain no false difference, whichever of its rows looks best.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.evaluation.compare import Difference, Scored, SeedSpread, difference

LEVEL = 0.05  # of all comparisons of a table together
POWER = 0.8  # of `resolution`
MOST_SEEDS, MOST_CLIPS = 1000, 100_000  # that `resolution` considers


@dataclass(frozen=True)
class Rank:
    """The place of a row among rows on the same clips.

    Attributes:
        rank: rows tied with all rows above them in their group share its rank.
        low: best possible rank: 1 + the number of rows that are better.
        high: worst possible rank: all rows but those that are worse.
        tied: whether no row is better, so that this one may be the best; None if too few runs to compare it with any.
    """

    rank: int
    low: int
    high: int
    tied: bool | None


@dataclass(frozen=True)
class Resolution:
    """The smallest true difference between two rows that is found in 80 of 100 cases, as a fraction of mAP.

    Attributes:
        pair: found by comparing these two rows alone.
        table: found among all rows of the table at once.
        seeds: median number of seeds of a row.
        clips: number of clips.
        seeds_to_halve: number of seeds per row at which `pair` is halved; None if seeds alone cannot.
        clips_to_halve: number of clips; None if clips alone cannot.
    """

    pair: float
    table: float
    seeds: int
    clips: int
    seeds_to_halve: int | None
    clips_to_halve: int | None


def seed_spread(rows: Sequence[Scored]) -> SeedSpread | None:
    """Pool the variance of mAP over the seeds of rows; None if no row has two seeds."""
    freedom = sum(len(row.seeds) - 1 for row in rows)
    if not freedom:
        return None
    squares = sum(float(((row.map - row.map.mean()) ** 2).sum()) for row in rows)
    return SeedSpread(squares / freedom, freedom)


def compare_all(rows: Sequence[Scored]) -> tuple[np.ndarray, np.ndarray]:
    """Compare all pairs of rows at once, over seeds and clips.

    Seeds of a row vary by their own spread or by that of all rows, whichever is larger. In simulation, Holm's
    correction with the rows' own spreads alone would find far fewer differences, and with the common spread alone it
    would find too many among rows of unequal spreads (docs/statistics.md).

    Args:
        rows: K rows on the same clips.

    Returns:
        bool (K, K) whether the row of the first index is better than that of the second; bool (K, K) whether there are
        enough runs to compare the two.
    """
    count, spread = len(rows), seed_spread(rows)
    better, compared = np.zeros((count, count), dtype=bool), np.zeros((count, count), dtype=bool)
    found: list[tuple[float, int, int]] = []
    for one, other in itertools.combinations(range(count), 2):
        each = difference(rows[one], rows[other], spread)
        if each is None or spread is None or each.too_few:
            continue
        compared[one, other] = compared[other, one] = True
        found.append((each.student_p, *((one, other) if each.value > 0 else (other, one))))
    for number, (p, above, below) in enumerate(sorted(found)):
        if p >= LEVEL / (len(found) - number):
            break
        better[above, below] = True
    return better, compared


def rank_rows(rows: Sequence[Scored]) -> list[Rank]:
    """Rank rows on the same clips by mean mAP.

    Example:
        >>> clips, steps = ("a", "b", "c"), np.array([[0.01, -0.01, 0.0]])
        >>> maps = [np.array([level, level + 0.01, level + 0.02]) for level in (0.7, 0.9, 0.695)]
        >>> rows = [Scored((1, 2, 3), values, clips, values[:, None] + steps) for values in maps]
        >>> [(each.rank, each.low, each.high, each.tied) for each in rank_rows(rows)]
        [(2, 2, 3, False), (1, 1, 1, True), (2, 2, 3, False)]
    """
    better, compared = compare_all(rows)
    order = sorted(range(len(rows)), key=lambda number: -rows[number].map.mean())
    ranks, group = {}, list[int]()
    for place, number in enumerate(order, start=1):
        if not group or better[group, number].any():
            group, shared = [], place
        group.append(number)
        ranks[number] = shared
    return [
        Rank(
            rank=ranks[number],
            low=1 + int(better[:, number].sum()),
            high=len(rows) - int(better[number].sum()),
            tied=not better[:, number].any() if compared[number].any() else None,
        )
        for number in range(len(rows))
    ]


def resolution(rows: Sequence[Scored], count: int) -> Resolution | None:
    """Compute the smallest difference that is found in 80 of 100 cases between two rows that share no training.

    The variance of a difference has three parts: of the seeds, of the clips, and of both together, which shrinks with
    either. They are the medians over the pairs of rows. Power is that of Student's t (noncentral), two-sided at 5 %;
    among all rows of a table at once at 5 % divided by the number of pairs.

    Args:
        rows: on the same clips, as alike as the two in question: clips add more to the difference of unlike rows.
        count: number of rows of the table.

    Returns:
        None if no two of the rows have several seeds and share no training.
    """
    spread = seed_spread(rows)
    pairs = [
        (found, one, other)
        for one, other in itertools.combinations([row for row in rows if len(row.seeds) > 1], 2)
        if (found := difference(one, other, spread)) is not None and not found.paired and not found.too_few
    ]
    if not pairs or spread is None:
        return None
    seeds = int(np.median([len(row.seeds) for row in rows if len(row.seeds) > 1]))
    clips = len(rows[0].clips)
    of_clips = float(np.median([_beyond(found) for found, _, _ in pairs]))
    of_both = float(np.median([_of_both(one) + _of_both(other) for _, one, other in pairs]))
    of_seeds = max(2 * spread.variance / seeds - of_both, 0.0)

    def smallest(new_seeds: int, new_clips: int) -> float:
        both = of_both * seeds * clips / (new_seeds * new_clips)
        over_seeds, over_clips = of_seeds * seeds / new_seeds + both, of_clips * clips / new_clips
        return _detectable((over_seeds, 2 * (new_seeds - 1)), (over_clips, new_clips - 1), LEVEL)

    now = smallest(seeds, clips)
    tested = float(np.median([found.seed_error**2 for found, _, _ in pairs]))  # of the larger of two spreads
    return Resolution(
        pair=now,
        table=_detectable((tested, spread.freedom), (of_clips, clips - 1), LEVEL / (count * (count - 1) // 2)),
        seeds=seeds,
        clips=clips,
        seeds_to_halve=_first(lambda number: smallest(number, clips) <= now / 2, seeds, MOST_SEEDS),
        clips_to_halve=_first(lambda number: smallest(seeds, number) <= now / 2, clips, MOST_CLIPS),
    )


def _detectable(over_seeds: tuple[float, float], over_clips: tuple[float, float], level: float) -> float:
    """True difference that Student's two-sided test at a level finds with probability `POWER`.

    Args:
        over_seeds: variance and its degrees of freedom.
        over_clips: variance and its degrees of freedom.
        level: of the test.
    """
    from scipy.special import nctdtrinc, stdtrit

    variance = over_seeds[0] + over_clips[0]
    if variance == 0:
        return 0.0
    freedom = variance**2 / sum(part**2 / of_part for part, of_part in (over_seeds, over_clips))
    return float(nctdtrinc(freedom, 1 - POWER, stdtrit(freedom, 1 - level / 2))) * math.sqrt(variance)


def _beyond(found: Difference) -> float:
    """Variance of a difference over clips that is not part of the variance over seeds."""
    return max(found.error**2 - found.seed_error**2, 0.0)


def _of_both(row: Scored) -> float:
    """Variance of a row's mean mAP over seeds and clips together, without what either does alone."""
    count, size = len(row.clips), len(row.seeds)
    values = (count - 1) * (row.without - row.without.mean(axis=1, keepdims=True))
    left = values - values.mean(axis=0)
    return float((left**2).sum()) / (size * (size - 1) * count * (count - 1))


def _first(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number from `low` to `high` for which a condition that stays true holds; None if none does."""
    if not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
