"""Sound folders, made by the project's own code, to spoil."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.values import place


def once(make: Callable[[Path], object]) -> Callable[[], dict[str, bytes]]:
    """Decorate a function that writes a folder: the result returns path -> content, written on the first call."""

    @functools.cache
    def files() -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            return {
                str(path.relative_to(folder)): path.read_bytes()
                for path in sorted(Path(folder).rglob("*"))
                if path.is_file()
            }

    return files


def lay(folder: Path, files: dict[str, Any]) -> None:
    """Write the files of a case of a folder."""
    for name, content in files.items():
        place(folder / name, content)
