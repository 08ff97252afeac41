"""Injection of one case: the fault, the next run, and the verdict."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults import compare, memory
from tests.faults.cases import CLUSTERS, DAMAGES, PLACED, SIGNALS, Case
from tests.faults.clusters import kill_a_worker
from tests.faults.machine import ALL, CLOCK, FAIL, LASTING, ONCE, SIGNAL, Machine, remount, tmpfs
from tests.faults.reference import reference
from tests.faults.running import Ended, Running
from tests.faults.scenarios import SCENARIOS, slow_extract

PATIENCE, TIMES = 90.0, 25  # a run hangs after this many seconds and this many times its usual duration
SENTINEL = b"a file of somebody else's\n"


class Injection:
    """One case, with its folder.

    Args:
        keep: folder of inputs, undisturbed runs and cases.
        case: fault to inject.
        machine: that this process runs on.
    """

    def __init__(self, keep: Path, case: Case, machine: Machine) -> None:
        self.case = case
        self.machine = machine
        self.inputs = keep / "inputs"
        self.scenario = SCENARIOS[case.scenario]
        self.wanted = reference(keep, self.scenario, machine)
        self.folder = keep / "cases" / re.sub(r"\W+", "-", case.id)
        self.work = self.folder / "work"
        self.line = self.scenario.line(self.inputs, self.work)
        self.limit = max(PATIENCE, TIMES * self.wanted.seconds)
        self.moment = ""
        self.after = ""
        self.placed: Path | None = None
        self.outside = self.folder / "outside"

    def run(self) -> dict[str, Any]:
        """Inject the fault, run again and compare; return the outcome, ready for JSON."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.work.mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            faulted, recovery, verdict = self._inject(stack)
        if verdict == "same":
            shutil.rmtree(self.folder, ignore_errors=True)
        return self.case.as_dict() | {
            "command": self.scenario.command,
            "moment": self.moment,
            "status": faulted.status,
            "said": faulted.said[:300],
            "after": self.after[:300],
            "verdict": verdict,
            "fired": faulted.fired,
            "seconds": round(faulted.seconds, 3),
            "recovery": round(recovery, 3),
            "undisturbed": round(self.wanted.seconds, 3),
        }

    def _inject(self, stack: contextlib.ExitStack) -> tuple[Ended, float, str]:
        kind = self.case.kind
        if kind in CLUSTERS:
            return self._cluster()
        if kind in ("full disk", "read-only") and (faulted := self._disk(stack)) is not None:
            return faulted, *self._recover(faulted)
        self.scenario.begin(self.inputs, self.work)
        inject = {
            **dict.fromkeys(SIGNALS, self._signal),
            **dict.fromkeys(("full disk", "read-only", "failing write"), self._fail),
            **dict.fromkeys(DAMAGES, self._damage),
            **dict.fromkeys(PLACED, self._place),
            "clock": self._clock,
            "two at once": self._two,
            "memory": self._memory,
        }
        faulted = inject[kind]()
        return faulted, *self._recover(faulted)

    def _cluster(self) -> tuple[Ended, float, str]:
        """Kill a worker of torchrun or Ray, and run the plain command again."""
        undisturbed = self.folder / "undisturbed"
        line = slow_extract(self.inputs, undisturbed)[1:]
        plain = Running(line, undisturbed, self.scenario.threads).end(self.limit)
        self.wanted.seconds = plain.seconds
        faulted = kill_a_worker(self.case, self.inputs, self.work)
        restarts = f", up to {self.case.drawn['restarts']} restarts" if self.case.kind == "torchrun" else ""
        self.moment = f"{self.case.drawn['wait']:.2f} s after the first batch{restarts}"
        again = Running(slow_extract(self.inputs, self.work)[1:], self.work, self.scenario.threads).end(self.limit)
        differs = compare.difference(compare.contents(self.work), compare.contents(undisturbed))
        bad = faulted.trouble or again.trouble or (f"lost: {again.said}" if again.status else "")
        return faulted, again.seconds, bad or (f"wrong: {differs}" if differs else "same")

    # -- faults ---------------------------------------------------------------------------------------------------

    def _start(self, fresh: bool = False, prepare: Callable[[], None] = lambda: None, **what: int) -> Running:
        self.machine.arm(self.work, **what)
        return Running(self.line, self.work, self.scenario.threads, fresh, prepare)

    def _end(self, running: Running) -> Ended:
        ended = running.end(self.limit)
        ended.fired = bool(self.machine.state.fired)
        self.machine.disarm()
        return ended

    def _operation(self) -> int:
        at = 1 + int(self.case.drawn["share"] * self.wanted.operations)
        self.moment = f"operation {at} of {self.wanted.operations}"
        return at

    def _signal(self) -> Ended:
        drawn = self.case.drawn
        number, group, twice = drawn["signal"], bool(drawn["group"]), self.case.kind == "interrupt twice"
        if drawn["by"] == "operation":
            at = self._operation()
            running = self._start(drawn["fresh"], action=SIGNAL, at=at, number=number, group=group)
            wait: Callable[[], bool] = lambda: bool(self.machine.state.fired)  # noqa: E731
            sent = True
        else:
            seconds = drawn["share"] * (self.wanted.fresh_seconds if drawn["fresh"] else self.wanted.seconds)
            running = self._start(drawn["fresh"])
            until = time.monotonic() + seconds
            wait, sent = (lambda: time.monotonic() >= until), False
            self.moment = f"after {seconds:.2f} s"
        self.moment += ", a new process" * bool(drawn["fresh"]) + ", to all its processes" * group
        while not running.over() and not wait():
            time.sleep(0.002)
        fired = not running.over() or bool(self.machine.state.fired)
        if not sent:
            running.send(number, group)
        if twice:
            until = time.monotonic() + drawn["gap"]
            while not running.over() and time.monotonic() < until:
                time.sleep(0.002)
            running.send(number, group)
        ended = self._end(running)
        ended.fired = fired
        return ended

    def _fail(self) -> Ended:
        lasting = {"full disk": LASTING, "read-only": ALL}.get(self.case.kind, ONCE)
        at = self._operation()
        number = self.case.drawn["errno"]
        self.moment += f", {os.strerror(number)}"
        return self._end(self._start(action=FAIL, at=at, number=number, lasting=lasting))

    def _disk(self, stack: contextlib.ExitStack) -> Ended | None:
        """Run on a small or read-only file system; None if the case does not ask for one or mounting is not allowed."""
        full, share = self.case.kind == "full disk", self.case.drawn["share"]
        size = self.wanted.given_size + 8192 + int(share * max(0, self.wanted.size - self.wanted.given_size))
        size = -(-size // 4096) * 4096 if full else 1 << 28
        if not self.case.drawn["mount"] or not stack.enter_context(tmpfs(self.work, f"size={size}")):
            return None
        self.scenario.begin(self.inputs, self.work)
        if full:
            self.moment = f"a disk of {size / 1e3:.0f} kB"
            ended = self._end(self._start())
            remount(self.work, f"size={1 << 28}")
        else:
            self.moment = "from the start"
            remount(self.work, "ro")
            ended = self._end(self._start())
            remount(self.work, "rw")
        ended.fired = ended.status != 0
        return ended

    def _half(self) -> Ended:
        at = self._operation()
        self.moment = f"killed at {self.moment}"
        return self._end(self._start(action=SIGNAL, at=at, number=signal.SIGKILL, group=True))

    def _damage(self) -> Ended:
        drawn = self.case.drawn
        ended = self._half() if drawn["half-way"] else self._end(self._start())
        names = [name for name in compare.contents(self.work) if name not in self.wanted.given]
        names = [name for name in names if (self.work / name).stat().st_size]
        if not names:
            ended.fired = False
            self.moment += ", nothing to damage"
            return ended
        path = self.work / names[int(drawn["file"] * len(names))]
        data = bytearray(path.read_bytes())
        place = int(drawn["place"] * len(data))
        if self.case.kind == "truncated":
            data = data[:place]
            how = f"cut to {place} of {path.stat().st_size} bytes"
        else:
            data[place] ^= 1 << drawn["bit"]
            how = f"bit {drawn['bit']} of byte {place}"
        path.write_bytes(data)
        self._tell_place(path, how)
        ended.fired = True
        return ended

    def _place(self) -> Ended:
        """Put a link or a special file under a name that the command writes, and run the command."""
        drawn, when = self.case.drawn, self.case.drawn["when"]
        trouble = ""
        if when == "before":
            names = sorted(self.wanted.contents.keys() - self.wanted.given)
            self.moment = "before the first run"
        else:
            trouble = (self._half() if when == "half-way" else self._end(self._start())).trouble
            found = [path for path in sorted(self.work.rglob("*")) if path.is_file()]
            names = [
                name for path in found if (name := path.relative_to(self.work).as_posix()) not in self.wanted.given
            ]
        self.outside.write_bytes(SENTINEL)
        if names:
            self.placed = self.work / names[int(drawn["file"] * len(names))]
            self.placed.parent.mkdir(parents=True, exist_ok=True)
            self.placed.unlink(missing_ok=True)
            _make(drawn["what"], self.placed, self.outside)
            self._tell_place(self.placed, f"{self.case.kind}: {drawn['what']}")
        ended = self._again()
        ended.fired = bool(names)
        ended.trouble = ended.trouble or trouble
        return ended

    def _tell_place(self, path: Path, how: str) -> None:
        where = path.relative_to(self.work).as_posix()
        where = f"...{where[-60:]}" if len(where) > 60 else where
        self.moment = f"{self.moment or 'when done'}, {where}, {how}"

    def _clock(self) -> Ended:
        seconds = self.case.drawn["seconds"]
        if not self.case.drawn["half-way"]:
            at = self._operation()
            self.moment += f", by {seconds / 86400:+,.2f} days"
            return self._end(self._start(action=CLOCK, at=at, shift=seconds))
        ended = self._half()
        then = time.time() - seconds
        for path in [*self.work.rglob("*"), self.work]:
            os.utime(path, (then, then))
        self.moment += f", resumed with the clock {seconds / 86400:+,.2f} days and file times the other way"
        again = self._end(self._start(action=CLOCK, at=1, shift=seconds))
        again.trouble, again.fired = again.trouble or ended.trouble, True
        return again

    def _two(self) -> Ended:
        seconds = self.case.drawn["share"] * self.wanted.seconds
        self.moment = f"the second after {seconds:.2f} s"
        first = self._start()
        time.sleep(seconds)
        second = Running(self.line, self.work, self.scenario.threads)
        while not (first.over() and second.over()) and time.monotonic() < first.started + self.limit:
            time.sleep(0.003)
        one, other = first.end(self.limit), second.end(self.limit)
        self.machine.disarm()
        refused = one if one.status else other
        refused.trouble = one.trouble or other.trouble
        if one.status and other.status and not refused.trouble:
            refused.trouble = f"both refused: {one.said} | {other.said}"
        refused.fired = True
        return refused

    def _memory(self) -> Ended:
        at = 1 + int(self.case.drawn["share"] * self.wanted.calls)
        self.moment = f"call {at} of {self.wanted.calls}, {self.case.drawn['error']}"
        install = functools.partial(memory.install, self.machine.state, self.case.drawn["error"])
        return self._end(self._start(prepare=install, calls_at=at))

    # -- afterwards -------------------------------------------------------------------------------------------------

    def _again(self, *options: str) -> Ended:
        running = Running([*self.line, *options], self.work, self.scenario.threads)
        return running.end(self.limit)

    def _recover(self, faulted: Ended) -> tuple[float, str]:
        """Run again, follow the advice of messages about damaged files, and return seconds and verdict."""
        if faulted.trouble:
            return 0.0, faulted.trouble
        damaged = self.case.kind in (*DAMAGES, *PLACED)
        seconds = 0.0
        used = False
        if faulted.status and self.placed is not None:
            self._follow(faulted.said)
        for _ in range(5):
            ended = self._again(*(self.scenario.flags if used else ()))
            seconds += ended.seconds
            if ended.trouble:
                return seconds, f"run again: {ended.trouble}"
            if self.placed is not None and (written := self._written_outside()):
                return seconds, written
            if ended.status and not (damaged and self._follow(ended.said)):
                return seconds, f"lost: run again, it reports: {ended.said[:300]}"
            if ended.status:
                continue
            differs = compare.difference(compare.contents(self.work), self.wanted.contents)
            if not differs:
                return seconds, "same"
            if damaged and used and any(self._follow(line) for line in ended.printed):
                continue
            if not damaged or used:
                word = "wrong" if differs.keys() & {"differ"} else "lost" if "missing" in differs else "left over"
                return seconds, f"{word}: {json.dumps(differs)[:400]}"
            used = True
            self.scenario.use(self.work)
        return seconds, f"lost: every run reports: {ended.said[:300]}"

    def _follow(self, said: str) -> bool:
        """Do what a message asks for, if anything: delete a path, or use another folder (the same one, emptied).

        A link or special file that a message names is deleted in any case.
        """
        if self.placed is not None and str(self.placed) in said and os.path.lexists(self.placed):
            self.after = said
            _remove(self.placed)
            return True
        paths = [word.rstrip(".,;:)") for word in re.findall(rf"{re.escape(str(self.work))}[^\s;,()]*", said)]
        asked = re.search(r"delete (\S+)", said)
        if not paths or not (asked or "another folder" in said):
            return False
        target = Path(asked[1].rstrip(".,;:")) if asked and asked[1].startswith("/") else Path(paths[0])
        if self.work not in target.parents:
            return False
        self.after = said
        _remove(target)
        return True

    def _written_outside(self) -> str:
        """Describe what a run has written through the link; empty if nothing."""
        if not os.path.lexists(self.outside):
            return "" if self.case.drawn["what"] == "no file" else "wrong: the file behind the link is gone"
        return "" if self.outside.read_bytes() == SENTINEL else "wrong: written through a link"


def _make(what: str, path: Path, outside: Path) -> None:
    """Make a link or a special file."""
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "folder":
        path.mkdir()
    elif what == "endless file":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        if what == "no file":
            outside.unlink()
        path.symlink_to(outside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
