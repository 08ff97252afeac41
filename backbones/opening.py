"""Open regular files only: never a pipe or a device, and for writing never through a symbolic link."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO, Any

_LARGEST = 1 << 28  # bytes of a file for `read_small`


def open_regular(path: Path, mode: str = "rb", **options: Any) -> IO[Any]:
    """Open a regular file; a drop-in for `Path.open`.

    A symbolic link is followed for reading. For writing it is refused, because the file behind it may be anybody's.

    Args:
        path: the file.
        mode: as in `open`.
        options: further arguments of `open`.

    Raises:
        OSError: the file cannot be opened, is not a regular file, or is a symbolic link and opened for writing.
    """
    return open(path, mode, opener=_open_regular, **options)


def read_small(path: Path) -> bytes:
    """Read a small regular file, such as a configuration, as a whole.

    Raises:
        OSError: the file cannot be read, is not a regular file, or has more than 256 MiB.
    """
    with open_regular(path) as file:
        return read_at_most(file, _LARGEST)


def read_at_most(file: IO[bytes], limit: int) -> bytes:
    """Read a file or pipe to its end, block by block: one large read would allocate the limit.

    Raises:
        OSError: there are more than ``limit`` bytes.
    """
    blocks, size = [], 0
    too_large = os.fstat(file.fileno()).st_size > limit
    while not too_large and (block := file.read(1 << 20)):
        blocks.append(block)
        size += len(block)
        too_large = size > limit
    if too_large:
        raise OSError(errno.EFBIG, f"is larger than {limit >> 20:,} MiB", str(file.name))
    return b"".join(blocks)


def _open_regular(path: str, flags: int) -> int:
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    if writes:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        # O_NONBLOCK: opening a pipe returns at once, whether or not there is a process at its other end.
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP and Path(path).is_symlink():
            raise OSError(errno.ELOOP, "is a symbolic link", str(path)) from error
        if error.errno == errno.ENXIO:  # a pipe without a reader
            raise OSError(errno.ENXIO, "is not a regular file", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return descriptor
