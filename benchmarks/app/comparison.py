"""The page with the comparison table, and reports of finished rows."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from pathlib import Path

from markupsafe import Markup

from benchmarks.app.frame import button, element, framed, markup, table
from benchmarks.app.queue import Command
from benchmarks.table.render import TablePart, table_parts
from registry import UserError, printable

REPORTS = "reports"  # folder of reports, beside the jobs
_NUMBERS = ("mAP", "95 % interval", "seeds", "cited")
# Cells begin with their number; empty ones are the lowest.
_BY_NUMBER = "(a, b) => (parseFloat(a) || -1) - (parseFloat(b) || -1)"


def add_comparison(out: Path, runs: Path) -> None:
    """Declare the page.

    Args:
        out: folder of the jobs, which reports are written to.
        runs: folder of the runs.
    """
    from nicegui import ui

    @ui.page("/table", title="Comparison: lamzoo", response_timeout=60)
    async def comparison() -> None:
        with framed("/table"):
            markup("Comparison of methods", "h1")
            try:
                parts, notes = await asyncio.to_thread(table_parts, runs)
            except UserError as error:
                markup(str(error), kind="warning")
                return
            for part in parts:
                _table(part)
            own = [note for note in notes if not note.startswith("--")]  # about an option of the command
            markup(Markup("").join(Markup("<li>{}</li>").format(note) for note in own), "ul", "muted notes")
            markup("Reports", "h2")
            _reports(out, runs)


def _table(part: TablePart) -> None:
    markup(part.title, "h2")
    columns = []
    for place, head in enumerate(part.head):
        number = {"align": "right", ":sort": _BY_NUMBER} if head in _NUMBERS else {"align": "left"}
        columns.append({"name": str(place), "label": head, "field": str(place), **number})
    table(
        columns, [{"id": k, **{str(place): cell for place, cell in enumerate(row)}} for k, row in enumerate(part.body)]
    )


def _reports(out: Path, runs: Path) -> None:
    """A button per finished row, which writes its report and shows the way to it."""
    found = sorted(runs.glob("results/*/*/result.json"))
    if not found:
        markup(
            f"There are no finished rows in {runs / 'results'}; python bench.py --recipe NAME makes one.", kind="muted"
        )
        return
    place = element("div").props('role="status"')

    async def write(record: Path) -> None:
        dataset, row = record.parents[1].name, record.parent.name
        name = hashlib.sha256(f"{dataset}/{row}".encode()).hexdigest()[:16] + ".html"
        place.clear()
        with place:
            markup(f"Writing the report of {row}")
        arguments = ["report", str(record), "--dataset", dataset, "--out", str(runs)]
        ended = await Command([*arguments, "-o", str(out / REPORTS / name)]).run(lambda line: None)
        place.clear()
        with place:
            if ended.status:
                markup(printable(ended.error("report")), kind="warning")
            else:
                link = Markup('<a href="/{}/{}" target="_blank">Report of {}</a>').format(REPORTS, name, row)
                markup(link, kind="status")

    with element("ul", "files"):
        for record in found:
            with element("li", "beside"):
                markup(f"{record.parents[1].name}: {record.parent.name}", "span")
                button("Report", partial(write, record))
