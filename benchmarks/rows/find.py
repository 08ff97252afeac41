"""Finds finished rows and committed records by name or path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.rows.folder import folder_name
from benchmarks.rows.provenance import HOME
from benchmarks.rows.schema import read_result
from registry import UserError, did_you_mean

RECORDS = HOME / "benchmarks" / "records"


@dataclass(frozen=True)
class FoundRow:
    """A row as it was found.

    Attributes:
        record: path of its record, a `result.json` or a committed record.
        folder: of the row, with `predictions.csv`; None for a record alone.
    """

    record: Path
    folder: Path | None


def find_row(name: str, out: Path, dataset: str) -> Path | None:
    """Find the folder of a finished row by name or path; None if there is none."""
    for folder in (Path(name), out / "results" / dataset / folder_name(name)):
        if (folder / "result.json").is_file():
            return folder
    return None


def find_record(name: str, out: Path, dataset: str) -> FoundRow:
    """Find a row by name or path: one of the user's own, else a committed record, or a record file.

    Args:
        name: of a row, or path of its folder or of a record ending in `.json`.
        out: folder of the runs.
        dataset: of the row, if it is given by name.

    Raises:
        UserError: no such row; suggests the nearest name.
    """
    path = Path(name)
    if path.suffix == ".json" and path.is_file():
        folder = path.parent if (path.parent / "predictions.csv").is_file() else None
        return FoundRow(path, folder)
    folder = find_row(name, out, dataset)
    if folder is None:
        own = sorted(out.glob(f"results/{dataset}/*/result.json"))
        known = {read_result(record)["name"]: record.parent for record in own}
        folder = known.get(name)
        committed = {record.stem: record for record in sorted((RECORDS / dataset).glob("*.json"))}
        if folder is None and name in committed:
            return FoundRow(committed[name], None)
        if folder is None:
            hint = did_you_mean(name, [*known, *committed]) or f"; python bench.py table --out {out} lists the rows"
            raise UserError(f"no row {name} in {out / 'results' / dataset}{hint}")
    return FoundRow(folder / "result.json", folder)
