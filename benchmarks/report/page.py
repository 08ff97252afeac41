"""Renders the report's HTML from finished rows."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.evaluation.diagnosis import SplitDiagnosis
from benchmarks.report import charts
from benchmarks.report.crops import data_uri
from benchmarks.report.rows import ReportRow, choose_tracks, mistakes, precision_curves, provenance, shared
from benchmarks.rows.provenance import code_version
from benchmarks.table import notes, table
from benchmarks.table.groups import groups_of
from zoo.files.untrusted import below

TRACKS = 2  # timelines of the worst tracks, and of the best
MISTAKES = 12  # tiles per contact sheet

_HERE = Path(__file__).parent


def render_page(rows: Sequence[ReportRow], root: Path, named: bool, advance: Callable[[], None]) -> str:
    """Render the report.

    Args:
        rows: at least one, all of one dataset.
        root: the dataset's folder, to which the paths of crops are relative.
        named: whether the user named the rows and thereby set their order; otherwise they are in the table's order.
        advance: called after each row.
    """
    results = [(row.result, "") for row in rows]
    groups = groups_of([row.result for row in rows])
    measured = dict(zip(map(id, rows), table.measured_rows(results, groups), strict=True))
    compared = notes.compared_places([*measured.values()])
    if not named:
        order = [each.recipe for each in table.rows(results, groups)]
        rows = sorted(rows, key=lambda row: order.index(row.result["name"]))
    facts = [provenance(row) for row in rows]
    everywhere = shared(facts)
    picture = cache(lambda image: data_uri(below(root, image, "an image of a frame table")) if image else None)
    start = _start(rows)
    sections: list[dict[str, Any]] = []
    for number, (row, own) in enumerate(zip(rows, facts, strict=True)):
        sections.append(
            {
                "number": number,
                "table": measured[id(row)],
                "marks": " ".join(notes.marks_of(measured[id(row)], compared)),
                "rank": notes.rank_text(measured[id(row)]),
                "scores": len(row.frames) > 0,
                "result": row.result,
                "split": row.split,
                "figures": row.result["splits"][row.split],
                "interval": _interval(row, start),
                "diagnosis": _diagnosis(row),
                "tracks": _tracks(row, picture),
                "sheets": [_sheet(row, label, picture) for label in (0, 1)],
                "facts": {name: fact for name, fact in own.items() if name not in everywhere},
                "config": json.dumps(row.result["config"], indent=2, ensure_ascii=False),
            }
        )
        advance()
    # Highest first; floors and ceilings after the trained rows.
    defined = [each for each in sections if each["table"].map is not None]
    by_map = sorted(defined, key=lambda each: (each["table"].bound != "", -each["table"].map))
    lines = [each for each in (sections if named else by_map) if each["scores"] and each["table"].map is not None]
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = lambda name: Markup("_<wbr>").join(name.split("_"))
    environment.filters["percent"] = lambda share, digits=2: "" if share is None else f"{100 * share:.{digits}f}"
    return environment.get_template("page.html").render(
        style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),  # not from users
        sections=sections,
        best=by_map[0] if by_map else None,
        lines=lines,
        curves=_curves([rows[each["number"]] for each in lines]),
        named=named,
        colours=charts.COLOURS,
        dataset=rows[0].result["dataset"],
        splits=" and ".join(sorted({row.split for row in rows})),
        start=start,
        notes=notes.notes(list(measured.values()), groups),
        facts=everywhere,
        made=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        code=code_version(),
    )


def _start(rows: Sequence[ReportRow]) -> float:
    """The start of the axis of the table's intervals."""
    metrics = [row.result["splits"][row.split]["metrics"]["mAP"] for row in rows]
    values = [value for metric in metrics for value in (*(metric["interval"] or ()), *metric["per_seed"])]
    return charts.axis_start([value for value in values if value is not None] or [0.0])


def _interval(row: ReportRow, start: float) -> Markup | None:
    metric = row.result["splits"][row.split]["metrics"]["mAP"]
    if metric["mean"] is None:
        return None
    by_seed = [each for each in metric["per_seed"] if each is not None]
    return charts.interval(metric["mean"], metric["interval"], by_seed, start)


def _curves(rows: Sequence[ReportRow]) -> list[dict[str, Any]]:
    """Draw the curves of both classes; none if no row has frames of both."""
    pairs = [pair for row in rows if (pair := precision_curves(row.scores, row.frames["label"].to_numpy()))]
    if not pairs:
        return []
    share = float(rows[0].frames["label"].mean())
    return [
        {"name": name, "chart": charts.precision_recall(list(of_class), own, f"precision over recall of {name}")}
        for name, of_class, own in zip(
            ("looking", "not looking"), zip(*pairs, strict=True), (share, 1 - share), strict=True
        )
    ]


def _diagnosis(row: ReportRow) -> dict[str, Any] | None:
    """Calibration and groups; None for an older record without diagnosis."""
    found = row.result["diagnosis"]
    if found is None or row.split not in found["splits"]:
        return None
    of_split: SplitDiagnosis = found["splits"][row.split]
    whole = row.result["splits"][row.split]["metrics"]["mAP"]["mean"]
    return {
        "calibration": of_split["calibration"],
        "reliability": charts.reliability_diagram(of_split["reliability"]),
        "lines": list(of_split["reliability"]),
        "groups": {name: charts.groups(groups, whole, f"mAP by {name}") for name, groups in of_split["groups"].items()},
    }


def _tracks(row: ReportRow, picture: Callable[[str], str | None]) -> list[dict[str, Any]]:
    stride = row.result["splits"][row.split]["stride"]
    chosen = []
    for track in choose_tracks(row, TRACKS):
        frames = row.frames.iloc[track.rows]
        numbers, images = frames["frame"].to_numpy(), frames["image"].tolist()
        crops = {index: picture(images[index]) for index in charts.slots(numbers) if index is not None}
        chart = charts.timeline(numbers, frames["label"].to_numpy(), row.scores[:, track.rows], stride, crops)
        key = frames.iloc[0]
        chosen.append({"error": track.error, "best": track.best, "chart": chart, **key[["clip", "track"]]})
    return chosen


def _sheet(row: ReportRow, label: int, picture: Callable[[str], str | None]) -> dict[str, Any]:
    """The contact sheet of the misclassified frames with a label."""
    found = mistakes(row, label, MISTAKES)
    score = row.scores.mean(axis=0)
    tiles = [
        {"score": float(score[index]), "picture": picture(key["image"]), **key[["clip", "track", "frame"]]}
        for index, (_, key) in zip(found.rows, row.frames.iloc[found.rows].iterrows(), strict=True)
    ]
    return {"label": label, "tiles": tiles, "frames": found.frames, "tracks": found.tracks}
