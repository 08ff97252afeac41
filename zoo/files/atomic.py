"""Files that are whole or absent: everything is written beside its place and moved there; and whose turn it is."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from registry import UserError
from zoo.files.locks import NoLocksError, flocked


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
        with suppress(NoLocksError):
            lock = flocked(temporary, fcntl.LOCK_EX)
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
        lock = flocked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
