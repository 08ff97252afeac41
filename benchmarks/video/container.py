"""A video's container: what it holds, when it starts and ends, and how long its frames last."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.pictures import limit_pixels, open_video
from registry import UserError, printable

TRUNCATED = 0.5  # seconds by which the declared end may exceed the last packet without frames being lost
PRIMING = 0.2  # seconds; a start of sound this little before 0 is its encoder's, and the pictures start at 0
SCANNED = 300  # packets from which the typical frame is known
PAUSE = 1.5  # typical frames; a longer interval between two frames is a pause
USUAL = 1 / 30  # seconds per frame if the file does not say
TAIL = 1 << 16  # bytes, and the share below: what follows the last packet of a whole Matroska file is an index
INDEX = 0.1

# Names of FFmpeg's formats. Others that end in `_pipe` are pictures too.
PICTURES = ("ico",)
ANIMATIONS = ("apng", "gif", "jpegxl_anim", "webp_anim")  # pictures if they have one frame
TEXT = ("adf", "bin", "idf", "tty", "xbin")
STILL_BRANDS = ("avif", "heic", "heim", "heis", "heix", "mif1")  # of pictures in MP4's clothes


class Reader:
    """Reads and decodes a container to its end, and notes how far it came.

    Attributes:
        failed: packets of pictures that could not be decoded.
        reached: seconds at which the last packet of the pictures ends, in the file's own time.
        of_all: the same for the packets of all streams.
        position: byte at which the last packet in the file ends.
        broken: the rest of the file cannot be read.

    Args:
        container: open.
        stream: of pictures.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self._packets = container.demux()
        self._stream = stream
        self.failed = self.position = 0
        self.reached = self.of_all = -math.inf
        self.broken = False

    def pictures(self) -> Iterator[Any]:
        """Yields the pictures that can be decoded."""
        for packet in self.packets():
            yield from self.decode(packet)

    def decode(self, packet: Any) -> list[Any]:
        """Returns the pictures that the decoder has after a packet; counts the packet if it cannot be decoded."""
        import av

        try:
            return packet.decode()
        except (av.error.FFmpegError, ValueError):  # ValueError is PyAV's, if FFmpeg has no decoder
            self.failed += 1
            return []

    def packets(self) -> Iterator[Any]:
        """Yields the packets of the pictures."""
        import av

        while True:
            try:
                packet = next(self._packets, None)
            except av.error.FFmpegError:
                self.broken = True
                return
            if packet is None:
                return
            self._note(packet)
            empty = packet.size == 0 and packet.dts is not None  # repeats the picture before, and is not to be decoded
            if packet.stream.index == self._stream.index and not empty:
                yield packet

    def _note(self, packet: Any) -> None:
        if packet.pts is None:
            return
        end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
        self.of_all = max(self.of_all, end)
        if packet.stream.index == self._stream.index:
            self.reached = max(self.reached, end)
        self.position = max(self.position, (packet.pos or 0) + packet.size)


def open_container(path: Path) -> Any:
    """Opens a video.

    Raises:
        UserError: it is no video, or one that cannot be read.
    """
    import av

    name = printable(str(path))
    try:
        container = open_video(path)
    except av.error.ArgumentError as error:  # FFmpeg's answer for formats that are not allowed
        raise UserError(
            f"video {name} cannot be read: it is a picture or a list of other files; give one video file"
        ) from error
    except av.error.FFmpegError as error:
        raise UserError(
            f"video {name} cannot be read: {error.strerror or error}; it is no video, or its end is missing: "
            "copy it again, or convert it with ffmpeg"
        ) from error
    format_, brand = container.format.name, container.metadata.get("major_brand", "").strip()
    if format_.endswith("_pipe") or format_ in PICTURES or brand in STILL_BRANDS:
        container.close()
        kind = brand if brand in STILL_BRANDS else format_.removesuffix("_pipe")
        raise UserError(f"video {name} is a picture ({kind}); give a video")
    if format_ in TEXT:
        container.close()
        raise UserError(f"video {name} is text; give a video")
    return container


def video_stream(container: Any, path: Path) -> Any:
    """Returns the stream of pictures.

    Raises:
        UserError: there is none, or no decoder for it.
    """
    import av

    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        kinds = {stream.type for stream in container.streams}
        what = "sound only" if "audio" in kinds else "subtitles only" if "subtitle" in kinds else "no video stream"
        raise UserError(f"video {printable(str(path))} has {what}; give a file with pictures")
    if streams[0].codec_context is None:
        raise UserError(f"video {printable(str(path))}: FFmpeg has no decoder for its pictures; convert it with ffmpeg")
    limit_pixels(streams[0])
    return streams[0]


def aspect_of(stream: Any, first: Fraction | None) -> float:
    """Returns the width of the current picture's pixels over their height.

    As in FFmpeg, the container's value counts before the decoder's.

    Args:
        stream: has decoded a picture.
        first: the decoder's value for the first picture.
    """
    declared, decoded = stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio
    aspect = decoded if decoded and first == declared else declared or decoded
    return float(aspect) if aspect and aspect > 0 else 1.0


def typical_frame(stamps: Sequence[int], stream: Any) -> float:
    """Returns the seconds that a frame lasts as a rule; pauses do not count.

    Args:
        stamps: times of the first frames in units of the stream's time base, in any order.
        stream: declares the mean rate.
    """
    rate = stream.average_rate or stream.guessed_rate
    mean = 1 / float(rate) if rate else None
    steps = np.diff(np.unique(np.array(stamps, dtype=np.float64)))
    if not len(steps):
        return mean or USUAL
    typical = float(steps[steps <= PAUSE * np.median(steps)].mean()) * float(stream.time_base)
    return mean if mean is not None and abs(mean / typical - 1) < 0.01 else typical


def start_of(container: Any, first: float) -> float:
    """Returns the file's own time, in seconds, that players call 0.

    It is the earliest time of any stream, as in FFmpeg and its players.

    Args:
        container: declares it.
        first: time of the first picture.
    """
    start = (container.start_time or 0) / 1_000_000
    if -PRIMING <= start < 0 <= first:
        return 0.0
    return min(start, first)


def declared_end(container: Any, stream: Any) -> tuple[float | None, bool]:
    """Returns when the file says that it ends, in its own time, and whether it says so of the pictures alone."""
    if (tag := stream.metadata.get("DURATION")) and (seconds := _clock(tag)) is not None:
        return seconds, True
    if stream.duration:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base), True
    if container.duration:
        start = 0 if _is_matroska(container) else container.start_time or 0
        return (start + container.duration) / 1_000_000, False
    return None, False


def _clock(text: str) -> float | None:
    """Reads hours:minutes:seconds."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def missing_at_end(path: Path, end: tuple[float | None, bool], reader: Reader) -> float:
    """Returns the seconds of pictures that the file declares beyond its last packet.

    If only the container declares an end, it may be that of another stream. A Matroska file does not say how long its
    last frame lasts; if the file is whole, it lasts until the end.
    """
    seconds, of_pictures = end
    reached = reader.reached if of_pictures else reader.of_all
    if seconds is None or not math.isfinite(reached) or seconds - reached <= TRUNCATED:
        return 0.0
    if not reader.broken and _is_whole_matroska(path, reader.position):
        return 0.0
    return seconds - reader.reached


def _is_matroska(container: Any) -> bool:
    return "matroska" in container.format.name


def _is_whole_matroska(path: Path, position: int) -> bool:
    """Whether a file is Matroska with all of its bytes, and nothing but an index after the last packet."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.startswith(b"\x1a\x45\xdf\xa3"):
        return False
    at, length, _ = _ebml_size(head, 4)
    at += length
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return False
    at, length, unknown = _ebml_size(head, at + 4)
    return not unknown and at + length <= size and size - position <= max(TAIL, INDEX * size)


def _ebml_size(data: bytes, at: int) -> tuple[int, int, bool]:
    """Reads the size of an EBML element; returns where its content starts, the size, and whether it is unknown."""
    first = data[at] if at < len(data) else 0
    width = 9 - first.bit_length()
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return at + width, value, value == (1 << 7 * width) - 1
