"""Groups of rows on the same key frames: ranked, and described in notes below the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from benchmarks.evaluation.compare import Scored
from benchmarks.evaluation.rank import Rank, Resolution, rank_rows, resolution
from benchmarks.rows.schema import Result, shown_split
from benchmarks.rows.trainings import cluster_of, frames_of, scored_of

# Marks after a row's mAP.
TIE, UNKNOWN, FITTED = "†", "?", "‡"


@dataclass(frozen=True)
class Group:
    """Rows on the same key frames, which are compared with each other.

    Attributes:
        place: dataset and split.
        cluster: what comparisons resample, `clip` or `video`.
        results: records of the K rows.
        figures: of the K rows.
        ranks: of the K rows.
    """

    place: str
    cluster: str
    results: list[Result]
    figures: list[Scored]
    ranks: list[Rank]

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
    return [
        Group(
            place=f"{name} {split}",
            cluster=cluster_of(group[0][0], split),
            results=[result for result, _ in group],
            figures=[figures for _, figures in group],
            ranks=rank_rows([figures for _, figures in group]),
        )
        for (name, split, *_), group in found.items()
    ]


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
