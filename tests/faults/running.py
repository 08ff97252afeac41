"""Runs of bench.py as forks of a warm process, or as new processes."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import HOME

LINGER = 10.0  # seconds that children of a killed command may take to exit


@dataclass
class Ended:
    """A finished run.

    Attributes:
        status: exit status, -N for signal N.
        seconds: from start to exit.
        said: last line.
        trouble: forbidden behaviour: a hang, a traceback, processes left running.
        fired: the fault took effect.
        printed: all lines.
    """

    status: int
    seconds: float
    said: str
    trouble: str = ""
    fired: bool = False
    printed: list[str] = field(default_factory=list)


class Running:
    """A command in progress, in its own session.

    Args:
        line: arguments of bench.py.
        work: folder that it writes; its output is captured beside it.
        threads: of torch.
        fresh: start a new process instead of a fork.
        prepare: called in the fork before the command.
    """

    def __init__(
        self,
        line: Sequence[str],
        work: Path,
        threads: int,
        fresh: bool = False,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self.output = work.parent / f"output.{time.monotonic_ns()}"
        self.started = time.monotonic()
        self._printed = self.output.with_suffix(".stdout")
        if fresh:
            with self.output.open("wb") as output:
                self.pid = subprocess.Popen(
                    [sys.executable, "bench.py", *line],
                    cwd=HOME,
                    stdout=subprocess.DEVNULL,
                    stderr=output,
                    start_new_session=True,
                    preexec_fn=_default_signals,
                ).pid
        else:
            self.pid = os.fork()
            if not self.pid:
                self._become(line, threads, prepare)
        self.status: int | None = None
        self.seconds = 0.0

    def _become(self, line: Sequence[str], threads: int, prepare: Callable[[], None]) -> None:
        """Do what `python bench.py` does, from the first line of bench.py to the exit."""
        import torch

        status = 1
        try:
            os.setsid()
            _default_signals()
            descriptor = os.open(self.output, os.O_WRONLY | os.O_CREAT, 0o666)
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(os.open(self._printed, os.O_WRONLY | os.O_CREAT, 0o666), 1)
            os.dup2(descriptor, 2)
            sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115, PTH123
            sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115, PTH123
            os.chdir(HOME)
            torch.set_num_threads(threads)
            prepare()
            sys.argv = ["bench.py", *line]
            try:
                runpy.run_path(str(HOME / "bench.py"), run_name="__main__")
                status = 0
            except SystemExit as stop:
                status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            except KeyboardInterrupt:  # ends like Python itself
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
        """Tell whether the command has exited."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                self.seconds = time.monotonic() - self.started
        return self.status is not None

    def send(self, number: int, group: bool) -> None:
        """Send a signal, unless the command has exited."""
        if not self.over():
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.pid, number)

    def end(self, limit: float) -> Ended:
        """Wait until the command and its children have exited; kill them after `limit` seconds."""
        trouble = self._wait(limit)
        text = self.output.read_text(errors="replace")
        lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
        lines = [line for line in lines if not re.search(r"\d+%\|| \[\d\d:\d\d", line)]  # progress bars
        if "Traceback (most recent call last)" in text and not trouble:
            trouble = f"traceback: {lines[-1]}"
        assert self.status is not None
        printed = self._printed.read_text(errors="replace").splitlines() if self._printed.exists() else []
        return Ended(self.status, self.seconds, lines[-1] if lines else "", trouble, printed=[*lines, *printed])

    def _wait(self, limit: float) -> str:
        trouble = ""
        while not self.over():
            if time.monotonic() - self.started > limit:
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
        return trouble


def _default_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _session(leader: int) -> list[int]:
    """Return the live processes of a session."""
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
