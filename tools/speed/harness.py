"""Time two ways of doing the same work, alternately and in one run, after checking that they agree.

Knows nothing of what is timed: each work says how it is done twice and how the results are compared.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.rows.provenance import HOME, environment
from zoo.files.atomic import write_json

RECORDS = HOME / "benchmarks" / "records" / "speed"
PAIRS = 5


class Disagree(Exception):
    """The two ways gave different results, so how long they took means nothing."""


@dataclass(frozen=True)
class Work:
    """One row of the table: the same work done twice.

    Attributes:
        name: of the row and of its record.
        what: the work and its size, in words.
        against: what the plain way does, in words.
        plain: does it the plain way.
        ours: does it the way of this project.
        differ: says in words how the results of the two differ, None where they agree.
        must: the ratio that has to be reached, or None where only `seconds` counts.
        aim: the ratio that is aimed at.
        seconds: what our way may take at most, or None.
        reset: run before each timing of our way, and not timed: puts back what a first run finds.
        facts: further measurements for the record, taken after the pairs.
    """

    name: str
    what: str
    against: str
    plain: Callable[[], Any]
    ours: Callable[[], Any]
    differ: Callable[[Any, Any], str | None]
    must: float | None = None
    aim: float | None = None
    seconds: float | None = None
    reset: Callable[[], None] | None = None
    facts: Callable[[], dict[str, Any]] = field(default=dict)


def measure(work: Work, pairs: int = PAIRS, device: str = "cpu") -> dict[str, Any]:
    """Compare the results of the two ways, then time them in turn.

    Args:
        work: what to measure.
        pairs: how often each way is timed.
        device: torch device, for the record.

    Returns:
        The record, ready for JSON. `ratio` is the lower quartile of the pairs' ratios: three of four runs do better.

    Raises:
        Disagree: the results differ; nothing was timed.
    """
    expected = work.plain()
    if work.reset is not None:
        work.reset()
    difference = work.differ(expected, work.ours())
    if difference is not None:
        raise Disagree(f"{work.name}: the two ways differ, so there is no ratio: {difference}")
    del expected
    plain, ours = [], []
    for _ in range(pairs):
        plain.append(_seconds(work.plain))
        if work.reset is not None:
            work.reset()
        ours.append(_seconds(work.ours))
    ratios = [one / other for one, other in zip(plain, ours, strict=True)]
    return {
        "name": work.name,
        "what": work.what,
        "against": work.against,
        "pairs": [list(pair) for pair in zip(plain, ours, strict=True)],
        "plain_seconds": statistics.median(plain),
        "seconds": statistics.median(ours),
        "ratio": lower_quartile(ratios),
        "must": work.must,
        "aim": work.aim,
        "seconds_allowed": work.seconds,
        "facts": work.facts(),
        "environment": environment(_device_name(device)),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def lower_quartile(values: list[float]) -> float:
    """The lower quartile, interpolated between neighbours; of one value, that value."""
    return values[0] if len(values) == 1 else statistics.quantiles(values, n=4, method="inclusive")[0]


def reached(record: dict[str, Any]) -> bool:
    """Whether a record meets what it must."""
    fast = record["must"] is None or record["ratio"] >= record["must"]
    return fast and (record["seconds_allowed"] is None or record["seconds"] <= record["seconds_allowed"])


def line(record: dict[str, Any]) -> str:
    """A record in one line."""
    digits = 2 if record["ratio"] < 2 else 1
    text = f"{record['name']:<20} {record['ratio']:>8,.{digits}f}x  "
    text += f"{seconds_text(record['plain_seconds']):>8} -> {seconds_text(record['seconds']):<8}"
    wanted = [f"{word} {record[word]:,g}x" for word in ("must", "aim") if record[word] is not None]
    if record["seconds_allowed"] is not None:
        wanted.append(f"at most {seconds_text(record['seconds_allowed'])}")
    return f"{text} ({', '.join(wanted)})" if wanted else text


def seconds_text(value: float) -> str:
    """A duration with three digits: 12.3 ms, 1.23 s."""
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def write_record(record: dict[str, Any], kind: str) -> Path:
    """Write a record to `benchmarks/records/speed/<kind>/<name>.json`; `kind` says what it was measured on: "cpu"."""
    path = RECORDS / kind / f"{record['name']}.json"
    write_json(path, record)
    return path


def _device_name(device: str) -> str:
    if device == "cpu":
        return device
    from benchmarks.system.device import device_name  # needs torch, which work on a CPU may do without

    return device_name(device)


def _seconds(work: Callable[[], Any]) -> float:
    gc.collect()  # what the other way left behind is not this one's work
    began = time.perf_counter()
    result = work()
    taken = time.perf_counter() - began
    del result
    return taken
