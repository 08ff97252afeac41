"""Atomic file writes: temporary file, fsync, rename."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from registry import UserError
from zoo.files.locks import Lock, take_lock


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that replaces it when the block ends, and is removed if the block raises.

    Temporary files of killed processes are removed; those of running processes are locked, and stay.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    lock: Lock | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        left_over = re.compile(rf"\.{re.escape(path.name)}\.\d+\.part")
        for beside in path.parent.iterdir():
            if left_over.fullmatch(beside.name):
                _remove_left_over(beside)
        lock = take_lock(temporary)
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
            lock.release()


def _remove_left_over(path: Path) -> None:
    """Remove a temporary file that no process is writing."""
    with suppress(OSError):  # another process removed it, or it is not ours to remove
        lock = take_lock(path)
        if lock is not None:
            lock.release(remove=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented by two blanks, with arrays of plain values on one line.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    # Strings of JSON contain no line breaks, so a match is never inside one.
    text = re.sub(r"\[\n\s+([^\[\]{}]*?)\n\s+\]", lambda found: "[" + re.sub(r"\n\s+", " ", found[1]) + "]", text)
    write_text(path, text + "\n")


def check_writable(folder: Path) -> None:
    """Create a folder and check that files can be written there, before the work that fills it.

    Raises:
        UserError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(path: Path, error: OSError, remedy: str = "write elsewhere") -> UserError:
    """The UserError for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"no space left for {path}; free some, or {remedy}")
    return UserError(f"cannot write {path}: {error.strerror or error}; {remedy}")
