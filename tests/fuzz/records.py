"""Records of rows."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from benchmarks.rows.find import RECORDS
from tests.fuzz.harness import Kind, command
from tests.fuzz.values import file_of, place, spoilt_json


@functools.cache
def record_of(name: str) -> dict[str, Any]:
    """Return a committed record with short lists, so that few cases reach every part."""
    record = json.loads((RECORDS / "synthlam" / f"{name}.json").read_text(encoding="utf-8"))
    for report in record["training"]:
        report["history"] = report["history"][:1]
    for split in record["splits"].values():
        split["without_clip"] = dict(list(split["without_clip"].items())[:2])
    return record


records = st.sampled_from(["probe", "interngru_flip_tta", "internlstm_flip_tta_smooth"]).flatmap(
    lambda name: file_of(spoilt_json(record_of(name)))
)


def read_records(folder: Path, case: object) -> None:
    """Run the commands that read only records: `show`, and `table` in all formats."""
    out = folder / "runs"
    command("show", out / "results" / "synthlam" / "row")
    for form in ("github", "csv", "json", "latex", "html"):
        command("table", "--out", out, "--format", form)


def export_record(folder: Path, case: object) -> None:
    command("export", folder / "runs" / "results" / "synthlam" / "row", "-o", folder / "out")


def write_record(folder: Path, case: bytes | str) -> None:
    place(folder / "runs" / "results" / "synthlam" / "row" / "result.json", case)


KINDS = (
    Kind("record, shown", records, write_record, read_records),
    Kind("record, exported", records, write_record, export_record),
)
