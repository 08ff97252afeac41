"""One bad input at a time: written into a folder, handed to the real reader, and watched.

What a case may come to: it is accepted, or it is refused with a `UserError` of one line that names the file. Anything
else is a fault: another exception, more seconds or megabytes than the kind allows, or a path outside of the folder that
was opened, listed, made or changed. Around the folder lie canaries; Python's audit events tell what was touched.
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

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from registry import UserError

OUTSIDE = "{outside}"  # in ids: becomes the absolute path of a folder that nobody may touch
SPARE = 2 << 30  # bytes of address space that a case may take before it gets a MemoryError
FAULTS = ("traceback", "hang", "memory", "escape", "message")


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        name: a row of the table.
        cases: what to write, as values that print well.
        write: puts a case into an empty folder. Not measured; an error here is the harness's own.
        feed: hands what was written to the real reader, or runs a command with `command`. It is called in a process
            that has run other cases before: imports are not counted, caches are the reader's own matter.
        seconds: that a case may take.
        megabytes: that a case may add to what the process holds.
        names_file: whether a refusal has to name something below the folder.
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
    """What the cases of a kind came to."""

    kind: str
    cases: int = 0
    verdicts: Counter = field(default_factory=Counter)
    seconds: float = 0.0  # of the slowest case
    megabytes: float = 0.0  # of the largest
    faults: list[str] = field(default_factory=list)  # what happened, and the case

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        names = ("accepted", "refused", *FAULTS)
        figures = {"seconds": round(self.seconds, 2), "megabytes": round(self.megabytes, 1)}
        return {"kind": self.kind, "cases": self.cases, **{name: self.verdicts[name] for name in names}, **figures}


class _Hang(BaseException):
    """Out of time."""


def run(kind: Kind, count: int, seed_: int, base: Path) -> Report:
    """Try so many cases of a kind; they follow from the seed.

    Args:
        kind: of input.
        count: cases.
        seed_: of the draws.
        base: an empty folder for everything.
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
    """Try one case: the verdict, what was said, seconds, and megabytes that it took at its largest."""
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
            verdict, message = "message", f"names no file: {message!r}"
    if verdict in ("accepted", "refused"):
        changed = before ^ _outside(base, folder)
        shown = said.getvalue().replace("\n", "").replace("\t", "")
        if changed or touched:
            verdict, message = "escape", f"outside of the folder: {sorted({*touched, *(str(c) for c in changed)})}"
        elif megabytes > kind.megabytes:
            verdict, message = "memory", f"{megabytes:.0f} MB"
        elif any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in shown.replace("\r", "")):
            verdict, message = "message", f"control characters on the terminal: {shown!r}"
    return verdict, message, seconds, megabytes


def command(*arguments: object) -> int:
    """Run a command of bench.py in this process.

    Returns:
        Its exit status, where that is not 2.

    Raises:
        UserError: its message, where it exits with 2 and a message of one line.
    """
    import bench

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            status = bench.main([str(argument) for argument in arguments])
        except SystemExit as error:  # of argparse
            status = int(error.code or 0)
    lines = said.getvalue().splitlines()
    sys.stderr.write(said.getvalue())
    if status != 2:
        return status
    assert lines, "exit status 2 and nothing said"
    assert lines[-1].startswith("bench.py "), f"exit status 2, and the last line is {lines[-1]!r}"
    raise UserError(lines[-1])


# -- the surroundings ---------------------------------------------------------------------------------------------

_BOX = '{"clip_uid": "c", "frameNumber": 1, "Person ID": "1", "x": 1, "y": 1, "width": 9, "height": 9}'


def _lay_canaries(folder: Path) -> None:
    """Files that an id with `..` or an absolute path would come upon, and that would be taken for data."""
    (folder / "secret").mkdir()
    (folder / "secret.json").write_text("[]")
    (folder / "secret.mp4").write_bytes(b"\0")
    (folder / "secret" / "1.json").write_text(f"[{_BOX}]")
    (folder / "secret" / "secret.json").write_text(f"[{_BOX}]")
    (folder / "secret" / "face_00001.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "secret" / "00001_ab.jpg").write_bytes(b"\xff\xd8\xff")


def filled(text: str, folder: Path) -> str:
    """Put the absolute path of the canaries into an id."""
    return text.replace(OUTSIDE, str(folder.parent / "secret"))


def _outside(base: Path, folder: Path) -> set[tuple]:
    """Everything below `base` that is not below `folder`: path, kind, size and time of change."""
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
    # What is made or removed in `folder` changes its own time, and that of no folder above it.
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
            # Links are left alone: those in the folder are its owner's own. What `..` leads to is found.
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
    """Interrupt what takes too long, and give what takes too much memory a MemoryError."""

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
    """Bytes that the kernel says of this process; 0 where it does not."""
    with contextlib.suppress(OSError), Path("/proc/self/status").open(errors="replace") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def _reset_peak() -> int:
    """Forget how large this process has been; returns what it holds now, in bytes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
