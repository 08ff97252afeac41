"""The frames of a video file with their times: upright, and as far as the file can be decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.data.pictures import limit_pixels, open_video
from registry import UserError

if TYPE_CHECKING:
    import av

BEFORE = 2.0  # seconds to seek ahead of a frame, because the index of some files is inexact
TRUNCATED = 0.5  # seconds by which the declared end may exceed the last frame without frames being lost


@dataclass(frozen=True)
class Frame:
    """One frame, decoded now or by an earlier run.

    Attributes:
        number: from 0, counting the frames that can be decoded.
        time: seconds from the start of the file.
        stamp: the file's own time, in units of its `time_base`.
        lost: number of earlier frames that could not be decoded.
        shown: the decoded picture; None for a frame of an earlier run.
        turns: quarter turns anticlockwise that make it upright.
    """

    number: int
    time: float
    stamp: int
    lost: int
    shown: av.VideoFrame | None = field(default=None, repr=False, compare=False)
    turns: int = 0

    def picture(self) -> np.ndarray:
        """Returns the upright picture, ``(H, W, 3)`` uint8, RGB."""
        assert self.shown is not None
        return _upright(self.shown.to_ndarray(format="rgb24"), self.turns)

    def reduced(self, side: int | None) -> np.ndarray:
        """Returns the upright picture, shrunk to a longer side of at most `side` pixels; None: not shrunk."""
        assert self.shown is not None
        shown = self.shown
        if side is None or max(shown.width, shown.height) <= side:
            return self.picture()
        scale = side / max(shown.width, shown.height)
        width, height = (max(1, round(scale * size)) for size in (shown.width, shown.height))
        return _upright(shown.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA"), self.turns)


class Video:
    """A video file with at least one frame that can be decoded.

    Attributes:
        path: of the file.
        size: width and height of the upright frames, in pixels.
        turns: quarter turns anticlockwise that make the frames upright, from the metadata.
        frame_time: mean seconds per frame.
        end: declared end in seconds; None if the file declares none.
        time_base: seconds per unit of `Frame.stamp`.
        codec: name.

    Raises:
        UserError: the file is missing, empty, has no video or none that can be decoded; or PyAV is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise UserError(f"video {path} does not exist; give the path of a video file")
        if self.path.is_dir():
            raise UserError(f"video {path} is a folder; give one video file")
        if self.path.stat().st_size == 0:
            raise UserError(f"video {path} is empty (0 bytes); copy or record it again")
        try:
            import av
        except ImportError:
            raise UserError("videos need PyAV: pip install av") from None
        self._av = av
        with self._open() as container:
            stream = self._stream(container)
            self.time_base = stream.time_base
            # A container may start late. A slightly negative start is the audio's priming and is ignored.
            self._start = max((container.start_time or 0) / av.time_base, 0.0)
            rate = stream.average_rate or stream.guessed_rate
            self.frame_time = 1 / float(rate) if rate else 1 / 30
            ends = [float(stream.duration * stream.time_base)] if stream.duration else []
            ends += [container.duration / av.time_base] if container.duration else []
            self.end: float | None = ends[0] if ends else None
            self.codec = stream.codec_context.name
            first = next((shown for shown, _ in self._decoded(container, stream)), None)
        if first is None:
            raise UserError(
                f"video {path}: no frame can be decoded ({self.codec}); the file is damaged: copy it again, or "
                f"convert it: ffmpeg -i {self.path.name} -c:v libx264 out.mp4"
            )
        self.turns = round(first.rotation / 90) % 4
        self.size = (first.width, first.height) if self.turns % 2 == 0 else (first.height, first.width)

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
        """Seeks to a frame and returns the frames after it; None if seeking does not find it."""
        frames = self._numbered(after.stamp - int(BEFORE / self.time_base))
        for frame in frames:
            if frame.stamp == after.stamp:
                shift = after.number - frame.number
                return (replace(later, number=later.number + shift) for later in frames)
            if frame.stamp > after.stamp:
                break
        return None

    def _numbered(self, seek: int | None = None) -> Iterator[Frame]:
        """Yields frames from the start, or from the key frame before a stamp, numbered from 0."""
        with self._open() as container:
            stream = self._stream(container)
            stream.thread_type = "AUTO"
            if seek is not None:
                try:
                    container.seek(seek, stream=stream)
                except self._av.error.FFmpegError:
                    return
            last = None
            for number, (shown, lost) in enumerate(self._decoded(container, stream)):
                stamp = shown.pts
                if stamp is None or (last is not None and stamp <= last):  # times must increase
                    stamp = 0 if last is None else last + max(1, round(self.frame_time / self.time_base))
                last = stamp
                time = float(stamp * self.time_base) - self._start
                yield Frame(number, time, stamp, lost, shown, self.turns)

    def lost_at_end(self, last: Frame) -> int:
        """Returns how many frames are missing between the last decoded one and the declared end."""
        missing = 0.0 if self.end is None else self.end - (last.time + self.frame_time)
        return round(missing / self.frame_time) if missing > TRUNCATED else 0

    def _open(self) -> Any:
        try:
            return open_video(self.path)
        except self._av.error.FFmpegError as error:
            raise UserError(
                f"video {self.path} cannot be read: {error.strerror or error}; it is no video, or its end is missing: "
                "copy it again, or convert it with ffmpeg"
            ) from error

    def _stream(self, container: Any) -> Any:
        cover = self._av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & cover]
        if not streams:
            what = "sound only" if container.streams.audio else "no video stream"
            raise UserError(f"video {self.path} has {what}; give a file with pictures")
        limit_pixels(streams[0])
        return streams[0]

    def _decoded(self, container: Any, stream: Any) -> Iterator[tuple[Any, int]]:
        """Yields frames, each with the number of earlier packets that could not be decoded."""
        failed = 0
        error = self._av.error.FFmpegError
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except error:  # the rest is unreachable; `lost_at_end` counts it
                return
            if packet is None:
                return
            try:
                shown = packet.decode()
            except (error, ValueError):  # ValueError is PyAV's, if FFmpeg has no decoder
                failed += 1
                continue
            for frame in shown:
                yield frame, failed


def _upright(pixels: np.ndarray, turns: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
