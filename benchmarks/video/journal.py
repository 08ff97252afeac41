"""The files from which a later run resumes: the faces seen in each frame, and the rows written so far.

Both have checksums. The next run uses them up to the first damaged byte.
"""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from backbones.opening import open_regular
from benchmarks.video.decode import Frame
from benchmarks.video.detectors.base import Faces
from benchmarks.video.scorer import ScoredFace
from registry import UserError
from zoo.files.atomic import cannot_write, replacing

COLUMNS = ("time", "frame", "track", "x1", "y1", "x2", "y2", "score")
COMMENT = "# "
UNFINISHED = "unfinished"  # the folder of these files, inside the folder of results
TAIL = 1 << 20  # bytes; more than the rows of one frame
LONGEST = 1 << 24  # bytes of a line


class _LineFile:
    """A file of lines of JSON, each with its CRC-32.

    Args:
        path: the file; it is truncated before the first damaged line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            if path.exists():
                with open_regular(path, "rb+") as file:
                    file.truncate(sum(len(line) for line, _ in _sound_lines(file)))
            self._file = open_regular(path, "ab", buffering=0)
        except OSError as error:
            raise cannot_write(path, error) from error

    def _values(self) -> Iterator[Any]:
        """Yields the values written so far."""
        with open_regular(self._path, "rb") as file:
            yield from (json.loads(text) for _, text in _sound_lines(file))

    def _add(self, value: Any) -> None:
        """Adds a value; the operating system has it when this returns."""
        try:
            _append(self._file, _with_sum(json.dumps(value).encode()))
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Journal(_LineFile):
    """Frames with their faces, one per line."""

    def read(self) -> Iterator[tuple[Frame, Faces | None]]:
        """Yields the recorded frames, without pictures; None where no faces were searched for."""
        for number, time, stamp, lost, faces in self._values():
            found = None
            if faces is not None:
                values = np.array(faces, dtype=np.float64).reshape(-1, 5)
                found = Faces(values[:, :4], values[:, 4])
            yield Frame(number, time, stamp, lost), found

    def last(self) -> int | None:
        """Returns the number of the last recorded frame; None if there is none."""
        return max((number for number, *_ in self._values()), default=None)

    def append(self, frame: Frame, faces: Faces | None) -> None:
        """Adds a frame; the operating system has it when this returns."""
        found = None if faces is None else np.column_stack(faces).tolist()
        self._add([frame.number, frame.time, frame.stamp, frame.lost, found])


class Looks(_LineFile):
    """Looks at tracks for a face, one per line.

    Attributes:
        made: track and number of a frame -> whether a face was recognised there.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.made: dict[tuple[str, int], bool] = {(track, frame): found for track, frame, found in self._values()}

    def append(self, track: str, frame: int, recognised: bool) -> None:
        """Adds a look; the operating system has it when this returns."""
        self.made[track, frame] = recognised
        self._add([track, frame, recognised])


class RowsFile:
    """frames.csv while it is being written.

    A second file, `<name>.sums`, has one line per write: the length of the file after it, and the CRC-32 up to there.

    Attributes:
        first: the first frame whose rows are missing. The rows of the last frame in the file are dropped and written
            again, because some of them may be missing.

    Args:
        path: the file; it is truncated where it stops matching its checksums.
        header: comment lines above the column names.
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
            self._file, self._sums = open_regular(path, "ab", buffering=0), open_regular(sums, "ab", buffering=0)
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
        with open_regular(self._path, "rb+") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            lines = file.read().splitlines(keepends=True)
            numbers = [_frame_of(line) for line in lines]
            last = numbers[-1] if numbers else None
            if last is None:  # only the header, perhaps incomplete
                file.truncate(0)
                return
            while numbers and numbers[-1] == last:
                size -= len(lines.pop())
                numbers.pop()
            file.truncate(size)
            self.first = last

    def write(self, rows: Iterable[ScoredFace]) -> int:
        """Adds the rows of frames from `first` on; the operating system has them when this returns.

        Returns:
            The number of rows added.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        missing = [row for row in rows if row.frame >= self.first]
        for row in missing:
            edges = [f"{edge:.2f}" for edge in row.box]
            writer.writerow([f"{row.time:.6f}", row.frame, row.track, *edges, f"{row.score:.6f}"])
        if missing:
            try:
                self._append(text.getvalue())
            except OSError as error:
                raise cannot_write(self._path, error) from error
        return len(missing)

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        self._sums.close()


def read_rows(path: Path) -> Iterator[ScoredFace]:
    """Yields the rows of a frames.csv."""
    with open_regular(path, "r", encoding="utf-8", newline="") as file:
        lines = csv.reader(line for line in file if not line.startswith(COMMENT))
        next(lines, None)
        for number, line in enumerate(lines):
            try:
                time, frame, track, *box, score = line
                yield ScoredFace(float(time), int(frame), track, np.array(box, dtype=np.float64), float(score))
            except ValueError:
                raise UserError(f"{path}: row {number + 1} is damaged; delete the file and run predict again") from None


def keep_rows(path: Path, dropped: Collection[str], kept: Path) -> int:
    """Copies a frames.csv without the rows of some tracks; returns the number of rows that are left."""
    count = 0
    with open_regular(path, "rb") as file, replacing(kept) as temporary, temporary.open("wb") as out:
        for line in file:
            is_row = _frame_of(line) is not None
            if not is_row or line.split(b",", 3)[2].decode() not in dropped:
                out.write(line)
                count += is_row
    return count


def _frame_of(line: bytes) -> int | None:
    """Returns the frame number in a line of frames.csv; None for the header."""
    parts = line.split(b",", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else None


def _append(file: IO[bytes], data: bytes) -> None:
    """Writes all bytes, without Python's buffers: after an error nothing is left that a later write would flush."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _with_sum(text: bytes) -> bytes:
    """Returns the text as a line with its checksum, for `_sound_lines`."""
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _sound_lines(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yields lines of `_with_sum` and their text, up to the first damaged one."""
    while line := file.readline(LONGEST):
        text = line[9:-1]
        if line != _with_sum(text):
            return
        yield line, text


def _drop_unsound(path: Path, sums: Path) -> None:
    """Truncates a file after the last write that matches its checksum."""
    marks = []
    if sums.exists():
        with open_regular(sums, "rb") as file:
            marks = [tuple(map(int, text.split())) for _, text in _sound_lines(file)]
    sound = crc = place = 0
    with open_regular(path, "rb+") as file:
        for length, wanted in marks:
            data = file.read(length - place)
            place, crc = place + len(data), zlib.crc32(data, crc)
            if place != length or crc != wanted:
                break
            sound = length
        file.truncate(sound)


def _length_and_crc(path: Path) -> tuple[int, int]:
    """Returns a file's size and CRC-32; of no bytes if it is missing."""
    length = crc = 0
    if path.exists():
        with open_regular(path, "rb") as file:
            while data := file.read(TAIL):
                length, crc = length + len(data), zlib.crc32(data, crc)
    return length, crc
