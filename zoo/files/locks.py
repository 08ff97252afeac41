"""Advisory file locks that end with their process."""

from __future__ import annotations

import datetime
import errno
import fcntl
import os
import re
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# What flock says where the file system has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
_lockless: set[Path] = set()  # folders that the user has heard this of


# -- whose turn it is -------------------------------------------------------------------------------------------------


class NoLocksError(OSError):
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
        return Lock(path, flocked(path, fcntl.LOCK_EX | fcntl.LOCK_NB))
    except BlockingIOError:
        return None
    except NoLocksError:
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


def flocked(path: Path, how: int) -> int:
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
                raise NoLocksError(*error.args) from error
            raise
        os.close(descriptor)  # who had it took the file away meanwhile
