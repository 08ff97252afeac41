"""Handling of Ctrl-C and SIGTERM: the first waits for the current step, a second one exits immediately.

A loop whose steps are saved runs under `steps` or `deferred`, and a signal stops it between two steps. Everywhere else
a signal ends the process at once, which is as safe as a kill: files appear complete or not at all, and locks and worker
processes end with their process. No exception is raised at an arbitrary line, so there is no traceback.

The command line calls `install_handlers` once. Without it (tests, notebooks) Ctrl-C raises Python's KeyboardInterrupt.
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
_FORWARDED = 5.0  # seconds in which torchrun forwards to its processes a signal that they already got from the terminal

command = "bench.py"  # prefix of the last line

_handling_pid = 0  # the process that called `install_handlers`; forked workers inherit the handlers, but not the pid
_prints = True  # under torchrun only the first process does
_depth = 0  # nested `deferred` blocks
pending = 0  # the signal that waits for the end of the current step; 0 if there is none
_pending_since = 0.0


class Stopped(KeyboardInterrupt):
    """A signal came, and the current step was finished and saved.

    Attributes:
        signal: its number.
    """

    def __init__(self, signum: int = signal.SIGINT) -> None:
        super().__init__()
        self.signal = signum


def install_handlers() -> None:
    """Handle SIGINT and SIGTERM in this process."""
    global _handling_pid, _prints
    _handling_pid = os.getpid()
    _prints = not os.environ.get("WORLD_SIZE") or os.environ.get("RANK", "0") == "0"
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background jobs ignore Ctrl-C
            signal.signal(number, _on_signal)


def restore_handlers() -> None:
    """Reinstall the handlers, if they were installed, after a library has replaced them."""
    if _handling_pid == os.getpid():
        install_handlers()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let a signal end the process inside a call of a library that may not return to Python's handlers for long."""
    if _handling_pid == os.getpid():
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        restore_handlers()


@contextmanager
def starting_workers() -> Iterator[None]:
    """Block signals while worker processes start; each worker unblocks them in `init_worker`."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # started inside the block, it would unblock the signals
    if not hasattr(signal, "pthread_sigmask"):  # Windows, where a signal reaches no worker that is not asked for it
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def init_worker(stop: Connection) -> None:
    """Make a worker process ignore signals, stop when its parent asks it to, and exit when its parent does.

    Args:
        stop: becomes readable when the parent asks.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()


def _watch_parent(stop: Connection) -> None:
    from multiprocessing import connection, parent_process

    global pending
    parent = parent_process()
    assert parent is not None
    if parent.sentinel not in connection.wait([parent.sentinel, stop]):
        pending = signal.SIGTERM
        parent.join()
    os._exit(1)  # a killed parent cannot end its workers


def check() -> None:
    """Stop here if a signal is pending; everything up to here is saved.

    Raises:
        Stopped: a signal is pending.
    """
    if pending:
        raise Stopped(pending)


@contextmanager
def deferred() -> Iterator[None]:
    """Defer signals to the end of the block, or to a `check` inside it.

    Raises:
        Stopped: at the end of the outermost block, if a signal is pending.
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
    """Iterate over steps of work; a signal stops the loop only between two steps.

    Raises:
        Stopped: a signal is pending.
    """
    with deferred():
        check()
        for step in work:
            yield step
            check()


def until_signal(work: Iterable[_T]) -> Iterator[_T]:
    """Iterate over steps of work that has no end of its own, as of a camera: a signal is its end, and no interruption.

    Work that waits, as for a picture, ends by itself when it sees `pending`.
    """
    global pending
    with deferred():
        for step in work:
            yield step
            if pending:
                break
        pending = 0


def exit_interrupted(stopped: KeyboardInterrupt) -> int:
    """Print how to resume and exit. Without installed handlers, return the exit status instead."""
    status = 128 + getattr(stopped, "signal", signal.SIGINT)
    if _handling_pid == os.getpid():
        if _prints:
            _write(_last_line())
        _exit_now(status)
    print(_last_line(), file=sys.stderr)
    return status


def _last_line() -> str:
    return f"{command}: interrupted; finished work is kept, run the same command again to resume"


def _on_signal(number: int, frame: Any) -> None:
    global pending, _pending_since
    if os.getpid() != _handling_pid:  # a worker that was just forked; its parent handles the signal
        return
    forwarded = "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - _pending_since <= _FORWARDED
    if not pending and _depth:
        pending, _pending_since = number, time.monotonic()
        if _prints and sys.stderr.isatty():
            _write("finishing the current step; press Ctrl-C again to stop immediately")
    elif not (pending and forwarded):
        if _prints:
            _write(_last_line())
        _exit_now(128 + number)


def _write(line: str) -> None:
    """Write a line to stderr, below an unfinished progress bar, and past Python's buffers, which may be in use."""
    bars = getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())
    shown = any(getattr(bar, "last_print_t", 0) > getattr(bar, "start_t", 0) for bar in list(bars))
    with suppress(OSError):
        os.write(2, f"{chr(10) * shown}{line}\n".encode())


def _exit_now(status: int) -> NoReturn:
    """Exit without Python's own shutdown, which waits for threads that may run for long."""
    with suppress(Exception):
        sys.stdout.flush()
    with suppress(Exception):
        sys.stderr.flush()
    os._exit(status)
