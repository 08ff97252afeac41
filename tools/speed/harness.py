"""Time two ways of doing the same work, alternately in one run, after checking that their results agree."""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rows.provenance import HOME, environment
from zoo.files.atomic import write_json

if TYPE_CHECKING:
    import torch

RECORDS = HOME / "benchmarks" / "records" / "speed"
PAIRS, FEW = 5, 3  # pairs per work; few if a run takes half a minute or more
STAT = Path("/proc/stat")
QUIET = 0.3  # cores that other processes may keep busy before a pair that is recorded
PATIENCE = 60  # seconds to wait for that
STEADY = 1.5  # how many times as long as the fastest run of recorded work the slowest may take
TRIES = 3  # how many times as many pairs to time, at most, until enough in a row are steady
BRIEF = 0.01  # seconds; shorter runs count as this long, because they vary on any machine


class Disagree(Exception):
    """The two ways gave different results, so their times mean nothing."""


class Busy(Exception):
    """Other processes or other machines on the same host interfere, so times would not be those of the work."""


@dataclass(frozen=True)
class Work:
    """One row of the table: the same work, done the plain way and our way.

    Attributes:
        name: of the row and its record.
        what: the work and its size, in words.
        against: the plain way, in words.
        plain: does the work the plain way.
        ours: does the work our way.
        differ: describes how two results differ; None if they agree.
        must: required ratio; None if only `seconds` counts.
        aim: desired ratio.
        seconds: limit for our way, or None.
        reset: restores the state of a first run before each timing of our way; not timed.
        facts: further measurements for the record, taken after the pairs.
        pairs: timings of each way.
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
    pairs: int = PAIRS


def measure(work: Work, pairs: int | None = None, device: str = "cpu", quiet: bool = False) -> dict[str, Any]:
    """Compare the results of the two ways, then time them alternately.

    Args:
        work: both ways.
        pairs: number of timings of each way, in place of the work's own.
        device: torch device, for the record.
        quiet: whether to insist on a quiet and steady machine.

    Returns:
        The record, ready for JSON. `ratio` is the lower quartile of the pairs' ratios: three of four runs do better.

    Raises:
        Disagree: the results differ; nothing was timed.
        Busy: others keep more than `QUIET` cores busy, or equal work takes very different times again and again.
    """
    made_with = environment_once(device)
    expected = work.plain()
    if work.reset is not None:
        work.reset()
    difference = work.differ(expected, work.ours())
    if difference is not None:
        raise Disagree(f"{work.name}: the two ways differ, so there is no ratio: {difference}")
    del expected
    timed, busy = _steady_pairs(work, pairs or work.pairs) if quiet else (_pairs(work, pairs or work.pairs), None)
    plain, ours = zip(*timed, strict=True)
    return {
        "name": work.name,
        "what": work.what,
        "against": work.against,
        "pairs": [list(pair) for pair in timed],
        "plain_seconds": statistics.median(plain),
        "seconds": statistics.median(ours),
        "ratio": lower_quartile([one / other for one, other in timed]),
        "must": work.must,
        "aim": work.aim,
        "seconds_allowed": work.seconds,
        "facts": work.facts(),
        "environment": made_with,
        "busy": busy,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _pairs(work: Work, count: int) -> list[tuple[float, float]]:
    """Time the plain way and ours alternately; return the seconds of each pair."""
    timed = []
    for _ in range(count):
        plain = _seconds(work.plain)
        if work.reset is not None:
            work.reset()
        timed.append((plain, _seconds(work.ours)))
    return timed


def _steady_pairs(work: Work, count: int) -> tuple[list[tuple[float, float]], float]:
    """Time pairs until `count` in a row are of a steady machine; return them, and how many cores others kept busy.

    Neighbours of a virtual machine come and go, so the first pairs may be of their time.
    """
    timed: list[tuple[float, float]] = []
    busy: list[float] = []
    while True:
        busy.append(wait_until_quiet())
        timed += _pairs(work, 1)
        last = timed[-count:]
        try:
            for times in zip(*last, strict=True):
                check_steady(work.name, times)
        except Busy:
            if len(timed) >= TRIES * count:
                raise
            continue
        if len(last) == count:
            return last, round(max(busy[-count:]), 2)


def wait_until_quiet() -> float:
    """Wait until other processes keep at most `QUIET` cores busy, and return how many in the last second.

    Raises:
        Busy: they do not within `PATIENCE` seconds.
    """
    for _ in range(PATIENCE):
        busy = busy_cores()
        if busy <= QUIET:
            return busy
    raise Busy(f"other processes keep {busy:.1f} cores busy; measure on a quiet machine, or leave --record out")


def check_steady(name: str, times: Sequence[float]) -> None:
    """Check that equal work took about equal times. No counter here shows what a virtual machine's neighbours use.

    Raises:
        Busy: the slowest took more than `STEADY` times as long as the fastest.
    """
    if max(times) > STEADY * max(min(times), BRIEF):
        raise Busy(
            f"{name}: the same work took {seconds_text(min(times))} to {seconds_text(max(times))}, so this "
            "machine's speed varies; measure on another, or leave --record out"
        )


def busy_cores(during: float = 1.0) -> float:
    """Measure how many cores other processes keep busy while this one sleeps. 0 where there is no /proc/stat."""
    if not STAT.exists():
        return 0.0
    before = _ticks()
    time.sleep(during)
    return (_ticks() - before) / os.sysconf("SC_CLK_TCK") / during


def _ticks() -> int:
    """Return the clock ticks that all cores were busy since the machine started; see proc(5)."""
    user, nice, system, _, _, *more = map(int, STAT.read_text(encoding="ascii").partition("\n")[0].split()[1:])
    return user + nice + system + sum(more[:3])  # interrupts, soft interrupts, stolen; guests are part of user


def lower_quartile(values: list[float]) -> float:
    """Return the lower quartile, interpolated between neighbours; for one value, that value."""
    return values[0] if len(values) == 1 else statistics.quantiles(values, n=4, method="inclusive")[0]


def reached(record: dict[str, Any]) -> bool:
    """Tell whether a record meets its required ratio and time."""
    fast = record["must"] is None or record["ratio"] >= record["must"]
    return fast and (record["seconds_allowed"] is None or record["seconds"] <= record["seconds_allowed"])


def line(record: dict[str, Any]) -> str:
    """Format a record as one line."""
    digits = 2 if record["ratio"] < 2 else 1
    text = f"{record['name']:<20} {record['ratio']:>8,.{digits}f}x  "
    text += f"{seconds_text(record['plain_seconds']):>8} -> {seconds_text(record['seconds']):<8}"
    wanted = [f"{word} {record[word]:,g}x" for word in ("must", "aim") if record[word] is not None]
    if record["seconds_allowed"] is not None:
        wanted.append(f"at most {seconds_text(record['seconds_allowed'])}")
    return f"{text} ({', '.join(wanted)})" if wanted else text


def seconds_text(value: float) -> str:
    """Format a duration with three digits: 12.3 ms, 1.23 s."""
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def write_record(record: dict[str, Any], kind: str) -> Path:
    """Write a record to `benchmarks/records/speed/<kind>/<name>.json`; `kind` is the device, "cpu" or "gpu"."""
    path = RECORDS / kind / f"{record['name']}.json"
    write_json(path, record)
    return path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all speed benchmarks share."""
    parser.add_argument("--quick", action="store_true", help="small sizes; says nothing about the large ones")
    parser.add_argument("--pairs", type=int, metavar="N", help=f"timings of each way (default {PAIRS} or {FEW})")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/speed/<cpu or gpu>/<name>.json")


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with an error if quick figures would be recorded."""
    if options.record and options.quick:
        parser.error("--quick sizes cannot be recorded")


def measure_all(works: Iterable[Work], options: argparse.Namespace, device: str = "cpu") -> int:
    """Measure works and print one line each; return the number that missed a goal or whose results differ."""
    failed = 0
    for work in works:
        try:
            record = measure(work, options.pairs, device, options.record)
        except (Busy, Disagree) as error:
            print(error, file=sys.stderr)
            failed += 1
            continue
        print(line(record), flush=True)
        if record["facts"]:
            print(record["facts"], flush=True)
        failed += not (options.quick or reached(record))
        if options.record:
            print(write_record(record, "cpu" if device == "cpu" else "gpu"))
    return failed


def seconds(work: Callable[[], Any], device: torch.device | None = None) -> float:
    """Return the time that work takes; on a GPU, until the device has finished it."""
    if device is not None:
        from torch.cuda import synchronize  # some benchmarks do not import torch

        synchronize(device)
    began = time.perf_counter()
    work()
    if device is not None:
        synchronize(device)
    return time.perf_counter() - began


@cache
def environment_once(device: str) -> dict[str, Any]:
    """Describe code and machine once per process, because each record changes the checkout, but not the code."""
    return environment(_device_name(device))


def _device_name(device: str) -> str:
    if device == "cpu":
        return device
    from benchmarks.system.device import device_name  # needs torch, which some benchmarks do not import

    return device_name(device)


def _seconds(work: Callable[[], Any]) -> float:
    gc.collect()  # garbage of the other way is not this one's work
    began = time.perf_counter()
    result = work()
    taken = time.perf_counter() - began
    del result
    return taken
