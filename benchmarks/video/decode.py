"""The frames of a video file with their times: as a player shows them, and as far as the file can be decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from benchmarks.data.pictures import MAX_PIXELS
from benchmarks.video.container import (
    ANIMATIONS,
    SCANNED,
    Reader,
    aspect_of,
    declared_end,
    missing_at_end,
    open_container,
    start_of,
    typical_frame,
    video_stream,
)
from benchmarks.video.upright import Orientation, View, orientation_of, upright_picture, upright_size
from registry import UserError, printable

if TYPE_CHECKING:
    import av

BEFORE = 2.0  # seconds to seek ahead of a frame, because the index of some files is inexact


@dataclass(frozen=True)
class Frame:
    """One frame, decoded now or by an earlier run.

    Attributes:
        number: from 0, counting the frames that can be decoded.
        time: seconds from the start of the file, not negative.
        stamp: the file's own time, in units of its `time_base`.
        lost: number of earlier frames that could not be decoded.
        shown: the decoded picture, or upright pixels ``(H, W, 3)`` uint8, RGB; None for a frame of an earlier run.
        view: how it is shown; None: as it is stored.
    """

    number: int
    time: float
    stamp: int
    lost: int
    shown: av.VideoFrame | np.ndarray | None = field(default=None, repr=False, compare=False)
    view: View | None = field(default=None, repr=False, compare=False)

    def picture(self) -> np.ndarray:
        """Returns the upright picture, ``(H, W, 3)`` uint8, RGB, in the size of the video."""
        return self.reduced(None)

    def reduced(self, side: int | None) -> np.ndarray:
        """Returns the upright picture, shrunk to a longer side of at most `side` pixels; None: not shrunk."""
        shown = self.shown
        assert shown is not None
        if isinstance(shown, np.ndarray):
            if side is None or max(shown.shape[:2]) <= side:
                return shown
            shown = _in_ffmpeg(shown)
        view = self.view or View(Orientation(), 1.0, (shown.width, shown.height))
        return upright_picture(shown, view, side)


def _in_ffmpeg(picture: np.ndarray) -> av.VideoFrame:
    """Hands pixels to FFmpeg, so that they are shrunk like those of a video.

    Raises:
        UserError: PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError("to find faces in large pictures, PyAV is needed: pip install av") from None
    return av.VideoFrame.from_ndarray(picture, format="rgb24")


class FrameStream(Protocol):
    """Frames with their times, from a file or a camera.

    Attributes:
        name: path or address, printable.
        title: its last part.
        size: width and height of the frames.
        frame_time: seconds that a frame lasts as a rule.
        expected: number of frames; 0 if unknown.
        live: the frames come as time passes, and end when the user says so.
    """

    name: str
    title: str
    size: tuple[int, int]
    expected: int
    live: bool

    @property
    def frame_time(self) -> float: ...

    def frames(self, after: Frame | None = None) -> Iterator[Frame]:
        """Yields the frames after a frame of an earlier run; None: all."""

    def lost_at_end(self, last: Frame) -> int:
        """Returns how many frames are missing after the last one."""


class Video:
    """A video file with at least one frame that can be decoded.

    Attributes:
        path: of the file.
        name: the path, printable.
        title: the file's name, printable.
        live: no.
        size: width and height of the upright frames with square pixels; those of the first frame count.
        frame_time: seconds that a frame lasts as a rule.
        expected: number of frames as declared, or if all last that long; 0 if the file declares no end.
        time_base: seconds per unit of `Frame.stamp`.
        codec: name.

    Raises:
        UserError: the file is missing, empty, has no video or none that can be decoded; or PyAV is not installed.
    """

    live = False
    frame_time: float

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = name = printable(str(path))
        self.title = printable(self.path.name)
        if not self.path.exists():
            raise UserError(f"video {name} does not exist; give the path of a video file")
        if self.path.is_dir():
            raise UserError(f"video {name} is a folder; give one video file")
        if self.path.stat().st_size == 0:
            raise UserError(f"video {name} is empty (0 bytes); copy or record it again")
        try:
            import av
        except ImportError:
            raise UserError("videos need PyAV: pip install av") from None
        self._av = av
        with open_container(self.path) as container:
            stream = video_stream(container, self.path)
            self.time_base, self.codec = stream.time_base, stream.codec_context.name
            reader, stamps = Reader(container, stream), []
            for packet in reader.packets():
                stamps.append(packet.pts)
                if (first := next(iter(reader.decode(packet)), None)) is not None:
                    break
            else:
                raise UserError(
                    f"video {name}: no frame can be decoded ({self.codec}); the file is damaged: copy it again, or "
                    f"convert it: ffmpeg -i {printable(self.path.name)} -c:v libx264 out.mp4"
                )
            self._first_aspect = stream.codec_context.sample_aspect_ratio
            orientation, aspect = orientation_of(first), aspect_of(stream, self._first_aspect)
            stamps += [packet.pts for packet in islice(reader.packets(), SCANNED)]
            stamps = [stamp for stamp in stamps if stamp is not None]
            if container.format.name in ANIMATIONS and len(stamps) == 1:
                raise UserError(f"video {name} is a picture ({container.format.name}); give a video")
            at = float((first.pts or 0) * self.time_base)
            self._start, self._end = start_of(container, at), declared_end(container, stream)
            self.frame_time = typical_frame(stamps, stream)
            end = at if self._end[0] is None else self._end[0]
            self.expected = stream.frames or max(0, round((end - at) / self.frame_time))
        self.size = upright_size(first, orientation, aspect)
        self._square = self.size[0] * self.size[1] > MAX_PIXELS  # pixels of such a shape are damage
        if self._square:
            self.size = upright_size(first, orientation, 1.0)

    def frames(self, after: Frame | None = None) -> Iterator[Frame]:
        """Decodes the frames.

        Args:
            after: yield only the frames after this one, which an earlier run decoded; None: all frames.
        """
        found = self._after(after) if after is not None and after.lost == 0 else None
        if found is None:
            found = (frame for frame in self._numbered() if after is None or frame.number > after.number)
        yield from found

    def _after(self, after: Frame) -> Iterator[Frame] | None:
        """Seeks to a frame and returns the frames after it; None if seeking does not find it undamaged."""
        frames = self._numbered(after.stamp - int(BEFORE / self.time_base))
        for frame in frames:
            if frame.lost:  # some decoders fail on what comes first after seeking
                break
            if frame.stamp == after.stamp and getattr(frame.shown, "pts", None) == after.stamp:
                shift = after.number - frame.number
                return (replace(later, number=later.number + shift) for later in frames)
            if frame.stamp > after.stamp:
                break
        return None

    def _numbered(self, seek: int | None = None) -> Iterator[Frame]:
        """Yields frames from the start, or from the key frame before a stamp, numbered from 0."""
        with open_container(self.path) as container:
            stream = video_stream(container, self.path)
            stream.thread_type = "AUTO"
            if seek is not None:
                try:
                    container.seek(seek, stream=stream)
                except self._av.error.FFmpegError:
                    return
            reader = self._reader = Reader(container, stream)
            last: int | None = None
            for number, shown in enumerate(reader.pictures()):
                stamp = shown.pts
                if stamp is None or (last is not None and stamp <= last):  # times must increase
                    stamp = 0 if last is None else last + max(1, round(self.frame_time / self.time_base))
                last = stamp
                time = float(stamp * self.time_base) - self._start
                yield Frame(number, time, stamp, reader.failed, shown, self._view(shown, stream))

    def _view(self, shown: Any, stream: Any) -> View:
        aspect = 1.0 if self._square else aspect_of(stream, self._first_aspect)
        return View(orientation_of(shown), aspect, self.size)

    def lost_at_end(self, last: Frame) -> int:
        """Returns how many frames are missing after the last one, to which the file has been decoded."""
        failed = self._reader.failed - last.lost
        return failed + round(missing_at_end(self.path, self._end, self._reader) / self.frame_time)
