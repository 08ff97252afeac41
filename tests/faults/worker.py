"""Injects cases that come as lines of JSON, and answers each with a line of JSON: `python -m tests.faults.worker`.

Importing torch and the rest takes seconds, so this process does it once, and each run is a fork of it that begins where
`python bench.py` begins: a session, streams, signal handlers and a `__main__` of its own. It has no threads when it
forks. Every eighth signal and all of torchrun and Ray go to processes started from nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import HOME, RAY_WORKERS
from tests.faults import compare, machine, memory
from tests.faults.cases import CLUSTERS, SIGNALS, Case
from tests.faults.machine import Machine
from tests.faults.scenarios import SCENARIOS, Scenario, slow_extract

LINGER = 10.0  # seconds that what a killed command has started may take to notice
PATIENCE = 90.0  # seconds that a run may take at least before it counts as hanging, and so many times the usual:
TIMES = 25

WARM = (
    *("av", "cv2", "scipy.signal", "sklearn.metrics", "PIL.JpegImagePlugin", "PIL.PngImagePlugin"),
    *(f"benchmarks.commands.{name}" for name in ("extract", "run", "prepare", "predict")),
    *(
        "benchmarks.data.crops",
        "benchmarks.config.ensemble",
        "benchmarks.features.extract",
        "benchmarks.evaluation.calibration",
    ),
    *(
        "benchmarks.pipeline.run",
        "benchmarks.training.seeds",
        "benchmarks.table.table",
        "benchmarks.video.pipeline",
        "zoo.models",
    ),
)


@dataclass
class Ended:
    """A run that is over: exit status (-N of signal N), seconds, its last line, what it should not do, all lines."""

    status: int
    seconds: float
    said: str
    trouble: str = ""
    fired: bool = False
    printed: list[str] = field(default_factory=list)


class Running:
    """A command on its way, in a session of its own."""

    def __init__(self, line: Sequence[str], work: Path, threads: int, fresh: bool = False, error: str = "") -> None:
        self.output = work.parent / f"output.{time.monotonic_ns()}"
        self._printed = self.output.with_suffix(".stdout")
        self._started = time.monotonic()
        self._threads = threads
        self._error = error
        if fresh:
            with self.output.open("wb") as output:
                self.pid = subprocess.Popen(
                    [sys.executable, "bench.py", *line],
                    cwd=HOME,
                    stdout=subprocess.DEVNULL,
                    stderr=output,
                    start_new_session=True,
                    preexec_fn=_usual_signals,
                ).pid
        else:
            self.pid = os.fork()
            if not self.pid:
                self._be(line)
        self.status: int | None = None
        self.seconds = 0.0

    def _be(self, line: Sequence[str]) -> None:
        """Be the command: what `python bench.py` does, from the first line of bench.py on."""
        import torch

        status = 1
        try:
            os.setsid()
            _usual_signals()
            descriptor = os.open(self.output, os.O_WRONLY | os.O_CREAT, 0o666)
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(os.open(self._printed, os.O_WRONLY | os.O_CREAT, 0o666), 1)
            os.dup2(descriptor, 2)
            sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115, PTH123
            sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115, PTH123
            os.chdir(HOME)
            torch.set_num_threads(self._threads)
            if self._error:
                memory.install(MACHINE.state, self._error)
            sys.argv = ["bench.py", *line]
            try:
                runpy.run_path(str(HOME / "bench.py"), run_name="__main__")
                status = 0
            except SystemExit as stop:
                status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            except KeyboardInterrupt:  # as Python itself ends
                traceback.print_exc()
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGINT)
            except BaseException:
                traceback.print_exc()
            with contextlib.suppress(BaseException):
                threading._shutdown()  # type: ignore[attr-defined]
                atexit._run_exitfuncs()
                sys.stdout.flush()
        finally:
            os._exit(status)

    def over(self) -> bool:
        """Whether it has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                self.seconds = time.monotonic() - self._started
        return self.status is not None

    def send(self, number: int, group: bool) -> None:
        """Send a signal, if it is still there."""
        if not self.over():
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.pid, number)

    def end(self, limit: float) -> Ended:
        """Wait for the end, of what it has started too."""
        trouble = ""
        while not self.over():
            if time.monotonic() - self._started > limit:
                trouble = f"hang: still running after {limit:.0f} s"
                self.send(signal.SIGABRT, False)
                time.sleep(0.2)
                self.send(signal.SIGKILL, True)
            time.sleep(0.003)
        deadline = time.monotonic() + LINGER
        while (left := _session(self.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
        if left:
            names = ", ".join(_name(pid) for pid in left)
            trouble = trouble or f"left running for {LINGER:.0f} s: {names}"
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        text = self.output.read_text(errors="replace")
        lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
        lines = [line for line in lines if not re.search(r"\d+%\|| \[\d\d:\d\d", line)]  # a bar
        if "Traceback (most recent call last)" in text and not trouble:
            trouble = f"traceback: {lines[-1]}"
        assert self.status is not None
        printed = self._printed.read_text(errors="replace").splitlines() if self._printed.exists() else []
        return Ended(self.status, self.seconds, lines[-1] if lines else "", trouble, printed=[*lines, *printed])


def _usual_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _session(leader: int) -> list[int]:
    """Processes of the session that a command was started in."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] not in "ZX":
                    found.append(int(entry.name))
    return found


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80]
    return str(pid)


@dataclass
class Reference:
    """An undisturbed run: what it left, its operations on files, calls that need memory, seconds, and size."""

    contents: dict[str, bytes]
    given: set[str]
    operations: int
    calls: int
    seconds: float
    fresh_seconds: float
    size: int
    given_size: int


def reference(keep: Path, scenario: Scenario) -> Reference:
    """Run a scenario undisturbed, twice, unless that was done before: the two must agree.

    Raises:
        RuntimeError: they do not, or the command fails.
    """
    folder = keep / "reference" / scenario.name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        facts = folder / "facts.json"
        if not facts.exists():
            found, known = [], {}
            for number in range(3):
                work = folder / str(number) / "work"
                shutil.rmtree(work.parent, ignore_errors=True)
                work.mkdir(parents=True)
                scenario.begin(keep / "inputs", work)
                known["given"] = sorted(compare.contents(work))
                known["given_size"] = _size(work)
                MACHINE.arm(work)
                line, fresh = scenario.line(keep / "inputs", work), number == 2
                ended = Running(line, work, scenario.threads, fresh, "MemoryError" * (number == 0)).end(300)
                if ended.status or ended.trouble:
                    raise RuntimeError(f"{scenario.name} fails undisturbed: {ended}")
                if number == 0:
                    known["calls"] = MACHINE.state.calls
                known["fresh_seconds" if fresh else "seconds"] = ended.seconds
                known["operations"] = MACHINE.disarm()
                found.append(compare.contents(work))
            for again in found[1:]:
                if differs := compare.difference(again, found[0]):
                    raise RuntimeError(f"{scenario.name} undisturbed, twice: {differs}")
            known["size"] = _size(folder / "0" / "work")
            facts.write_text(json.dumps(known))
        known = json.loads(facts.read_text())
    known["given"] = set(known["given"])
    return Reference(contents=compare.contents(folder / "0" / "work"), **known)


def _size(folder: Path) -> int:
    """Bytes that a folder takes on a tmpfs."""
    return sum(-(-path.stat().st_size // 4096) * 4096 if path.is_file() else 4096 for path in folder.rglob("*"))


@contextlib.contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[bool]:
    """A small disk at a folder; False where this process may not mount one."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", folder], check=True)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True, capture_output=True)


class Injection:
    """One case at work in a folder of its own."""

    def __init__(self, keep: Path, case: Case) -> None:
        self.case = case
        self.keep = keep
        self.scenario = SCENARIOS[case.scenario]
        self.wanted = reference(keep, self.scenario)
        self.folder = keep / "cases" / re.sub(r"\W+", "-", case.id)
        self.work = self.folder / "work"
        self.line = self.scenario.line(keep / "inputs", self.work)
        self.limit = max(PATIENCE, TIMES * self.wanted.seconds)
        self.moment = ""
        self.after = ""

    def run(self) -> dict[str, Any]:
        """Inject, run again, compare; the outcome, ready for JSON."""
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
        faulted = self._disk(stack) if kind in ("full disk", "read-only") else None
        if faulted is None:
            self.scenario.begin(self.keep / "inputs", self.work)
            if kind in SIGNALS:
                faulted = self._signal()
            elif kind in ("full disk", "read-only", "failing write"):
                faulted = self._fail()
            elif kind in ("truncated", "flipped bit"):
                faulted = self._damage()
            elif kind == "clock":
                faulted = self._clock()
            elif kind == "two at once":
                faulted = self._two()
            else:
                faulted = self._memory()
        return faulted, *self._recover(faulted)

    # -- faults ---------------------------------------------------------------------------------------------------

    def _start(self, fresh: bool = False, error: str = "", **what: int) -> Running:
        MACHINE.arm(self.work, **what)
        return Running(self.line, self.work, self.scenario.threads, fresh, error)

    def _end(self, running: Running) -> Ended:
        ended = running.end(self.limit)
        ended.fired = bool(MACHINE.state.fired)
        MACHINE.disarm()
        return ended

    def _operation(self, share: float | None = None) -> int:
        share = self.case.drawn["share"] if share is None else share
        at = 1 + int(share * self.wanted.operations)
        self.moment = f"operation {at} of {self.wanted.operations}"
        return at

    def _signal(self) -> Ended:
        drawn = self.case.drawn
        number, group, twice = drawn["signal"], bool(drawn["group"]), self.case.kind == "interrupt twice"
        if drawn["by"] == "operation":
            at = self._operation()
            running = self._start(drawn["fresh"], action=machine.SIGNAL, at=at, number=number, group=group)
            wait: Callable[[], bool] = lambda: bool(MACHINE.state.fired)  # noqa: E731
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
        fired = not running.over() or bool(MACHINE.state.fired)
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
        lasting = {"full disk": machine.LASTING, "read-only": machine.ALL}.get(self.case.kind, machine.ONCE)
        at = self._operation()
        number = self.case.drawn["errno"]
        self.moment += f", {os.strerror(number)}"
        return self._end(self._start(action=machine.FAIL, at=at, number=number, lasting=lasting))

    def _disk(self, stack: contextlib.ExitStack) -> Ended | None:
        """On a file system of its own, where one may be mounted and the case says so."""
        full, share = self.case.kind == "full disk", self.case.drawn["share"]
        size = self.wanted.given_size + 8192 + int(share * max(0, self.wanted.size - self.wanted.given_size))
        size = -(-size // 4096) * 4096 if full else 1 << 28
        if not self.case.drawn["mount"] or not stack.enter_context(tmpfs(self.work, f"size={size}")):
            return None
        self.scenario.begin(self.keep / "inputs", self.work)
        if full:
            self.moment = f"a disk of {size / 1e3:.0f} kB"
            ended = self._end(self._start())
            _remount(self.work, f"size={1 << 28}")
        else:
            self.moment = "from the start"
            _remount(self.work, "ro")
            ended = self._end(self._start())
            _remount(self.work, "rw")
        ended.fired = ended.status != 0
        return ended

    def _half(self) -> Ended:
        at = self._operation()
        self.moment = f"killed at {self.moment}"
        return self._end(self._start(action=machine.SIGNAL, at=at, number=signal.SIGKILL, group=True))

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
        where = path.relative_to(self.work).as_posix()
        where = f"...{where[-60:]}" if len(where) > 60 else where
        self.moment = f"{self.moment or 'when done'}, {where}, {how}"
        ended.fired = True
        return ended

    def _clock(self) -> Ended:
        seconds = self.case.drawn["seconds"]
        if not self.case.drawn["half-way"]:
            at = self._operation()
            self.moment += f", by {seconds / 86400:+,.2f} days"
            return self._end(self._start(action=machine.CLOCK, at=at, shift=seconds))
        ended = self._half()
        then = time.time() - seconds
        for path in [*self.work.rglob("*"), self.work]:
            os.utime(path, (then, then))
        self.moment += f", goes on with the clock {seconds / 86400:+,.2f} days and file times the other way"
        again = self._end(self._start(action=machine.CLOCK, at=1, shift=seconds))
        again.trouble, again.fired = again.trouble or ended.trouble, True
        return again

    def _two(self) -> Ended:
        seconds = self.case.drawn["share"] * self.wanted.seconds
        self.moment = f"the second after {seconds:.2f} s"
        first = self._start()
        time.sleep(seconds)
        second = Running(self.line, self.work, self.scenario.threads)
        while not (first.over() and second.over()) and time.monotonic() < first._started + self.limit:
            time.sleep(0.003)
        one, other = first.end(self.limit), second.end(self.limit)
        MACHINE.disarm()
        refused = one if one.status else other
        refused.trouble = one.trouble or other.trouble
        if one.status and other.status and not refused.trouble:
            refused.trouble = f"both refused: {one.said} | {other.said}"
        refused.fired = True
        return refused

    def _memory(self) -> Ended:
        at = 1 + int(self.case.drawn["share"] * self.wanted.calls)
        self.moment = f"call {at} of {self.wanted.calls}, {self.case.drawn['error']}"
        return self._end(self._start(error=self.case.drawn["error"], calls_at=at))

    # -- afterwards -------------------------------------------------------------------------------------------------

    def _again(self, *options: str) -> Ended:
        running = Running([*self.line, *options], self.work, self.scenario.threads)
        return running.end(self.limit)

    def _recover(self, faulted: Ended) -> tuple[float, str]:
        """Run again, do what it says if it says something, and judge."""
        if faulted.trouble:
            return 0.0, faulted.trouble
        damaged = self.case.kind in ("truncated", "flipped bit")
        seconds = 0.0
        used = False
        for _ in range(5):
            ended = self._again(*(self.scenario.flags if used else ()))
            seconds += ended.seconds
            if ended.trouble:
                return seconds, f"run again: {ended.trouble}"
            if ended.status and not (damaged and self._follow(ended.said)):
                return seconds, f"lost: run again, it says: {ended.said[:300]}"
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
        return seconds, f"lost: says the same again and again: {ended.said[:300]}"

    def _follow(self, said: str) -> bool:
        """Do what a line asks for: delete what it names, or leave the folder that it names for another; False if none.

        Another folder is the same one, emptied.
        """
        paths = [word.rstrip(".,;:)") for word in re.findall(rf"{re.escape(str(self.work))}[^\s;,()]*", said)]
        asked = re.search(r"delete (\S+)", said)
        if not paths or not (asked or "another folder" in said):
            return False
        target = Path(asked[1].rstrip(".,;:")) if asked and asked[1].startswith("/") else Path(paths[0])
        if self.work not in target.parents:
            return False
        self.after = said
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        return True

    # -- clusters ---------------------------------------------------------------------------------------------------

    def _cluster(self) -> tuple[Ended, float, str]:
        """Kill a worker of torchrun or Ray while it works, and run the plain command again."""
        ray, drawn = self.case.kind == "ray", self.case.drawn
        undisturbed = self.folder / "undisturbed"
        line = slow_extract(self.keep / "inputs", undisturbed)[1:]
        plain = Running(line, undisturbed, self.scenario.threads).end(self.limit)
        wanted = compare.contents(undisturbed)
        line = slow_extract(self.keep / "inputs", self.work)
        start = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--max-restarts={drawn['restarts']}"]
        marker = f"LAMZOO_FAULTS_CASE={self.folder}"
        hidden = ("LD_PRELOAD", "LAMZOO_FAULTS", "OMP_NUM_THREADS")
        environment = {key: value for key, value in os.environ.items() if key not in hidden}
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *([*line, "--engine", "ray"] if ray else [*start, *line])],
            cwd=HOME,
            env={**environment, "LAMZOO_FAULTS_CASE": str(self.folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        store = self.work / "store"
        while process.poll() is None and not list(store.glob(".*.part")):
            time.sleep(0.02)
        time.sleep(drawn["wait"])
        wanted_names = RAY_WORKERS if ray else (b"bench.py",)
        workers = [pid for pid in _marked(marker, wanted_names) if pid != process.pid]
        if not ray:
            workers = [pid for pid in workers if b"torch.distributed" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if workers:
            os.kill(workers[int(drawn["share"] * len(workers))], signal.SIGKILL)
        self.moment = f"{drawn['wait']:.2f} s after the first batch" + (
            "" if ray else f", up to {drawn['restarts']} restarts"
        )
        trouble = ""
        try:
            errors = process.communicate(timeout=240)[1]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            errors, trouble = process.communicate()[1], "hang: still running after 240 s"
        lines = [line for line in errors.splitlines() if line.strip()]
        seconds = time.monotonic() - started
        faulted = Ended(process.returncode, seconds, lines[-1] if lines else "", trouble, bool(workers))
        again = Running(line[1:], self.work, self.scenario.threads).end(self.limit)
        differs = compare.difference(compare.contents(self.work), wanted)
        self.wanted.seconds = plain.seconds
        bad = trouble or again.trouble or (f"lost: {again.said}" if again.status else "")
        return faulted, again.seconds, bad or (f"wrong: {differs}" if differs else "same")


def _marked(marker: str, names: Sequence[bytes]) -> list[int]:
    """Processes with a marker in their environment and one of the names in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            ours = marker.encode() in (entry / "environ").read_bytes().split(b"\0")
            if ours and any(name in (entry / "cmdline").read_bytes() for name in names):
                found.append(int(entry.name))
    return sorted(found)


def warm_up() -> None:
    """Import what the commands import, so that no run has to."""
    for name in WARM:
        importlib.import_module(name)
    from registry import BACKBONES, DATASETS, DETECTORS, HEADS, PRIORS

    for each in (BACKBONES, DATASETS, DETECTORS, HEADS, PRIORS):
        each.names()


def main(keep: Path) -> None:
    """Answer every case that comes on stdin."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)  # what the commands print goes elsewhere
    os.dup2(2, 1)
    warm_up()
    for line in sys.stdin:
        case = Case(**json.loads(line))
        try:
            outcome = Injection(keep, case).run()
        except Exception:
            outcome = {**case.as_dict(), "verdict": "harness: " + traceback.format_exc().strip()[-600:]}
        finally:
            MACHINE.disarm()
        answers.write(json.dumps(outcome) + "\n")


MACHINE: Machine

if __name__ == "__main__":
    MACHINE = Machine.of_this_process()
    main(Path(sys.argv[1]))
