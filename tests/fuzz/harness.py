"""Write one bad input at a time into a folder, hand it to the real reader, and watch the outcome.

A case is accepted, or refused with a one-line `UserError` that names the file. Anything else is a fault: another
exception, more seconds or megabytes than the kind allows, or access to a path outside the folder. Canary files surround
the folder, and Python's audit events report access to them.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas  # noqa: F401  no case is charged for the imports of commands
import sklearn.metrics  # noqa: F401
import torch  # noqa: F401
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from registry import UserError

OUTSIDE = "{outside}"  # in ids: stands for the absolute path of the canaries
SPARE = 2 << 30  # bytes of address space that a case may add before a MemoryError
FAULTS = ("traceback", "hang", "memory", "escape", "message")


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        name: of its row in the table.
        cases: printable values.
        write: writes a case into an empty folder. Not measured; errors here are the harness's own.
        feed: hands the folder to the real reader, or runs a command with `command`. The process has run other cases
            before, so imports and caches are warm.
        seconds: limit per case.
        megabytes: limit per case, beyond the memory that the process holds already.
        names_file: a refusal must name a path below the folder.
    """

    name: str
    cases: SearchStrategy[Any]
    write: Callable[[Path, Any], object]
    feed: Callable[[Path, Any], object]
    seconds: float = 10.0
    megabytes: int = 256
    names_file: bool = True


@dataclass
class Report:
    """Outcomes of the cases of a kind."""

    kind: str
    cases: int = 0
    verdicts: Counter = field(default_factory=Counter)
    seconds: float = 0.0  # of the slowest case
    megabytes: float = 0.0  # of the largest
    faults: list[str] = field(default_factory=list)  # what happened, with the case

    def as_dict(self) -> dict[str, Any]:
        """Return the row for the record."""
        names = ("accepted", "refused", *FAULTS)
        figures = {"seconds": round(self.seconds, 2), "megabytes": round(self.megabytes, 1)}
        return {"kind": self.kind, "cases": self.cases, **{name: self.verdicts[name] for name in names}, **figures}


class _Hang(BaseException):
    """A case ran out of time."""


def run(kind: Kind, count: int, seed_: int, base: Path) -> Report:
    """Try cases of a kind.

    Args:
        kind: of input.
        count: number of cases.
        seed_: determines the cases.
        base: an empty folder.
    """
    report = Report(kind.name)

    @seed(seed_)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(kind.cases)
    def each(case: Any) -> None:
        verdict, message, seconds, megabytes = run_case(kind, case, base / "case")
        report.cases += 1
        report.verdicts[verdict] += 1
        report.seconds = max(report.seconds, seconds)
        report.megabytes = max(report.megabytes, megabytes)
        if verdict in FAULTS:
            report.faults.append(f"{kind.name}: {verdict}: {message}\n  case: {case!r:.2000}")

    each()
    return report


def run_case(kind: Kind, case: Any, base: Path) -> tuple[str, str, float, float]:
    """Try one case; return verdict, message, seconds and peak megabytes."""
    shutil.rmtree(base, ignore_errors=True)
    folder = base / "up" / "up" / "root"
    folder.mkdir(parents=True)
    for level in (base, base / "up", base / "up" / "up"):
        _lay_canaries(level)
    kind.write(folder, case)
    before = _outside(base, folder)
    touched: set[str] = set()
    said = io.StringIO()
    verdict, message = "accepted", ""
    started, held = time.perf_counter(), _reset_peak()
    try:
        with _watched(base, folder, touched), _limited(kind.seconds), _captured(said):
            kind.feed(folder, case)
    except UserError as error:
        verdict, message = "refused", str(error)
    except _Hang:
        verdict, message = "hang", f"more than {kind.seconds:g} s"
    except MemoryError:
        verdict, message = "memory", "MemoryError\n" + traceback.format_exc(limit=-4)
    except (Exception, SystemExit, KeyboardInterrupt):
        verdict, message = "traceback", traceback.format_exc(limit=-6)
    seconds, megabytes = time.perf_counter() - started, (_peak() - held) / 1e6
    if verdict == "refused":
        if "\n" in message or not message.isprintable():
            verdict, message = "message", f"not one printable line: {message!r}"
        elif kind.names_file and str(folder) not in message:
            verdict, message = "message", f"does not name a file: {message!r}"
    if verdict in ("accepted", "refused"):
        changed = before ^ _outside(base, folder)
        shown = said.getvalue().replace("\n", "").replace("\t", "")
        if changed or touched:
            verdict, message = "escape", f"outside the folder: {sorted({*touched, *(str(c) for c in changed)})}"
        elif megabytes > kind.megabytes:
            verdict, message = "memory", f"{megabytes:.0f} MB"
        elif any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in shown.replace("\r", "")):
            verdict, message = "message", f"control characters on the terminal: {shown!r}"
    return verdict, message, seconds, megabytes


def command(*arguments: object) -> int:
    """Run a command of bench.py in this process.

    Returns:
        Its exit status, unless that is 2.

    Raises:
        UserError: its message, if the exit status is 2.
    """
    import bench

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            status = bench.main([str(argument) for argument in arguments])
        except SystemExit as error:  # from argparse
            status = int(error.code or 0)
    lines = said.getvalue().splitlines()
    sys.stderr.write(said.getvalue())
    if status != 2:
        return status
    assert lines, "exit status 2 without a message"
    assert lines[-1].startswith("bench.py "), f"exit status 2, but the last line is {lines[-1]!r}"
    raise UserError(lines[-1])


# -- the surroundings ---------------------------------------------------------------------------------------------

_BOX = '{"clip_uid": "c", "frameNumber": 1, "Person ID": "1", "x": 1, "y": 1, "width": 9, "height": 9}'


def _lay_canaries(folder: Path) -> None:
    """Write files that look like data and that an id with `..` or an absolute path would reach."""
    (folder / "secret").mkdir()
    (folder / "secret.json").write_text("[]")
    (folder / "secret.mp4").write_bytes(b"\0")
    (folder / "secret" / "1.json").write_text(f"[{_BOX}]")
    (folder / "secret" / "secret.json").write_text(f"[{_BOX}]")
    (folder / "secret" / "face_00001.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "secret" / "00001_ab.jpg").write_bytes(b"\xff\xd8\xff")


def filled(text: str, folder: Path) -> str:
    """Insert the absolute path of the canaries into an id."""
    return text.replace(OUTSIDE, str(folder.parent / "secret"))


def _outside(base: Path, folder: Path) -> set[tuple]:
    """Return path, mode, size and modification time of everything below `base` but outside `folder`."""
    found = set()
    queue = [str(base)]
    while queue:
        with os.scandir(queue.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                directory = entry.is_dir(follow_symlinks=False)
                if entry.path != str(folder):
                    found.add((entry.path, status.st_mode, 0 if directory else status.st_size, status.st_mtime_ns))
                    if directory:
                        queue.append(entry.path)
    # Changes inside `folder` alter its own time, but not that of a parent.
    return found


_watching: tuple[str, str, set[str]] | None = None
_hooked = False
_EVENTS = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link",
           "os.symlink", "os.truncate", "os.chmod", "os.utime", "shutil.rmtree"}  # fmt: skip


def _hook(event: str, arguments: tuple) -> None:
    if _watching is None or event not in _EVENTS:
        return
    base, folder, touched = _watching
    for argument in arguments[:2]:
        if isinstance(argument, (str, bytes, os.PathLike)):
            # Links are not resolved: they belong to the folder's owner. `..` is resolved.
            path = os.path.abspath(os.fsdecode(argument))  # noqa: PTH100
            if (path == base or path.startswith(base + os.sep)) and not (
                path == folder or path.startswith(folder + os.sep)
            ):
                touched.add(f"{event} {path}")


@contextlib.contextmanager
def _watched(base: Path, folder: Path, touched: set[str]) -> Iterator[None]:
    global _watching, _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    _watching = (str(base), str(folder), touched)
    try:
        yield
    finally:
        _watching = None


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Interrupt a case that takes too long; limit its memory so that it gets a MemoryError."""

    def out_of_time(number: int, frame: object) -> None:
        raise _Hang

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    older = signal.signal(signal.SIGALRM, out_of_time)
    if size := _status("VmSize"):
        resource.setrlimit(resource.RLIMIT_AS, (size + SPARE, hard))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, older)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def _captured(said: io.StringIO) -> Iterator[None]:
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        yield


def _status(name: str) -> int:
    """Read a size in bytes from the kernel's status of this process; 0 if it is not there."""
    with contextlib.suppress(OSError), Path("/proc/self/status").open(errors="replace") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def _reset_peak() -> int:
    """Reset the memory peak of this process; return its current size in bytes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
