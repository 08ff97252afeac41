"""Open regular files only: never a pipe or a device, and for writing never through a symbolic link."""

from __future__ import annotations

import errno
import json
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
    return open(path, mode, opener=open_descriptor, **options)


def read_small(path: Path) -> bytes:
    """Read a small regular file, such as a configuration, as a whole.

    Raises:
        OSError: the file cannot be read, is not a regular file, or has more than 256 MiB.
    """
    with open_regular(path) as file:
        return read_at_most(file, _LARGEST)


def read_small_json(path: Path) -> Any:
    """Parse a small JSON file in UTF-8, with or without a byte order mark.

    Raises:
        OSError: as in `read_small`.
        ValueError: the file is not JSON.
    """
    return json.loads(read_small(path).decode("utf-8-sig"))


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


def open_descriptor(path: str | Path, flags: int, *, pipes: bool = False) -> int:
    """Open a regular file, and a pipe if asked, without waiting for a process at its other end.

    Args:
        path: the file.
        flags: as in `os.open`.
        pipes: also open a pipe.

    Raises:
        OSError: as in `open_regular`.
    """
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    if writes:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0), 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP and writes and Path(path).is_symlink():
            raise OSError(errno.ELOOP, "is a symbolic link", str(path)) from error
        if error.errno == errno.ENXIO:  # a pipe without a reader
            raise OSError(errno.ENXIO, "is not a file", str(path)) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or (pipes and stat.S_ISFIFO(mode)):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "is a folder" if stat.S_ISDIR(mode) else "is not a file", str(path))
