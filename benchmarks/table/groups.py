"""Groups of rows on the same key frames: ranked, and described in notes below the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from benchmarks.evaluation.compare import Scored, difference
from benchmarks.evaluation.rank import Rank, Resolution, rank_rows, resolution
from benchmarks.rows.schema import Result, bound_of, shown_split
from benchmarks.rows.trainings import cluster_of, frames_of, scored_of

# Marks after a row's mAP.
TIE, UNKNOWN, FITTED, BELOW = "†", "?", "‡", "§"


@dataclass(frozen=True)
class Floor:
    """A row without training that trained rows should be above.

    Attributes:
        name: of the row.
        map: fraction.
        below: number of each row of the group with a lower mAP -> whether the interval of the difference excludes 0.
    """

    name: str
    map: float
    below: dict[int, bool]


@dataclass(frozen=True)
class Group:
    """Rows on the same key frames, which are compared with each other, and the floors on these frames.

    Floors and ceilings have no rank: the best row is the best trained one.

    Attributes:
        place: dataset and split.
        cluster: what comparisons resample, `clip` or `video`.
        results: records of the K trained rows.
        figures: of the K rows.
        ranks: of the K rows.
        floors: rows without training, each compared with the K rows.
    """

    place: str
    cluster: str
    results: list[Result]
    figures: list[Scored]
    ranks: list[Rank]
    floors: list[Floor]

    @cached_property
    def resolution(self) -> Resolution | None:
        """Of the rows that are tied with the best."""
        best = [row for row, rank in zip(self.figures, self.ranks, strict=True) if rank.tied]
        return resolution(best, len(self.figures))


def groups_of(results: Sequence[Result]) -> list[Group]:
    """Compare the rows that scored the same key frames. Records without the figures to compare are left out."""
    found: dict[tuple[Any, ...], list[tuple[Result, Scored]]] = {}
    for result in results:
        split = shown_split(result)
        figures = None if split is None else scored_of(result, split)
        if split is not None and figures is not None:
            found.setdefault(frames_of(result, split), []).append((result, figures))
    groups = []
    for (name, split, *_), group in found.items():
        trained = [(result, figures) for result, figures in group if bound_of(result) is None]
        own = [figures for _, figures in trained]
        if own:
            groups.append(
                Group(
                    place=f"{name} {split}",
                    cluster=cluster_of(trained[0][0], split),
                    results=[result for result, _ in trained],
                    figures=own,
                    ranks=rank_rows(own),
                    floors=[_floor(result, floor, own) for result, floor in group if bound_of(result) == "floor"],
                )
            )
    return groups


def _floor(result: Result, floor: Scored, rows: Sequence[Scored]) -> Floor:
    """Compare a floor with the rows of its group, one by one, as `compare` does."""
    below = {}
    for number, row in enumerate(rows):
        if row.map.mean() < floor.map.mean():
            found = difference(row, floor)
            below[number] = found is not None and not (found.too_few or found.includes_zero)
    return Floor(result["name"], float(floor.map.mean()), below)


def rank_notes(groups: Sequence[Group]) -> list[str]:
    """Notes on ranks, marks and resolution of each group with rows that could be compared."""
    lines = []
    for group in groups:
        count, clips = len(group.results), len(group.figures[0].clips)
        if all(rank.tied is None for rank in group.ranks):
            continue
        lines.append(
            f"{TIE}: statistically tied with the best row of {group.place}, because no row is better. {count} rows are "
            f"compared in {count * (count - 1) // 2} pairs, all at once at 95 % (Holm), over {clips} {group.cluster}s "
            "and over seeds. Rows that tie share a rank; in brackets the ranks that each may have."
        )
        found = group.resolution
        if found is not None:
            lines.append(
                f"Resolution of {group.place} with {found.seeds} seeds and {clips} {group.cluster}s: two rows near the "
                "top that share no training must differ by "
                f"{100 * found.pair:.1f} points to be found different in 80 of 100 cases by `compare`, by "
                f"{100 * found.table:.1f} in this table. {_halving(found, group.cluster)}"
            )
    return lines


def floor_notes(groups: Sequence[Group]) -> list[str]:
    """Notes on the rows below a floor."""
    lines = []
    for group in groups:
        for floor in (each for each in group.floors if each.below):
            names = {number: group.results[number]["name"] for number in floor.below}
            clear = [names[number] for number, excludes in floor.below.items() if excludes]
            lines.append(
                f"{BELOW}: below a floor. {floor.name} trains nothing and has {100 * floor.map:.2f} on {group.place}; "
                f"lower are {', '.join(names.values())}. A trained row below a floor is a fault to find. Compared one "
                f"by one, the interval of the difference excludes 0 for {', '.join(clear) or 'none'}."
            )
    return lines


def _halving(found: Resolution, cluster: str) -> str:
    parts = [
        f"{number:,} {unit}s" if number is not None else None
        for number, unit in ((found.clips_to_halve, cluster), (found.seeds_to_halve, "seed"))
    ]
    possible = [part for part in parts if part is not None]
    if not possible:
        return f"Neither more {cluster}s nor more seeds alone would halve that."
    alone = f"; more {'seeds' if parts[1] is None else cluster + 's'} alone would not" if len(possible) == 1 else ""
    return f"{' or '.join(possible)} would halve the first{alone}."
