"""Frames, boxes, tracks and times that a program gives as arrays: checked, and put together frame by frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.video.decode import Frame
from benchmarks.video.track import TrackedFrame
from registry import UserError, printable
from zoo.models import MAX_RATE

ONE = "1"  # name of the track, if there is only one
_END = object()


@dataclass(frozen=True)
class Arrays:
    """Frames of a program with their faces. The iterables are read once, and at the same pace.

    Attributes:
        frames: pictures as for `as_picture`.
        boxes: of each frame, as for `as_boxes`; None: each picture is the crop of one face.
        tracks: of each frame, the name of its box or a sequence of the names of its boxes; None: one person.
        rate: frames per second; None: see times.
        times: seconds of each frame; None: see rate. One frame needs neither.
    """

    frames: Iterable[Any]
    boxes: Iterable[Any] | None = None
    tracks: Iterable[Any] | None = None
    rate: float | None = None
    times: Iterable[float] | None = None

    def tracked(self) -> Iterator[TrackedFrame]:
        """Yields the frames with their faces.

        Raises:
            UserError: something does not fit; names the frame.
        """
        self._check()
        before, number = -math.inf, -1
        for number, (picture, boxes, tracks, time) in enumerate(self._together()):
            where = f"frame {number}"
            if number == 1 and self.rate is None and self.times is None:
                raise UserError("give the frames' rate (frames per second) or times (seconds of each frame)")
            now = as_time(number / self.rate if self.rate else number if self.times is None else time, before, where)
            pixels = as_picture(picture, where)
            height, width = pixels.shape[:2]
            whole = self.boxes is None
            edges = np.array([[0.0, 0, width, height]]) if whole else as_boxes(boxes, pixels, where)
            names = _names(tracks, len(edges), where) if self.tracks is not None else [ONE] * len(edges)
            if len(names) > 1 and self.tracks is None:
                raise UserError(f"{where} has {len(edges)} boxes; give tracks: the names of the boxes of each frame")
            yield TrackedFrame(Frame(number, now, stamp=number, lost=0, shown=pixels), names, edges)
            before = now
        if number < 0:
            raise UserError("there are no frames")

    @property
    def _beside(self) -> dict[str, Iterable[Any]]:
        """What is given for each frame, by name."""
        given = {"boxes": self.boxes, "tracks": self.tracks, "times": self.times}
        return {name: values for name, values in given.items() if values is not None}

    def _check(self) -> None:
        """Refuses what can be seen before anything is scored."""
        for name, values in {"frames": self.frames, **self._beside}.items():
            if not isinstance(values, Iterable) or isinstance(values, str | bytes):
                raise UserError(f"{name} must have an entry for each frame, got {printable(repr(values)):.60}")
        if self.rate is not None and self.times is not None:
            raise UserError("give the frames' rate or their times, not both")
        if self.rate is not None and not (isinstance(self.rate, int | float) and 0 < self.rate <= MAX_RATE):
            raise UserError(f"rate is {self.rate!r}; it must be above 0 and at most {MAX_RATE} frames per second")
        for name, values in self._beside.items():
            if isinstance(values, Sized) and isinstance(self.frames, Sized) and len(values) != len(self.frames):
                raise _unequal(name, len(values), len(self.frames))

    def _together(self) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Yields each frame with its boxes, tracks and time."""
        beside, number = {name: iter(values) for name, values in self._beside.items()}, 0
        for number, picture in enumerate(self.frames, start=1):
            here = {name: next(values, _END) for name, values in beside.items()}
            for name, value in here.items():
                if value is _END:
                    raise _unequal(name, number - 1, "larger")
            yield picture, here.get("boxes"), here.get("tracks"), here.get("times")
        for name, values in beside.items():
            if next(values, _END) is not _END:
                raise _unequal(name, "larger", number)


def _unequal(name: str, count: object, frames: object) -> UserError:
    return UserError(f"the length of {name} is {count}, that of frames {frames}; give one entry per frame")


def as_picture(value: Any, where: str) -> np.ndarray:
    """Returns a picture ``(H, W, 3)`` uint8, RGB, contiguous.

    Args:
        value: an array, or what numpy makes one of, as a picture of Pillow.
        where: for messages.

    Raises:
        UserError: it has another shape, or other values than bytes.
    """
    picture = np.asarray(value)
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        is_one = picture.dtype == np.uint8 and picture.ndim == 2 and picture.shape[1] == 3
        hint = " (to score one picture, give a list of it)" if is_one else ""
        got = f"the shape {picture.shape}" if picture.dtype.kind in "buif" else f"a {type(value).__name__}"
        raise UserError(f"{where} is no picture: got {got}; give (height, width, 3) uint8, RGB{hint}")
    if picture.dtype != np.uint8:
        hint = "; of values from 0 to 1: (255 * frame).round().astype('uint8')" if picture.dtype.kind == "f" else ""
        raise UserError(f"{where} has {picture.dtype} values; give uint8 from 0 to 255{hint}")
    return np.ascontiguousarray(picture)


def as_boxes(value: Any, picture: np.ndarray, where: str) -> np.ndarray:
    """Returns boxes ``(N, 4)`` float64 x1, y1, x2, y2.

    Args:
        value: ``(4,)`` or ``(N, 4)``; N may be 0.
        picture: ``(H, W, 3)`` that they are in.
        where: for messages.

    Raises:
        UserError: a shape is another one, a value is not finite, or a box has no area or no pixel in the picture.
    """
    try:
        boxes = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"the boxes of {where} are no numbers; give x1, y1, x2, y2 of each") from None
    if boxes.size == 0 and boxes.ndim <= 2:
        return np.empty((0, 4))
    if boxes.ndim == 1:
        boxes = boxes[None]
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UserError(
            f"the boxes of {where} have shape {np.shape(value)}; give (4,) or (N, 4): x1, y1, x2, y2, or [] for none"
        )
    height, width = picture.shape[:2]
    # As faces are cut: edges are rounded down.
    low, high = np.maximum(np.floor(boxes[:, :2]), 0), np.minimum(np.floor(boxes[:, 2:]), [width, height])
    for number, box in enumerate(boxes):
        said = f"box {number} of {where} ({', '.join(f'{edge:g}' for edge in box)})"
        if not np.isfinite(box).all():
            raise UserError(f"{said} has an edge that is not a number; leave out the box of a face that is not there")
        if not (box[2:] > box[:2]).all():
            raise UserError(f"{said} has x2 not right of x1, or y2 not below y1; give x1, y1, x2, y2 in pixels")
        if not (high[number] > low[number]).all():
            raise UserError(f"{said} has no pixel in the picture, which is {width} wide and {height} high")
    return boxes


def as_time(value: Any, before: float, where: str) -> float:
    """Returns the seconds of a frame.

    Args:
        value: a number.
        before: seconds of the frame before; -inf: it is the first.
        where: for messages.

    Raises:
        UserError: it is no finite number, or not after the frame before.
    """
    try:
        time = float(value)
    except (TypeError, ValueError):
        time = math.nan
    if not math.isfinite(time):
        raise UserError(f"the time of {where} is {value!r}; give seconds")
    if time <= before:
        raise UserError(f"{where} is at {time:g} s, and the frame before at {before:g} s; times must increase")
    return time


def _names(value: Any, count: int, where: str) -> list[str]:
    """Returns the names of a frame's tracks as text."""
    given = [value] if isinstance(value, str) or not isinstance(value, Iterable) else value
    names = [str(name) for name in given]
    if len(names) != count:
        raise UserError(
            f"{where}: the length of its boxes is {count}, that of its tracks {len(names)}; give one name per box"
        )
    if len(set(names)) < len(names):
        raise UserError(f"{where} has two boxes of one track: {printable(', '.join(names))}")
    return names
