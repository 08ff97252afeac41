"""Ctrl-C and SIGTERM: once, what is in work is finished and kept; twice, everything ends now.

Whoever loops over work that is kept step by step says so, by `steps` or `finishing`: a signal then waits for the end of
the step. Anywhere else it ends the process where it stands, which is as safe as any kill: files appear whole or not at
all, locks and worker processes end with their process. Nothing is raised at an arbitrary place: no traceback anywhere.

`heed` is called once, by the command line. Where it is not (tests, notebooks), Ctrl-C is Python's own.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_T = TypeVar("_T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FORWARDED = 5.0  # seconds in which torchrun passes on what the terminal has sent to its processes too

command = "bench.py"  # as the last line calls it

_process = 0  # the one that heeds
_speaks = True  # of several processes of torchrun the first does
_depth = 0  # of steps in work
caught = 0  # the signal that waits for their end
caught_at = 0.0


class Stopped(KeyboardInterrupt):
    """What was in work when a signal came is finished and kept.

    Attributes:
        signal: which.
    """

    def __init__(self, signum: int = signal.SIGINT) -> None:
        super().__init__()
        self.signal = signum


def heed() -> None:
    """Have this process do as this module says."""
    global _process, _speaks
    _process = os.getpid()
    _speaks = os.environ.get("RANK", "0") == "0"
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background jobs ignore Ctrl-C
            signal.signal(number, _on_signal)


def heed_again() -> None:
    """Take signals back from a library that has put handlers of its own in place, if they were this module's."""
    if _process == os.getpid():
        heed()


@contextmanager
def starting_workers() -> Iterator[None]:
    """Start worker processes in this block: they hear no signal before they `follow`."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # else it is started in the block, and has the signals heard again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def follow(stop: Connection) -> None:
    """Have this worker process stop when its parent says so, and end when that ends; it heeds no signals itself.

    Args:
        stop: has something to read once the parent wants this process to stop.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_watch, args=(stop,), daemon=True).start()


def _watch(stop: Connection) -> None:
    from multiprocessing import connection, parent_process

    global caught
    parent = parent_process()
    assert parent is not None
    if parent.sentinel not in connection.wait([parent.sentinel, stop]):
        caught = signal.SIGTERM
        parent.join()
    os._exit(1)  # a parent that was killed could not end it


def requested() -> int:
    """The signal that waits for the end of what is in work; 0 where none has come."""
    return caught


def check() -> None:
    """Say that what was done so far is kept.

    Raises:
        Stopped: a signal has come.
    """
    if caught:
        raise Stopped(caught)


@contextmanager
def finishing() -> Iterator[None]:
    """Have a signal wait for the end of the block, or for a `check` in it.

    Raises:
        Stopped: at the end of the block, if one has come.
    """
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
    if not _depth:
        check()


def steps(work: Iterable[_T]) -> Iterator[_T]:
    """Steps of work, each of which is finished and kept before a signal ends the loop over them.

    Raises:
        Stopped: after a step, if one has come.
    """
    with finishing():
        check()
        for step in work:
            yield step
            check()


def leave(stopped: KeyboardInterrupt) -> int:
    """Say how to go on, and end the process, whose work was stopped; the exit status, where it heeds no signals."""
    status = 128 + getattr(stopped, "signal", signal.SIGINT)
    if _process == os.getpid():
        if _speaks:
            _write(_farewell())
        _end(status)
    print(_farewell(), file=sys.stderr)
    return status


def _farewell() -> str:
    return f"{command}: interrupted; what is finished is kept, the same command goes on from there"


def _on_signal(number: int, frame: Any) -> None:
    global caught, caught_at
    if os.getpid() != _process:  # a worker that has just been forked; its parent sees to it
        return
    again = caught and ("TORCHELASTIC_RUN_ID" not in os.environ or time.monotonic() - caught_at > _FORWARDED)
    if not caught and _depth:
        caught, caught_at = number, time.monotonic()
        if _speaks and sys.stderr.isatty():
            _write("finishing what is in work; once more ends it now")
    elif again or not caught:
        if _speaks:
            _write(_farewell())
        _end(128 + number)


def _write(line: str) -> None:
    """Write a line to stderr, past Python's buffers, which may be in use, and below an unfinished bar."""
    bars = getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())
    shown = any(getattr(bar, "last_print_t", 0) > getattr(bar, "start_t", 0) for bar in list(bars))
    with suppress(OSError):
        os.write(2, f"{chr(10) * shown}{line}\n".encode())


def _end(status: int) -> NoReturn:
    """End the process without what Python does at its end: waiting for threads, which may be at work for long."""
    with suppress(Exception):
        sys.stdout.flush()
    with suppress(Exception):
        sys.stderr.flush()
    os._exit(status)
