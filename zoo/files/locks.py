"""Advisory file locks that end with their process, by the package filelock."""

from __future__ import annotations

import datetime
import errno
import os
import socket
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

# Errors of flock on file systems without locks.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
_lockless: set[Path] = set()  # folders whose lack of locks was reported


@dataclass
class Lock:
    """A file that only this process holds, until `release` or the end of the process."""

    path: Path
    _lock: BaseFileLock
    _beside: Path | None = None

    def release(self, *, remove: bool = False) -> None:
        """Let go of the file; removes it first if asked."""
        if remove:
            with suppress(OSError):
                self.path.unlink()
        with suppress(OSError):
            self._lock.release()
        if self._beside is not None:
            with suppress(OSError):  # another process holds it by now
                self._beside.unlink()


def take_lock(path: Path) -> Lock | None:
    """Hold a file, which is created if it is missing; None while another process or another `Lock` holds it.

    On Windows a locked file can be neither written nor replaced, so a file beside it is locked, `<name>.lock`.
    On file systems without locks a second file stands in, `<name>.owner`, which names process and host. It counts while
    that process lives; that of another host counts until it is deleted.

    Raises:
        OSError: the file cannot be opened, is a symbolic link, or is not a regular file.
    """
    if locks_beside():
        beside = path.with_name(f"{path.name}.lock")
        return _take_lock_beside(path, FileLock(beside, timeout=0, thread_local=False), beside)
    while True:
        acquired = _Acquired()
        lock = FileLock(path, timeout=0, thread_local=False, on_acquired=acquired)
        try:
            lock.acquire()
        except Timeout:
            if path.exists():
                return None
            continue  # the holder removed the file while it was being opened
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return _take_soft_lock(path)
        # The last holder may have removed the file between opening and locking it.
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), acquired.status):
                return Lock(path, lock)
        lock.release()


def locks_beside() -> bool:
    """Whether this system keeps a locked file from being written."""
    return os.name == "nt"


def _take_lock_beside(path: Path, lock: BaseFileLock, beside: Path | None = None) -> Lock | None:
    """Hold `path` by a lock on another file; `beside` is removed when it is released."""
    try:
        lock.acquire()
    except Timeout:
        return None
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666))
    return Lock(path, lock, beside)


def this_process() -> str:
    """Text of a lock file: process, host, and time in UTC."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(sep=" ", timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {now}"


class _Acquired:
    """Looks at the file that a lock was acquired on."""

    status: os.stat_result

    def __call__(self, descriptor: int) -> None:
        self.status = os.fstat(descriptor)
        if not stat.S_ISREG(self.status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")


def _take_soft_lock(path: Path) -> Lock | None:
    owner = path.with_name(f"{path.name}.owner")
    if path.parent not in _lockless:
        _lockless.add(path.parent)
        print(f"{path.parent}: this file system has no locks; {owner.name} stands in for one", file=sys.stderr)
    return _take_lock_beside(path, SoftFileLock(owner, timeout=0, thread_local=False))
