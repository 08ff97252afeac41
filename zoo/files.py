"""Files that are whole or absent: everything is written beside its place and moved there; and whose turn it is."""

from __future__ import annotations

import datetime
import errno
import fcntl
import hashlib
import json
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import UserError

# What flock says where the file system has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
_lockless: set[Path] = set()  # folders that the user has heard this of


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and is removed when it does not.

    What a killed process left beside `path` is removed; what a living one writes there is told by its lock.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    lock: int | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        left_over = re.compile(rf"\.{re.escape(path.name)}\.\d+\.part")
        for beside in path.parent.iterdir():
            if left_over.fullmatch(beside.name):
                _remove_left_over(beside)
        with suppress(_NoLocksError):
            lock = _flocked(temporary, fcntl.LOCK_EX)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
        if lock is not None:
            os.close(lock)


def _remove_left_over(path: Path) -> None:
    """Remove a temporary file that nobody writes any more."""
    with suppress(OSError):  # a living process holds it, or nobody can tell
        lock = _flocked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        os.close(lock)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically: two blanks of indentation, arrays of plain values on one line, no NaN."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    # A string of JSON holds no line break, so what is matched is never part of one.
    text = re.sub(r"\[\n\s+([^\[\]{}]*?)\n\s+\]", lambda found: "[" + re.sub(r"\n\s+", " ", found[1]) + "]", text)
    write_text(path, text + "\n")


def check_writable(folder: Path) -> None:
    """Make the folder and prove that a file can be written there.

    Raises:
        UserError: it cannot. Better now than after the work.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(path: Path, error: OSError, remedy: str = "write elsewhere") -> UserError:
    """The user's side of a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"no space left for {path}; free some, or {remedy}")
    return UserError(f"cannot write {path}: {error.strerror or error}; {remedy}")


# -- whose turn it is -------------------------------------------------------------------------------------------------


class _NoLocksError(OSError):
    """The file system has no locks."""


@dataclass
class Lock:
    """A file that this process alone holds, until `release` or its own end, however that comes."""

    path: Path
    descriptor: int
    _owner: Path | None = None

    def release(self, *, remove: bool = False) -> None:
        """Let go of the file, and take it away first if asked, where it lets itself: held by nobody it does no harm."""
        with suppress(OSError):
            if remove:
                self.path.unlink()
        os.close(self.descriptor)
        with suppress(OSError):
            if self._owner is not None:
                self._owner.unlink()


def take_lock(path: Path) -> Lock | None:
    """Hold a file, which is made where it is missing; None while another process holds it.

    The lock is flock's: it ends with its process. On a file system without, a second file beside it, `<name>.owner`,
    names process and host; it is believed while that process lives, and that of another host until it is deleted.

    Raises:
        OSError: the file cannot be opened.
    """
    try:
        return Lock(path, _flocked(path, fcntl.LOCK_EX | fcntl.LOCK_NB))
    except BlockingIOError:
        return None
    except _NoLocksError:
        pass
    owner = path.with_name(f"{path.name}.owner")
    if path.parent not in _lockless:
        _lockless.add(path.parent)
        print(f"{path.parent}: this file system has no locks (flock); {owner.name} stands for one", file=sys.stderr)
    while True:
        with suppress(FileExistsError):
            with owner.open("x", encoding="utf-8") as file:
                file.write(this_process())
            return Lock(path, os.open(path, os.O_RDWR | os.O_CREAT, 0o666), owner)
        with suppress(OSError):
            if not _is_dead(owner.read_text(encoding="utf-8")):
                return None
            owner.unlink(missing_ok=True)


def this_process() -> str:
    """What a lock file says of who holds it: process, host, and since when (UTC)."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(sep=" ", timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {now}"


def _is_dead(owner: str) -> bool:
    """Whether `this_process` said so on this host, in a process that is no more."""
    found = re.fullmatch(r"process (\d+) on (\S+) since .*", owner)
    if found is None or found[2] != socket.gethostname():
        return False
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        pass
    return False


def _flocked(path: Path, how: int) -> int:
    """Open a file, made where it is missing, and lock it: its descriptor.

    Raises:
        BlockingIOError: another process holds it, and `how` says not to wait.
        _NoLocksError: nobody can.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, how)
            with suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                raise _NoLocksError(*error.args) from error
            raise
        os.close(descriptor)  # who had it took the file away meanwhile


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
