"""The folder of a row: its path, and the checksums of its files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.files.checksums import write_sums

if TYPE_CHECKING:
    from benchmarks.config.ensemble import RowConfig


def result_folder(out: Path, row: RowConfig) -> Path:
    """Path of the folder with a row's `result.json`, `predictions.csv` and `config.py`."""
    return out / "results" / row.dataset / folder_name(row.name)


def folder_name(name: str) -> str:
    """A row's name as a folder name, at most 150 characters, valid on every file system.

    Example:
        >>> folder_name("probe+views=original,flipped smoothed")
        'probe+views=original,flipped-smoothed'
    """
    slug = re.sub(r"[^\w.+=,-]+", "-", name)
    if len(slug) > 150:  # file systems allow 255 bytes
        slug = f"{slug[:140]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return slug


def write_row_sums(folder: Path) -> None:
    """Write the checksums of all files in a row's folder."""
    found = (
        path
        for pattern in ("groundtruth_*.csv", "predictions.csv", "fitting.csv", "seed*/*.csv")
        for path in folder.glob(pattern)
    )
    names = sorted(path.relative_to(folder).as_posix() for path in found)
    write_sums(folder, [*names, "config.py", "result.json"])
