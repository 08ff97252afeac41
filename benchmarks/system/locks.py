"""One process at a time: a folder that is being written is held, and whoever comes second hears who holds it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.system import interrupts
from benchmarks.system.progress import say
from registry import UserError
from zoo.files.atomic import cannot_write
from zoo.files.locks import Lock, take_lock, this_process

NAME = ".lock"  # of the file, in the folder that it stands for; it is there only while the folder is held

_BETWEEN_LOOKS = 0.05  # seconds
_PATIENCE = 1.0  # seconds of waiting before a word of it


@contextmanager
def locked(path: Path, what: str, *, wait: bool = False, remedy: str = "write elsewhere") -> Iterator[bool]:
    """Hold a folder, or whatever else a lock file stands for; not twice in one process.

    Args:
        path: the file, made now and taken away at the end; its text says who holds it.
        what: it stands for, for the message.
        wait: for another process to be done, after a word of it; else that is an error.
        remedy: where the file cannot be written.

    Yields:
        Whether a process died while it held it, so that there may be something half done.

    Raises:
        UserError: another process holds it, or the file cannot be written.
    """
    made = not path.parent.exists()
    lock = _taken(path, what, wait, remedy)
    try:
        left = path.stat().st_size > 0
        path.write_text(this_process(), encoding="utf-8")
    except OSError as error:
        lock.release(remove=True)
        raise cannot_write(path, error, remedy) from error
    try:
        yield left
    finally:
        lock.release(remove=True)
        if made:
            with suppress(OSError):  # somebody wrote into it
                path.parent.rmdir()


def _taken(path: Path, what: str, wait: bool, remedy: str) -> Lock:
    tell_at = time.monotonic() + _PATIENCE
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = take_lock(path)
        except OSError as error:
            raise cannot_write(path, error, remedy) from error
        if lock is not None:
            return lock
        if not wait:
            raise UserError(f"{what} is being written by {_holder(path)}; wait until it is done, or end it")
        if time.monotonic() > tell_at:
            say(f"waiting for {_holder(path)}, which writes {what}")
            tell_at = math.inf
        time.sleep(_BETWEEN_LOOKS)
        interrupts.check()


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0] or "another process"
    except OSError:  # it has just let go
        return "another process"
