"""Notes below the comparison table, and the marks that they explain."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from benchmarks.table.groups import BELOW, FITTED, TIE, UNKNOWN, Group, floor_notes, rank_notes
from benchmarks.table.table import OLDER, TableRow

_UNKNOWN_NOTE = f"{UNKNOWN}: not compared: too few seeds or clips, other key frames, or an older record."
_FITTED_NOTE = f"{FITTED}: smoothing or weights were fitted on this split, so the figure is optimistic."


def notes(table: Sequence[TableRow], groups: Sequence[Group] = ()) -> list[str]:
    """Notes for readers of the table, one per line.

    Args:
        table: from `rows`.
        groups: of its rows, from `groups_of`.
    """
    lines = []
    sources = sorted({row.published_source for row in table if row.published_source})
    if sources:
        lines.append(
            f"Cited figures come from the challenge server, whose labels are not public. Sources: {'; '.join(sources)}."
        )
    if any("synthlam" in row.dataset for row in table):
        lines.append("SynthLAM is synthetic data. Compare its figures with each other, not with the cited column.")
    if any(" for " in row.backbone for row in table):
        lines.append('"X for Y": the small backbone X stands in for Y, which needs a GPU and its own weights.')
    if any("(random init)" in row.backbone for row in table):
        lines.append(
            '"(random init)": the backbone starts from random weights, also where the published method starts from '
            "others; see docs/recipes.md."
        )
    if any("(renders)" in row.backbone for row in table):
        lines.append(
            '"(renders)": the backbone and the LSTM start from weights trained on the gaze of rendered heads, in place '
            "of Gaze360's; see `--show gaze_resnet18_renders`."
        )
    if any(OLDER.search(row.origin) for row in table):
        lines.append('"version 1 of 2": measured before its recipe was changed; the recipe gives other figures now.')
    if any(row.bound for row in table):
        lines.append(
            "(floor), (ceiling): nothing is trained or drawn, so these rows have no seeds. They are not ranked; see "
            "docs/statistics.md."
        )
    if any("(checkpoint)" in row.method for row in table):
        lines.append("(checkpoint): trained elsewhere and scored here as it is, with --checkpoint.")
    lines += [*rank_notes(groups), *floor_notes(groups)]
    compared = compared_places(table)
    marks = {mark for row in table for mark in marks_of(row, compared)}
    if UNKNOWN in marks:
        lines.append(_UNKNOWN_NOTE)
    if FITTED in marks:
        lines.append(_FITTED_NOTE)
    if any(row.seeds for row in table):
        lines.append("mAP: mean and standard deviation over the seeds. Interval: bootstrap over clips and seeds.")
        lines.append(
            "Seconds: encoding all frames and views once + training one head. If the backbone trains too: decoding + "
            "training both."
        )
    return lines


def short_notes(
    table: Sequence[TableRow], groups: Sequence[Group], columns: Sequence[str], new: Collection[str] = ()
) -> list[str]:
    """Notes for the narrow table of a terminal: those that apply to what it shows.

    Args:
        table: from `rows`.
        groups: of its rows, from `groups_of`.
        columns: that are shown.
        new: names of rows that were just run.
    """
    lines = []
    compared = compared_places(table)
    marks = {mark for row in table for mark in marks_of(row, compared)}
    if any(row.recipe in new for row in table if row.recipe):
        lines.append(">: just run.")
    if "best" in columns and compared:
        lines.append("best, tied: no row is better, at 95 % over clips and seeds (docs/statistics.md).")
    lines += [note for mark, note in ((UNKNOWN, _UNKNOWN_NOTE), (FITTED, _FITTED_NOTE)) if mark in marks]
    lines += floor_notes(groups)
    if "cited" in columns and any(row.published_map is not None for row in table):
        lines.append("cited: on Ego4D's test set, by the challenge's server. Compare within a column only.")
    if any("synthlam" in row.dataset for row in table):
        lines.append("synthlam: rendered faces, shipped with lamzoo.")
    lines.append("--wide shows backbones, heads, parameters, seconds and origins.")
    return lines


def compared_places(table: Sequence[TableRow]) -> set[tuple[str, str]]:
    """Datasets and splits whose rows are compared with each other."""
    return {(row.dataset, row.split) for row in table if row.tied is not None}


def marks_of(row: TableRow, compared: set[tuple[str, str]]) -> list[str]:
    """Marks after a row's mAP; `compared` from `compared_places`."""
    unknown = row.tied is None and not row.bound and (row.dataset, row.split) in compared
    tie = [TIE] if row.tied and row.rank_high != 1 else [UNKNOWN] * unknown
    return [*tie, *[FITTED] * row.fitted, *[BELOW] * bool(row.below)]


def rank_text(row: TableRow) -> str:
    """A row's rank, and the ranks that it may have: `2 (1-4)`; empty if it was not compared."""
    return "" if row.rank is None else f"{row.rank} ({row.rank_low}-{row.rank_high})"
