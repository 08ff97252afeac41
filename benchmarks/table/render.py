"""The comparison table as text: for a terminal, Markdown, LaTeX, HTML, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from benchmarks.table.groups import BELOW, FITTED, TIE, UNKNOWN, groups_of
from benchmarks.table.notes import compared_places, marks_of, notes, rank_text, short_notes
from benchmarks.table.table import TableRow, collect, named, rows
from registry import UserError, did_you_mean, printable
from zoo.cards import in_markdown

FORMS = ("text", "github", "csv", "json", "latex", "html")
SHORT = ("method", "map", "interval", "best", "seeds", "cited")  # of text, unless it is wide
PAPER = ("method", "cited", "map", "interval", "seeds")  # of LaTeX
GAP = 2  # spaces between columns of text
NARROWEST = 16  # characters of a method, before it breaks into lines


@dataclass(frozen=True)
class TableView:
    """What to show of the table, and how.

    Attributes:
        form: one of `FORMS`.
        columns: keys of `COLUMNS` in order; empty for those of the form.
        width: of the terminal in characters; None for no limit. Text only.
        sort: key of the column to sort by, best or first name first; None for the order of the published table.
        dataset: show its rows alone; None for all.
        new: names of rows that were just run, which text marks.
    """

    form: str = "github"
    columns: Sequence[str] = ()
    width: int | None = None
    sort: str | None = None
    dataset: str | None = None
    new: Collection[str] = ()

    @property
    def shown_columns(self) -> Sequence[str]:
        """Keys of the columns that are shown."""
        return self.columns or {"text": SHORT, "latex": PAPER}.get(self.form, ALL)


class _Whole(NamedTuple):
    """What a cell depends on besides its row."""

    places: Sequence[str]  # datasets and splits of all rows
    compared: set[tuple[str, str]]  # those whose rows are compared with each other
    form: str


class Column(NamedTuple):
    """One column of the table.

    Attributes:
        head: its heading; `{place}` stands for dataset and split.
        fields: of `TableRow`, which CSV and JSON contain in place of the cell.
        cell: what it shows of a row.
        short: heading in text, where `head` is too long or has a place.
    """

    head: str
    fields: tuple[str, ...]
    cell: Callable[[TableRow, _Whole], str]
    short: str = ""


class TablePart(NamedTuple):
    """The rows of one dataset and split as a terminal shows them.

    Attributes:
        title: what the table is of.
        head: headings.
        body: cells, one list per row.
    """

    title: str
    head: list[str]
    body: list[list[str]]


def table_text(out: Path | None, view: TableView | None = None, names: Sequence[str] = ()) -> str:
    """Render the table; text and Markdown end with notes.

    Args:
        out: folder of the runs; None for the committed records alone.
        view: what to show, and how; None for all of it in Markdown.
        names: of the rows to show and compare, or paths; empty for all, beside all cited figures.

    Raises:
        UserError: no row has such a name, dataset or column.
    """
    view = view or TableView()
    table, remarks = _rows_and_notes(out, view, names)
    text = render(table, view)
    if view.form == "text":
        return "\n\n".join([text, "\n".join(remarks)]) if remarks else text
    remarks = [f"- {note}" for note in remarks] if view.form == "github" else []
    return "\n".join([text, "", *remarks]) if remarks else text


def table_parts(out: Path | None) -> tuple[list[TablePart], list[str]]:
    """The cells of the table of a terminal, for those who lay it out otherwise.

    Args:
        out: folder of the runs; None for the committed records alone.

    Returns:
        One part per dataset and split, and the notes.
    """
    view = TableView("text")
    table, remarks = _rows_and_notes(out, view, ())
    return _parts(table, view, _whole(table, view)), remarks


def _rows_and_notes(out: Path | None, view: TableView, names: Sequence[str]) -> tuple[list[TableRow], list[str]]:
    """The rows of a view in order, and the notes that text or Markdown end with; arguments as in `table_text`."""
    _check_columns(view)
    results = named(names, out) if names else collect(out)
    if view.dataset is not None:
        known = sorted({result["dataset"]["name"] for result, _ in results})
        results = [each for each in results if each[0]["dataset"]["name"] == view.dataset]
        if not results:
            raise UserError(f"no row of dataset {view.dataset}; there are rows of {', '.join(known) or 'none'}")
    groups = groups_of([result for result, _ in results])
    table = [row for row in rows(results, groups) if row.recipe or not names]
    if view.sort is not None:
        table.sort(key=lambda row: _sort_key(row, str(view.sort)))
    short = view.form == "text" and view.shown_columns != ALL
    return table, short_notes(table, groups, view.shown_columns, view.new) if short else notes(table, groups)


def render(table: Sequence[TableRow], view: TableView | None = None) -> str:
    """Render rows of the table, without notes.

    `text`, `github`, `latex` and `html` are for reading, in percent. `csv` and `json` contain the fields of `TableRow`.
    """
    view = view or TableView()
    form = view.form
    if form in ("csv", "json"):
        return _fields(table, view)
    whole = _whole(table, view)
    if form == "text":
        return _text(table, view, whole)
    places = whole.places
    shown = in_markdown if form == "github" else printable
    place = shown(places[0]) if len(places) == 1 else "measured"
    head = [COLUMNS[key].head.format(place=place) for key in view.shown_columns]
    body = [[shown(COLUMNS[key].cell(row, whole)) for key in view.shown_columns] for row in table]
    if form == "latex":
        return _latex(head, body, places)
    # tabulate would parse the commit 8812e03 as the number 8812000.
    return tabulate(body, head, tablefmt=form, disable_numparse=True)


def label_of(row: TableRow) -> str:
    """A row's method; of a recipe changed on the command line, with the changes."""
    changes = row.recipe.partition("+")[2]
    if "(changed)" not in row.method or not changes:
        return row.method
    return f"{row.method.replace(' (changed)', '')}, {', '.join(changes.split('+'))}"


def _check_columns(view: TableView) -> None:
    for key in (*view.columns, *([] if view.sort is None else [view.sort])):
        if key not in COLUMNS:
            raise UserError(f"unknown column '{key}'{did_you_mean(key, [*COLUMNS])}; there are {', '.join(COLUMNS)}")


def _fields(table: Sequence[TableRow], view: TableView) -> str:
    names = [name for key in view.columns for name in COLUMNS[key].fields] or list(TableRow.__dataclass_fields__)
    lines = [{name: getattr(row, name) for name in names} for row in table]
    if view.form == "json":
        return json.dumps(lines, indent=2, ensure_ascii=False)
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().rstrip("\n")


def _whole(table: Sequence[TableRow], view: TableView) -> _Whole:
    places = sorted({f"{row.dataset} {row.split}" for row in table if row.dataset})
    return _Whole(places, compared_places(table), view.form)


def _text(table: Sequence[TableRow], view: TableView, whole: _Whole) -> str:
    parts = _parts(table, view, whole)
    return "\n\n".join(f"{part.title}\n\n{_aligned(part.head, part.body, view.width)}" for part in parts)


def _parts(table: Sequence[TableRow], view: TableView, whole: _Whole) -> list[TablePart]:
    """One part per dataset and split; rows that are only cited stand in the first."""
    parts = []
    for place in whole.places or [""]:
        first = place == (whole.places or [""])[0]
        own = [row for row in table if f"{row.dataset} {row.split}" == place or (not row.dataset and first)]
        marked = any(row.recipe in view.new for row in own)
        head = [COLUMNS[key].short or COLUMNS[key].head for key in view.shown_columns]
        body = [[printable(COLUMNS[key].cell(row, whole)) for key in view.shown_columns] for row in own]
        if marked:
            head.insert(0, "")
            for line, row in zip(body, own, strict=True):
                line.insert(0, ">" if row.recipe and row.recipe in view.new else "")
        title = f"Looking-At-Me on {place}, mAP in percent" if place else "Looking-At-Me, mAP in percent"
        parts.append(TablePart(title, head, body))
    return parts


def _aligned(head: list[str], body: list[list[str]], width: int | None) -> str:
    """Columns of text; the widest column breaks into lines where the terminal is too narrow."""
    wide = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    limits: list[int | None] = [None] * len(head)
    if width is not None and (over := sum(wide) + GAP * (len(wide) - 1) - width) > 0:
        widest = wide.index(max(wide))
        limits[widest] = max(NARROWEST, wide[widest] - over)
    align = ["left" if name in _LEFT else "right" for name in head]
    lines = tabulate(body, head, "simple", disable_numparse=True, colalign=align, maxcolwidths=limits).split("\n")
    return "\n".join(line.rstrip() for line in lines)


def _latex(head: Sequence[str], body: Sequence[Sequence[str]], places: Sequence[str]) -> str:
    text = tabulate(body, head, tablefmt="latex_booktabs", disable_numparse=True)
    used = [words for mark, words in _LATEX_NOTES.items() if mark in text]
    where = f" on {printable(', '.join(places)).replace('_', chr(92) + '_')}" if places else ""
    caption = (
        f"Looking-At-Me{where}: mAP (\\%), mean and standard deviation over seeds; intervals by a bootstrap over clips "
        f"and seeds. Cited figures are those of the challenge's server on the Ego4D test set.{''.join(used)}"
    )
    for sign, command in _LATEX_SIGNS.items():
        text, caption = text.replace(sign, command), caption.replace(sign, command)
    lines = ["% \\usepackage{booktabs}", "\\begin{table}", "\\centering", f"\\caption{{{caption}}}", "\\label{tab:lam}"]
    return "\n".join([*lines, text, "\\end{table}"])


def _sort_key(row: TableRow, key: str) -> tuple[bool, Any]:
    """Numbers fall, names and ranks rise; rows without a value come last."""
    value = getattr(row, {"best": "map", "interval": "map", "cited": "published_map"}.get(key, COLUMNS[key].fields[0]))
    if value is None or value == "":
        return True, 0
    return False, value if isinstance(value, str) or key == "rank" else -value


def _cited_cell(row: TableRow, whole: _Whole) -> str:
    if row.published_map is None:
        return ""
    percent = round(100 * row.published_map, 4)
    return f"{percent:.0f}" if percent.is_integer() else f"{percent:.2f}"


def _map_cell(row: TableRow, whole: _Whole) -> str:
    if not row.dataset:
        return ""
    place = f" ({row.dataset} {row.split})" if len(whole.places) > 1 and whole.form != "text" else ""
    if row.map is None or row.map_std is None:
        return f"undefined: one class only{place}"
    spread = f" ± {100 * row.map_std:.2f}" if row.seeds > 1 else ""
    marks = [mark for mark in marks_of(row, whole.compared) if whole.form != "text" or mark in (FITTED, BELOW)]
    return " ".join([f"{100 * row.map:.2f}{spread}", *marks]) + place


def _interval_cell(row: TableRow, whole: _Whole) -> str:
    if row.map_low is None or row.map_high is None:
        return ""
    digits = 1 if whole.form == "text" else 2
    return f"{100 * row.map_low:.{digits}f} to {100 * row.map_high:.{digits}f}"


def _best_cell(row: TableRow, whole: _Whole) -> str:
    if row.tied is None:
        return UNKNOWN if UNKNOWN in marks_of(row, whole.compared) else ""
    return "" if not row.tied else "best" if row.rank_high == 1 or row.rank is None else "tied"


def _parameters_cell(row: TableRow, whole: _Whole) -> str:
    if row.bound or not row.seeds:
        return ""
    return f"{_millions(row.backbone_parameters)} + {_millions(row.head_parameters)}"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 10_000 else f"{count:,}"


def _seconds_cell(row: TableRow, whole: _Whole) -> str:
    if row.feature_seconds is None or row.training_seconds is None or row.bound:
        return ""
    return f"{row.feature_seconds:.0f} + {row.training_seconds:.0f}"


COLUMNS = {
    "method": Column("method", ("method",), lambda row, whole: label_of(row) if whole.form == "text" else row.method),
    "recipe": Column("recipe", ("recipe",), lambda row, _: row.recipe),
    "backbone": Column("backbone", ("backbone",), lambda row, _: row.backbone),
    "head": Column("head", ("head",), lambda row, _: row.head),
    "cited": Column("Ego4D test mAP, cited", ("published_map", "published_source"), _cited_cell, "cited"),
    "map": Column("{place} mAP", ("dataset", "split", "map", "map_std"), _map_cell, "mAP"),
    "rank": Column("rank", ("rank", "rank_low", "rank_high", "compared"), lambda row, _: rank_text(row)),
    "best": Column("best", ("tied",), _best_cell),
    "interval": Column("95 % interval", ("map_low", "map_high"), _interval_cell),
    "accuracy": Column(
        "accuracy", ("accuracy",), lambda row, _: "" if row.accuracy is None else f"{100 * row.accuracy:.2f}"
    ),
    "seeds": Column("seeds", ("seeds",), lambda row, _: "" if row.bound else str(row.seeds or "")),
    "parameters": Column("parameters", ("backbone_parameters", "head_parameters"), _parameters_cell),
    "seconds": Column("seconds", ("feature_seconds", "training_seconds"), _seconds_cell),
    "origin": Column("origin", ("origin",), lambda row, _: row.origin),
}
ALL = tuple(key for key in COLUMNS if key != "best")  # the rank says as much
_LEFT = ("", "method", "recipe", "backbone", "head", "origin", "best")
_LATEX_SIGNS = {" ± ": r" $\pm$ ", f" {TIE}": r"$^{\dagger}$", f" {FITTED}": r"$^{\ddagger}$", f" {BELOW}": r"$^{\S}$"}
_LATEX_NOTES = {
    TIE: rf" {TIE}: statistically tied with the best row.",
    FITTED: f" {FITTED}: smoothing or weights were fitted on this split.",
    BELOW: f" {BELOW}: below a floor.",
}
