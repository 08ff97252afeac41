"""Undisturbed runs, which runs under faults are compared with."""

from __future__ import annotations

import fcntl
import functools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import compare, memory
from tests.faults.machine import Machine, size_of
from tests.faults.running import Running
from tests.faults.scenarios import Scenario


@dataclass
class Reference:
    """An undisturbed run.

    Attributes:
        contents: path -> bytes of all files afterwards.
        given: paths that were there before.
        operations: number of operations on files.
        calls: number of calls that need memory.
        seconds: of a fork.
        fresh_seconds: of a new process.
        size: bytes of all files afterwards.
        given_size: bytes of all files before.
    """

    contents: dict[str, bytes]
    given: set[str]
    operations: int
    calls: int
    seconds: float
    fresh_seconds: float
    size: int
    given_size: int


def reference(keep: Path, scenario: Scenario, machine: Machine) -> Reference:
    """Run a scenario three times undisturbed, or read the earlier result.

    Raises:
        RuntimeError: the command failed, or two runs differ.
    """
    folder = keep / "reference" / scenario.name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        facts = folder / "facts.json"
        if not facts.exists():
            facts.write_text(json.dumps(_run_undisturbed(folder, keep / "inputs", scenario, machine)))
        known = json.loads(facts.read_text())
    known["given"] = set(known["given"])
    return Reference(contents=compare.contents(folder / "0" / "work"), **known)


def _run_undisturbed(folder: Path, inputs: Path, scenario: Scenario, machine: Machine) -> dict[str, Any]:
    """Run once with memory calls counted, once plainly and once as a new process."""
    found: list[dict[str, bytes]] = []
    known: dict[str, Any] = {}
    for number in range(3):
        work = folder / str(number) / "work"
        shutil.rmtree(work.parent, ignore_errors=True)
        work.mkdir(parents=True)
        scenario.begin(inputs, work)
        known["given"] = sorted(compare.contents(work))
        known["given_size"] = size_of(work)
        machine.arm(work)
        line, fresh = scenario.line(inputs, work), number == 2
        count = functools.partial(memory.install, machine.state, "MemoryError") if number == 0 else lambda: None
        ended = Running(line, work, scenario.threads, fresh, count).end(300)
        if ended.status or ended.trouble:
            raise RuntimeError(f"{scenario.name} fails undisturbed: {ended}")
        if number == 0:
            known["calls"] = machine.state.calls
        known["fresh_seconds" if fresh else "seconds"] = ended.seconds
        known["operations"] = machine.disarm()
        found.append(compare.contents(work))
    for again in found[1:]:
        if differs := compare.difference(again, found[0]):
            raise RuntimeError(f"two undisturbed runs of {scenario.name} differ: {differs}")
    known["size"] = size_of(folder / "0" / "work")
    return known
