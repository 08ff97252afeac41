"""What a run found, beside the committed record of its row."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.rows.find import RECORDS
from benchmarks.rows.schema import Result, bound_of, read_result, shown_split
from benchmarks.system.progress import plural


def outcome_in_words(result: Result) -> str | None:
    """Say a row's mAP, and that of its committed record: per seed, because seeds do not travel between machines.

    Args:
        result: of a run.

    Returns:
        One sentence; None if the row has no figure. The record is left out unless it is of this row, in this version,
        on the same data.
    """
    split = shown_split(result)
    found = "" if split is None else _range(result["splits"][split]["metrics"]["mAP"]["per_seed"])
    if not found:
        return None
    seeds = "" if bound_of(result) else f", {plural(len(result['seeds']), 'seed')}"
    said = f"{result['name']}: mAP {found} on {result['dataset']['name']} {split}{seeds}"
    record = None if split is None else _record_of(result, split)
    if record is None or split is None:
        return said
    expected = _range(record["splits"][split]["metrics"]["mAP"]["per_seed"])
    return f"{said}; {expected} in {plural(len(record['seeds']), 'seed')} on record" if expected else said


def _record_of(result: Result, split: str) -> Result | None:
    """The committed record of a run's row, if it is comparable."""
    path = RECORDS / result["dataset"]["name"] / f"{result['name']}.json"
    if not path.is_file():
        return None
    record = read_result(path)
    if split not in record["splits"] or record["config"]["version"] != result["config"]["version"]:
        return None
    same = record["dataset"]["splits"][split]["sha256"] == result["dataset"]["splits"][split]["sha256"]
    return record if same else None


def _range(per_seed: Sequence[float | None]) -> str:
    """Lowest to highest mAP in percent; empty if one is undefined."""
    values = [100 * value for value in per_seed if value is not None]
    if len(values) < len(per_seed):
        return ""
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"
