"""What a run that may be killed leaves for the next one: the frames it has seen, and the rows it has written.

Both have checksums, so that the next run takes no more than what was written, up to the first byte that is another one.
"""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from benchmarks.video.decode import Frame
from benchmarks.video.detectors.base import Faces
from benchmarks.video.scorer import ScoredFace
from registry import UserError
from zoo.files.atomic import cannot_write, replacing

COLUMNS = ("time", "frame", "track", "x1", "y1", "x2", "y2", "score")
COMMENT = "# "
TAIL = 1 << 20  # bytes that the rows of one frame never fill


class Journal:
    """Frames with their faces, a line each: its CRC-32, and JSON; as far as they were seen.

    Args:
        path: the file; it is cut off before the first line that is not as it was written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            if path.exists():
                with path.open("rb+") as file:
                    file.truncate(sum(len(line) for line, _ in _sound_lines(file)))
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise cannot_write(path, error) from error

    def read(self) -> Iterator[tuple[Frame, Faces | None]]:
        """The frames that are there, without pictures."""
        with self._path.open("rb") as file:
            for _, text in _sound_lines(file):
                number, time, stamp, lost, faces = json.loads(text)
                found = None
                if faces is not None:
                    values = np.array(faces, dtype=np.float64).reshape(-1, 5)
                    found = Faces(values[:, :4], values[:, 4])
                yield Frame(number, time, stamp, lost), found

    def append(self, frame: Frame, faces: Faces | None) -> None:
        """Add one; it is with the system when this returns."""
        found = None if faces is None else np.column_stack(faces).tolist()
        text = json.dumps([frame.number, frame.time, frame.stamp, frame.lost, found]).encode()
        try:
            _append(self._file, _with_sum(text))
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class RowsFile:
    """The rows of frames.csv, as far as they are known.

    A second file, `<name>.sums`, has a line for each time that rows were written: the length of the file after it, and
    the CRC-32 of all that.

    Attributes:
        first: the frame whose rows, and all later ones', are still to be written. Those of the last frame in the file
            are written again: nobody knows whether they are all there.

    Args:
        path: the file; it is cut off where it no longer agrees with its checksums.
        header: lines to stand before the columns' names.
    """

    def __init__(self, path: Path, header: Iterable[str]) -> None:
        self._path = path
        self.first = 0
        sums = path.with_name(path.name + ".sums")
        try:
            if path.exists():
                _drop_unsound(path, sums)
                self._drop_last_frame()
            self._length, self._crc = _length_and_crc(path)
            with replacing(sums) as temporary:
                temporary.write_bytes(self._mark())
            self._file, self._sums = path.open("ab", buffering=0), sums.open("ab", buffering=0)
            if not self._length:
                lines = [COMMENT + line for line in header] + [",".join(COLUMNS)]
                self._append("\n".join(lines) + "\n")
                self.first = 0
        except OSError as error:
            raise cannot_write(path, error) from error

    def _append(self, text: str) -> None:
        data = text.encode()
        _append(self._file, data)
        self._length, self._crc = self._length + len(data), zlib.crc32(data, self._crc)
        _append(self._sums, self._mark())

    def _mark(self) -> bytes:
        return _with_sum(f"{self._length} {self._crc}".encode())

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

    def write(self, rows: Iterable[ScoredFace]) -> None:
        """Add rows of frames from `first` on; they are with the system when this returns."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in rows:
            if row.frame >= self.first:
                edges = [f"{edge:.2f}" for edge in row.box]
                writer.writerow([f"{row.time:.6f}", row.frame, row.track, *edges, f"{row.score:.6f}"])
        if text.tell():
            try:
                self._append(text.getvalue())
            except OSError as error:
                raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._sums.close()


def read_rows(path: Path) -> Iterator[ScoredFace]:
    """Rows of a frames.csv, one after another."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(line for line in file if not line.startswith(COMMENT))
        next(lines, None)
        for number, line in enumerate(lines):
            try:
                time, frame, track, *box, score = line
                yield ScoredFace(float(time), int(frame), track, np.array(box, dtype=np.float64), float(score))
            except ValueError:
                raise UserError(
                    f"{path}: row {number + 1} is damaged; delete the file and run the command again"
                ) from None


def _frame_of(line: bytes) -> int | None:
    """The frame that a line of frames.csv is of; None for the header."""
    parts = line.split(b",", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else None


def _append(file: IO[bytes], data: bytes) -> None:
    """Write all of some bytes past Python's buffers: what fails is not written later, below what comes then."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _with_sum(text: bytes) -> bytes:
    """A line of text that `_sound_lines` gives back."""
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _sound_lines(file: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Lines of `_with_sum` with their text, up to the first that is not as it was written."""
    for line in file:
        text = line[9:-1]
        if line != _with_sum(text):
            return
        yield line, text


def _drop_unsound(path: Path, sums: Path) -> None:
    """Cut a file where it last agrees with its checksums."""
    marks = []
    if sums.exists():
        with sums.open("rb") as file:
            marks = [tuple(map(int, text.split())) for _, text in _sound_lines(file)]
    sound = crc = place = 0
    with path.open("rb+") as file:
        for length, wanted in marks:
            data = file.read(length - place)
            place, crc = place + len(data), zlib.crc32(data, crc)
            if place != length or crc != wanted:
                break
            sound = length
        file.truncate(sound)


def _length_and_crc(path: Path) -> tuple[int, int]:
    """Bytes of a file, and their CRC-32; of none where it is missing."""
    length = crc = 0
    if path.exists():
        with path.open("rb") as file:
            while data := file.read(TAIL):
                length, crc = length + len(data), zlib.crc32(data, crc)
    return length, crc
