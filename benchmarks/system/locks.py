"""Locks on folders: one process writes; a second one waits, or fails with the name of the first."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backbones.opening import read_small
from benchmarks.system import interrupts
from benchmarks.system.progress import say
from registry import UserError
from zoo.files.atomic import cannot_write
from zoo.files.locks import Lock, take_lock, this_process

NAME = ".lock"  # lies in the folder that it protects

_POLL_SECONDS = 0.05
PATIENCE = 1.0  # seconds to wait silently


@contextmanager
def locked(path: Path, what: str, *, wait: bool = False, remedy: str = "write elsewhere") -> Iterator[bool]:
    """Lock a folder, or anything else that a lock file protects. Not reentrant.

    Args:
        path: the lock file, created and removed here; its text names the holder.
        what: name of the protected folder or file, for messages.
        wait: wait for another holder; otherwise a held lock is an error.
        remedy: advice for the error if the lock file cannot be written.

    Yields:
        Whether the previous holder died with the lock, so that its work may be half done.

    Raises:
        UserError: another process holds the lock, or the file cannot be written.
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
            with suppress(OSError):  # not empty
                path.parent.rmdir()


def _taken(path: Path, what: str, wait: bool, remedy: str) -> Lock:
    tell_at = time.monotonic() + PATIENCE
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = take_lock(path)
        except OSError as error:
            raise cannot_write(path, error, remedy) from error
        if lock is not None:
            return lock
        if not wait:
            raise UserError(f"{what} is being written by {_holder(path)}; wait for it to finish, or stop it")
        if time.monotonic() > tell_at:
            say(f"waiting for {_holder(path)}, which is writing {what}")
            tell_at = math.inf
        time.sleep(_POLL_SECONDS)
        interrupts.check()


def _holder(path: Path) -> str:
    try:
        return read_small(path).decode("utf-8", "replace").partition("\n")[0] or "another process"
    except OSError:  # released meanwhile
        return "another process"
