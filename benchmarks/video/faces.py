"""Face boxes of the user's own, from a CSV file, in place of a detector and tracks."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.data.frames import LARGEST
from benchmarks.video.decode import Frame
from benchmarks.video.track import TrackedFrame
from registry import UserError
from zoo.files.untrusted import LONGEST_ID, read_bytes

EDGES = ["x1", "y1", "x2", "y2"]


def read_faces(path: Path) -> pd.DataFrame:
    """Read boxes: columns track, x1, y1, x2, y2 and frame (from 0) or time (seconds), in any order, others ignored.

    Returns:
        frame or time, track (text), x1, y1, x2, y2 (float64), sorted by the first.

    Raises:
        UserError: no such file, a column that is missing, a value that is no number, a box without area, or two boxes
            of one track in a frame; says in which line.
    """
    data = io.BytesIO(read_bytes(path, "boxes of --faces"))  # as it is: nothing is unpacked, whatever the name ends in
    try:
        table = pd.read_csv(data, dtype=str, keep_default_na=False, skipinitialspace=True)
    except ValueError as error:
        raise UserError(f"--faces {path} cannot be read as CSV: {error}") from error
    table.columns = [str(name).strip() for name in table.columns]
    when = next((name for name in ("frame", "time") if name in table.columns), None)
    missing = [name for name in ("track", *EDGES) if name not in table.columns]
    if when is None or missing:
        lacks = ", ".join(missing + ([] if when else ["frame or time"]))
        raise UserError(f"--faces {path} lacks {lacks}; its first line must name frame or time, track, x1, y1, x2, y2")
    numbers = table[[when, *EDGES]].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    wrong = ~np.isfinite(numbers).all(axis=1)
    _refuse(path, wrong, "has a value that is no number")
    _refuse(path, (numbers.abs() >= LARGEST).any(axis=1), "has a value of 2^31 or more, which no video has")
    _refuse(path, numbers["x2"] <= numbers["x1"], "has x2 not right of x1")
    _refuse(path, numbers["y2"] <= numbers["y1"], "has y2 not below y1")
    unfit = ~table["track"].map(str.isprintable) | (table["track"].str.len() > LONGEST_ID)
    _refuse(path, (table["track"] == "") | unfit, "names no track, or one that is too long or cannot be printed")
    if when == "frame":
        _refuse(path, (numbers["frame"] % 1 != 0) | (numbers["frame"] < 0), "has a frame that is no number from 0")
    out = numbers.assign(track=table["track"])
    _refuse(path, out.duplicated([when, "track"]), f"has a second box of its track at this {when}")
    return out.sort_values(when, kind="stable", ignore_index=True)


def _refuse(path: Path, wrong: pd.Series, problem: str) -> None:
    if wrong.any():
        line = int(np.flatnonzero(wrong)[0]) + 2  # after the header, from 1
        raise UserError(f"--faces {path}: line {line} {problem}; correct it or leave it out")


class GivenFaces:
    """Boxes of the user -> frames with tracks; answers as `Tracker` does, and sooner.

    A box that has a time belongs to the nearest frame, and of two boxes of a track in one frame to the later one.

    Args:
        table: what `read_faces` returns.
        frame_time: seconds from one frame to the next: boxes before the first or after the last frame by more than half
            of that are left out.
    """

    def __init__(self, table: pd.DataFrame, frame_time: float) -> None:
        self._by_time = "time" in table.columns
        self._when = table["time" if self._by_time else "frame"].to_numpy(dtype=np.float64)
        self._tracks = table["track"].to_numpy()
        self._boxes = table[EDGES].to_numpy(dtype=np.float64)
        self._reach = frame_time / 2
        self._next = 0
        self._before: Frame | None = None
        self.count, self.placed = len(table), 0

    def place(self, frame: Frame, faces: object = None) -> list[TrackedFrame]:
        """Take in the next frame; where boxes have times, the frame before it is settled by that."""
        if not self._by_time:
            return [self._take(frame, frame.number)]
        before, self._before = self._before, frame
        return [] if before is None else [self._take(before, (before.time + frame.time) / 2)]

    def finish(self) -> list[TrackedFrame]:
        """The frame that is left when there are no more."""
        last, self._before = self._before, None
        return [] if last is None else [self._take(last, last.time + self._reach)]

    def _take(self, frame: Frame, until: float) -> TrackedFrame:
        start, self._next = self._next, int(np.searchsorted(self._when, until, side="right"))
        here = [row for row in range(start, self._next) if self._when[row] >= self._from(frame)]
        last = {str(self._tracks[row]): row for row in here}
        self.placed += len(last)
        return TrackedFrame(frame, list(last), self._boxes[list(last.values())].reshape(-1, 4))

    def _from(self, frame: Frame) -> float:
        """Seconds from which on a box that is left is of this frame: only before the first there are others."""
        return frame.time - self._reach if self._by_time and frame.number == 0 else -np.inf
