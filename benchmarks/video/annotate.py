"""The annotated video: a box around each face, coloured by score, labelled with its track and score.

It is encoded in parts of a fixed number of frames, which are then joined without encoding them again: an interrupted
run loses at most one part.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from backbones.checksums import file_sha256
from backbones.opening import read_small
from backbones.packaged import need_opencv
from benchmarks.system import interrupts
from benchmarks.system.ahead import made_ahead
from benchmarks.system.progress import Progress
from benchmarks.video.decode import Frame, Video
from benchmarks.video.journal import UNFINISHED, read_rows
from benchmarks.video.scorer import ScoredFace
from zoo.files.atomic import cannot_write, replacing, write_text

SIDE = 1280  # maximum pixels of the longer side
PART = 600  # frames
AHEAD = 8  # frames that are decoded before the ones before them are encoded
TICKS = 90_000  # time units per second
# RGB of scores 0, 0.5 and 1, interpolated in between: blue, pale yellow, orange; safe for colour-blind viewers.
COLOURS = np.array([[44, 123, 182], [255, 255, 191], [253, 141, 60]], dtype=np.float64)


def annotate(video: Video, out: Path, header: Sequence[str], frames: int) -> None:
    """Writes annotated.mp4 from the video and frames.csv; intact parts of an earlier run are reused.

    Args:
        video: decoded again.
        out: the folder of results.
        header: lines drawn at the bottom.
        frames: number of frames in the video.

    Raises:
        UserError: a file cannot be written, or OpenCV is not installed.
    """
    need_opencv("annotated.mp4")
    folder = out / UNFINISHED / "annotated"
    folder.mkdir(parents=True, exist_ok=True)
    parts = [folder / f"{number:06d}.mp4" for number in range(-(-frames // PART))]
    for part in parts:
        if part.exists() and not _is_sound(part):
            try:
                part.unlink()
            except OSError as error:
                raise cannot_write(part, error) from error
    missing = _missing_frames(video, out / "frames.csv", parts)
    with Progress("annotated.mp4", frames, "frame") as progress:
        for number, group in interrupts.steps(groupby(missing, key=lambda one: one[0].number // PART)):
            with replacing(parts[number]) as temporary:
                _encode(video, group, temporary, header, progress)
            write_text(_sum_of(parts[number]), file_sha256(parts[number]))
    with replacing(out / "annotated.mp4") as temporary:
        _join(parts, temporary, header)


def seconds_per_frame(path: Path, count: int = 30) -> float:
    """Measures how long a frame of the annotated video takes, on the first frames of a video."""
    video = Video(path)
    with tempfile.TemporaryDirectory() as folder, Progress("", count, "frame", show=False) as progress:
        began = time.monotonic()
        shown = [(frame, list[ScoredFace]()) for frame in islice(video.frames(), count)]
        _encode(video, iter(shown), Path(folder) / "measured.mp4", (), progress)
        return (time.monotonic() - began) / len(shown)


def _is_sound(part: Path) -> bool:
    """Whether a part has its checksum."""
    try:
        return read_small(_sum_of(part)) == file_sha256(part).encode()
    except OSError:
        return False


def _sum_of(part: Path) -> Path:
    """Returns the path of a part's checksum."""
    return part.with_suffix(".sha256")


def _missing_frames(video: Video, rows: Path, parts: Sequence[Path]) -> Iterator[tuple[Frame, list[ScoredFace]]]:
    """Yields the frames of missing parts with their rows."""
    by_frame = groupby(read_rows(rows), key=lambda row: row.frame)
    number, of_frame = -1, []
    for frame in made_ahead(video.frames(), AHEAD):
        while number < frame.number:
            number, group = next(by_frame, (1 << 62, iter(())))
            of_frame = list(group)
        if not parts[frame.number // PART].exists():
            yield frame, of_frame if number == frame.number else []


def _encode(
    video: Video, shown: Iterator[tuple[Frame, list[ScoredFace]]], path: Path, header: Sequence[str], progress: Progress
) -> None:
    import av

    width, height = _size(video)
    with av.open(str(path.absolute()), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        # Without B-frames, which refer to later frames, parts can be joined.
        stream.options = {"preset": "veryfast", "crf": "23", "bf": "0"}
        for frame, rows in shown:
            picture = _draw(frame.reduced(SIDE), rows, width / video.size[0], header)[:height, :width]
            drawn = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            drawn.pts, drawn.time_base = round(frame.time * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(drawn))
            progress.advance()
        container.mux(stream.encode())


def _size(video: Video) -> tuple[int, int]:
    """Returns width and height, both even as H.264 needs."""
    scale = min(1.0, SIDE / max(video.size))
    width, height = (max(2, round(scale * size) // 2 * 2) for size in video.size)
    return width, height


def _draw(picture: np.ndarray, rows: Sequence[ScoredFace], scale: float, header: Sequence[str]) -> np.ndarray:
    """Draws boxes and header lines into a picture ``(H, W, 3)``, in place."""
    import cv2

    height = picture.shape[0]
    size = max(height / 1100, 0.35)
    for row in rows:
        colour = tuple(int(value) for value in colour_of(row.score))
        left, top, right, bottom = (round(scale * edge) for edge in row.box)
        cv2.rectangle(picture, (left, top), (right, bottom), colour, 2)
        _write(picture, f"{row.track}  {row.score:.2f}", (left, top - 5 if top > 20 else bottom + 15), size, colour)
    for number, line in enumerate(reversed(header)):
        _write(picture, line, (6, height - 8 - round(number * 34 * size)), size, (255, 255, 255))
    return picture


def _write(picture: np.ndarray, text: str, at: tuple[int, int], size: float, colour: tuple[int, ...]) -> None:
    import cv2

    text = text.encode("ascii", "replace").decode()  # OpenCV's fonts have no other letters
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    cv2.rectangle(picture, (at[0] - 2, at[1] - height - 2), (at[0] + width + 2, at[1] + below), (0, 0, 0), -1)
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def colour_of(score: float) -> np.ndarray:
    """Returns the colour ``(3,)`` of a score in [0, 1]."""
    place = 2 * min(max(score, 0.0), 1.0)
    low = min(int(place), 1)
    return COLOURS[low] + (place - low) * (COLOURS[low + 1] - COLOURS[low])


def _join(parts: Sequence[Path], path: Path, header: Sequence[str]) -> None:
    """Joins the parts without decoding them."""
    import av

    with av.open(str(path.absolute()), "w", format="mp4", options={"movflags": "faststart"}) as joined:
        joined.metadata["comment"] = " ".join(header)
        stream: Any = None
        for part in parts:
            with av.open(str(part.absolute())) as container:
                source = container.streams.video[0]
                if stream is None:
                    stream = joined.add_stream_from_template(source)
                for packet in container.demux(source):
                    if packet.dts is None:
                        continue
                    packet.stream = stream
                    joined.mux(packet)
