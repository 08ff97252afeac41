"""The user's own face boxes from a CSV file, in place of a detector and a tracker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.data.csv_fields import read_csv
from benchmarks.data.frames import LARGEST
from benchmarks.video.decode import Frame
from benchmarks.video.track import TrackedFrame
from registry import UserError
from zoo.files.untrusted import LONGEST_ID, read_bytes

EDGES = ["x1", "y1", "x2", "y2"]
NEAR = 0.25  # seconds from a frame to its boxes, in a pause of the video


def read_faces(path: Path) -> pd.DataFrame:
    """Reads boxes: columns track, x1, y1, x2, y2, and frame (from 0) or time (seconds); others are ignored.

    Returns:
        frame or time, track (text), x1, y1, x2, y2 (float64), sorted by frame or time.

    Raises:
        UserError: the file or a column is missing, a row is longer or shorter than the header, a value is not a number,
            a box has no area, or a track has two boxes in one frame; names the line.
    """
    data = read_bytes(path, "boxes of --faces")
    try:
        table = read_csv(data, dtype=str, keep_default_na=False, skipinitialspace=True)
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
    _refuse(path, wrong, "has a value that is not a number")
    _refuse(path, (numbers.abs() >= LARGEST).any(axis=1), "has a value of 2^31 or more")
    _refuse(path, numbers["x2"] <= numbers["x1"], "has x2 not right of x1")
    _refuse(path, numbers["y2"] <= numbers["y1"], "has y2 not below y1")
    unfit = ~table["track"].map(str.isprintable) | (table["track"].str.len() > LONGEST_ID)
    _refuse(path, (table["track"] == "") | unfit, "has no track, or a track name that is too long or not printable")
    if when == "frame":
        _refuse(path, (numbers["frame"] % 1 != 0) | (numbers["frame"] < 0), "has a frame that is not an integer from 0")
    out = numbers.assign(track=table["track"])
    _refuse(path, out.duplicated([when, "track"]), f"has a second box of its track at this {when}")
    return out.sort_values(when, kind="stable", ignore_index=True)


def _refuse(path: Path, wrong: pd.Series, problem: str) -> None:
    if wrong.any():
        line = int(np.flatnonzero(wrong)[0]) + 2  # after the header, from 1
        raise UserError(f"--faces {path}: line {line} {problem}; correct or remove it")


class GivenFaces:
    """Places the user's boxes in frames; has the interface of `Tracker`.

    A box with a time belongs to the nearest frame, or to none if it lies in a pause. If a track has two boxes in one
    frame, the later one counts.

    Attributes:
        count: number of boxes.
        placed: number of boxes placed so far.

    Args:
        table: from `read_faces`.
        frame_time: seconds per frame; boxes more than half of it before the first or after the last frame are ignored.
    """

    def __init__(self, table: pd.DataFrame, frame_time: float) -> None:
        self._by_time = "time" in table.columns
        self._when = table["time" if self._by_time else "frame"].to_numpy(dtype=np.float64)
        self._tracks = table["track"].to_numpy()
        self._boxes = table[EDGES].to_numpy(dtype=np.float64)
        self._reach = frame_time / 2
        self._near = max(frame_time, NEAR)
        self._next = 0
        self._before: Frame | None = None
        self.count, self.placed = len(table), 0

    def place(self, frame: Frame, faces: object = None) -> list[TrackedFrame]:
        """Adds the next frame; returns it or, if boxes have times, the frame before it."""
        if not self._by_time:
            return [self._take(frame, frame.number)]
        before, self._before = self._before, frame
        return [] if before is None else [self._take(before, (before.time + frame.time) / 2)]

    def finish(self) -> list[TrackedFrame]:
        """Returns the last frame if boxes have times."""
        last, self._before = self._before, None
        return [] if last is None else [self._take(last, last.time + self._reach)]

    def _take(self, frame: Frame, until: float) -> TrackedFrame:
        start, self._next = self._next, int(np.searchsorted(self._when, until, side="right"))
        low, high = (frame.time - self._near, frame.time + self._near) if self._by_time else (-np.inf, np.inf)
        if self._by_time and frame.number == 0:
            low = frame.time - self._reach
        here = [row for row in range(start, self._next) if low <= self._when[row] <= high]
        last = {str(self._tracks[row]): row for row in here}
        self.placed += len(last)
        return TrackedFrame(frame, list(last), self._boxes[list(last.values())].reshape(-1, 4))
