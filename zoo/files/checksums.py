"""Checksums of a finished folder in its `SHA256SUMS`, so that files damaged by a disk or a copy are not used.

The format is that of `sha256sum --check`. The file is written when the folder is finished; unfinished folders and those
of older versions have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backbones.checksums import file_sha256
from backbones.opening import read_small
from registry import UserError
from zoo.files.atomic import write_text
from zoo.files.untrusted import below

NAME = "SHA256SUMS"


def write_sums(folder: Path, names: Sequence[str]) -> None:
    """Write the checksums of files in a folder. The last name is the `last` of `damaged`."""
    write_text(folder / NAME, "".join(f"{file_sha256(folder / name)}  {name}\n" for name in names))


def damaged(folder: Path, last: str, only: str | None = None) -> list[str]:
    """Return the files of a folder that are missing or differ from their checksums; empty if it has no checksums.

    Args:
        folder: the folder.
        last: file on the last line of `SHA256SUMS`. If another one is there, `SHA256SUMS` itself is damaged.
        only: check this file only.
    """
    try:
        data = read_small(folder / NAME)
    except FileNotFoundError:
        return []
    except OSError:
        return [NAME]
    lines = [line.split("  ", 1) for line in data.decode("utf-8", "replace").split("\n")]
    if lines.pop() != [""] or not lines or any(len(line) != 2 for line in lines) or lines[-1][1] != last:
        return [NAME]
    found = []
    for sum_, name in lines:
        if only is not None and name != only:
            continue
        try:
            if file_sha256(below(folder, name, NAME)) != sum_:
                found.append(name)
        except (OSError, ValueError, UserError):
            found.append(name)
    return found


def check_file(path: Path, last: str, remedy: str) -> None:
    """Check one file against its folder's checksums. A missing file and missing checksums are not errors.

    Args:
        path: the file.
        last: as in `damaged`.
        remedy: what to do, for the message.

    Raises:
        UserError: the checksum differs.
    """
    if path.exists() and path.name in damaged(path.parent, last, path.name):
        raise UserError(f"{path} is damaged (its checksum differs); {remedy}")
