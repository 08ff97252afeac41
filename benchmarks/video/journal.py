"""What a run that may be killed leaves for the next one: the frames it has seen, and the rows it has written."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.video.decode import Frame
from benchmarks.video.detectors.base import Faces
from benchmarks.video.scorer import Row
from registry import UserError
from zoo.files import cannot_write

COLUMNS = ("time", "frame", "track", "x1", "y1", "x2", "y2", "score")
COMMENT = "# "
TAIL = 1 << 20  # bytes that the rows of one frame never fill


class Journal:
    """Frames with their faces, one line of JSON each, as far as they were seen.

    Args:
        path: the file; a last line that is not whole is cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            _drop_broken_line(path)
            self._file = path.open("a", encoding="ascii", buffering=1)
        except OSError as error:
            raise cannot_write(path, error) from error

    def read(self) -> Iterator[tuple[Frame, Faces | None]]:
        """The frames that are there, without pictures."""
        with self._path.open(encoding="ascii") as file:
            for line in file:
                number, time, stamp, lost, faces = json.loads(line)
                found = None
                if faces is not None:
                    values = np.array(faces, dtype=np.float64).reshape(-1, 5)
                    found = Faces(values[:, :4], values[:, 4])
                yield Frame(number, time, stamp, lost), found

    def append(self, frame: Frame, faces: Faces | None) -> None:
        """Add one; it is with the system when this returns."""
        found = None if faces is None else np.column_stack(faces).tolist()
        line = json.dumps([frame.number, frame.time, frame.stamp, frame.lost, found])
        try:
            self._file.write(line + "\n")
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class RowsFile:
    """The rows of frames.csv, as far as they are known.

    Attributes:
        first: the frame whose rows, and all later ones', are still to be written. Those of the last frame in the file
            are written again: nobody knows whether they are all there.

    Args:
        path: the file.
        header: lines to stand before the columns' names.
    """

    def __init__(self, path: Path, header: Iterable[str]) -> None:
        self._path = path
        self.first = 0
        try:
            if path.exists():
                _drop_broken_line(path)
                self._drop_last_frame()
            if not path.exists() or path.stat().st_size == 0:
                lines = [COMMENT + line for line in header] + [",".join(COLUMNS)]
                path.write_text("\n".join(lines) + "\n", encoding="utf-8")
                self.first = 0
            self._file = path.open("a", encoding="utf-8", newline="")
        except OSError as error:
            raise cannot_write(path, error) from error
        self._writer = csv.writer(self._file, lineterminator="\n")

    def _drop_last_frame(self) -> None:
        with self._path.open("rb+") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            lines = file.read().splitlines(keepends=True)
            numbers = [_frame_of(line) for line in lines]
            last = numbers[-1] if numbers else None
            if last is None:  # header only, and perhaps not all of it
                file.truncate(0)
                return
            while numbers and numbers[-1] == last:
                size -= len(lines.pop())
                numbers.pop()
            file.truncate(size)
            self.first = last

    def write(self, rows: Iterable[Row]) -> None:
        """Add rows of frames from `first` on; they are with the system when this returns."""
        try:
            for row in rows:
                if row.frame >= self.first:
                    edges = [f"{edge:.2f}" for edge in row.box]
                    self._writer.writerow([f"{row.time:.6f}", row.frame, row.track, *edges, f"{row.score:.6f}"])
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a frames.csv, one after another."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(line for line in file if not line.startswith(COMMENT))
        next(lines, None)
        for number, line in enumerate(lines):
            try:
                time, frame, track, *box, score = line
                yield Row(float(time), int(frame), track, np.array(box, dtype=np.float64), float(score))
            except ValueError:
                raise UserError(
                    f"{path}: row {number + 1} is damaged; delete the file and run the command again"
                ) from None


def _frame_of(line: bytes) -> int | None:
    """The frame that a line of frames.csv is of; None for the header."""
    parts = line.split(b",", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else None


def _drop_broken_line(path: Path) -> None:
    """Cut a file after its last line break."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        place = file.seek(0, 2)
        while place > 0:
            start = max(0, place - TAIL)
            file.seek(start)
            found = file.read(place - start).rfind(b"\n")
            if found >= 0:
                file.truncate(start + found + 1)
                return
            place = start
        file.truncate(0)
