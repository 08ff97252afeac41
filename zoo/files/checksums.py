"""Checksums of a finished folder, in its `SHA256SUMS`: what a disk or a copy has changed since is noticed, not used.

The file is what `sha256sum --check` reads. It is written when the folder is finished; folders of older versions, and
such as were not finished, have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backbones.checksums import file_sha256
from registry import UserError
from zoo.files.atomic import write_text
from zoo.files.untrusted import below

NAME = "SHA256SUMS"


def write_sums(folder: Path, names: Sequence[str]) -> None:
    """Write the checksums of files in a folder, the last of `names` last: `damaged` asks for it."""
    write_text(folder / NAME, "".join(f"{file_sha256(folder / name)}  {name}\n" for name in names))


def damaged(folder: Path, last: str, only: str | None = None) -> list[str]:
    """Names of files in a folder that are gone or are not what was written; none where there are no checksums.

    Args:
        folder: to be checked.
        last: file whose line stands at the end of the checksums; else they are damaged themselves, and named.
        only: look at this file alone.
    """
    try:
        data = (folder / NAME).read_bytes()
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
    """Check one file, if it is there, against its folder's checksums, if there are any.

    Args:
        path: the file.
        last: as of `damaged`.
        remedy: what to do, for the message.

    Raises:
        UserError: it is not what was written.
    """
    if path.exists() and path.name in damaged(path.parent, last, path.name):
        raise UserError(f"{path} is damaged (not the bytes that were written); {remedy}")
