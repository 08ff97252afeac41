"""What the committed record of a row leads one to expect of a run."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.rows.find import RECORDS
from benchmarks.rows.schema import Result, read_result, shown_split
from benchmarks.system.progress import plural


def expected_in_words(result: Result) -> str | None:
    """Compare a row's mAP with its committed record: per seed, because seeds do not travel between machines.

    Args:
        result: of a run.

    Returns:
        One sentence; None if there is no record of this row, in this version, on the same data.
    """
    path, split = RECORDS / result["dataset"]["name"] / f"{result['name']}.json", shown_split(result)
    if split is None or not path.is_file():
        return None
    record = read_result(path)
    versions = [each["config"]["version"] for each in (record, result)]
    if split not in record["splits"] or versions[0] != versions[1]:
        return None
    if record["dataset"]["splits"][split]["sha256"] != result["dataset"]["splits"][split]["sha256"]:
        return None
    expected, found = (_range(each["splits"][split]["metrics"]["mAP"]["per_seed"]) for each in (record, result))
    if not expected or not found:
        return None
    counts = [plural(len(each["seeds"]), "seed") for each in (record, result)]
    return f"{result['name']}: {split} mAP {expected} in {counts[0]} on record; yours {found} from {counts[1]}"


def _range(per_seed: Sequence[float | None]) -> str:
    """Lowest to highest mAP in percent; empty if one is undefined."""
    values = [100 * value for value in per_seed if value is not None]
    if len(values) < len(per_seed):
        return ""
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"
