"""sha256 of files; imports no torch."""

from __future__ import annotations

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backbones.opening import open_regular

LARGEST_HASHED = 1 << 36  # bytes, hashed in two minutes; no features, weights or video of this project are larger


def file_sha256(*paths: Path) -> str:
    """Return the hexadecimal sha256 of a file, or for several files that of their concatenated sha256 digests.

    Raises:
        OSError: a file cannot be read, is not a regular file, or has more than 64 GiB.
    """
    if len(paths) == 1:
        return _digest(paths[0]).hexdigest()
    with ThreadPoolExecutor() as pool:
        return hashlib.sha256(b"".join(digest.digest() for digest in pool.map(_digest, paths))).hexdigest()


def _digest(path: Path) -> hashlib._Hash:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > LARGEST_HASHED:
            raise OSError(errno.EFBIG, f"is larger than {LARGEST_HASHED >> 30} GiB", str(path))
        while block := file.read(1 << 20):
            digest.update(block)
    return digest
