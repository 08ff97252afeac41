"""The annotated video: a box around each face, coloured by score, labelled with its track and score.

Within a look the frame is thick, and the label says so on a bar in the frame's colour.

The video is encoded in parts of a fixed number of frames, which are then joined without encoding them again: an
interrupted run loses at most one part.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backbones.checksums import file_sha256
from backbones.opening import read_small
from backbones.packaged import need_opencv
from benchmarks.system import interrupts
from benchmarks.system.ahead import made_ahead
from benchmarks.system.progress import Progress
from benchmarks.video.bouts import SLACK, Bout
from benchmarks.video.decode import Frame, Video
from benchmarks.video.journal import UNFINISHED, read_rows
from benchmarks.video.scorer import ScoredFace
from zoo.files.atomic import cannot_write, replacing, write_text

SIDE = 1280  # maximum pixels of the longer side
PART = 600  # frames
AHEAD = 8  # frames that are decoded before the ones before them are encoded
TICKS = 90_000  # time units per second
LABEL, LINE = 0.42, 0.35  # smallest sizes of the text at faces and at the bottom, of OpenCV's font: 9 and 8 pixels
# RGB of scores 0, 0.5 and 1, interpolated in between: blue, pale yellow, orange; safe for colour-blind viewers.
COLOURS = np.array([[44, 123, 182], [255, 255, 191], [253, 141, 60]], dtype=np.float64)


class DrawnFace(NamedTuple):
    """A face as it is drawn.

    Attributes:
        row: its box and score.
        looks: whether it is within a look.
    """

    row: ScoredFace
    looks: bool


class LookTimes:
    """Tells whether a track is within a look.

    Attributes:
        digest: equal for equal bouts.

    Args:
        bouts: of one video; those of one track do not overlap.
    """

    def __init__(self, bouts: Sequence[Bout]) -> None:
        self._by_track: dict[str, list[tuple[float, float]]] = {}
        for bout in sorted(bouts, key=lambda bout: bout.start):
            self._by_track.setdefault(bout.track, []).append((bout.start, bout.end))
        self.digest = hashlib.sha256(repr([tuple(bout) for bout in bouts]).encode()).hexdigest()

    def at(self, track: str, time: float) -> bool:
        """Whether the frame at a time, in seconds, is within a look."""
        bouts = self._by_track.get(track, [])
        place = bisect_right(bouts, (time + SLACK, float("inf"))) - 1
        return place >= 0 and time < bouts[place][1] - SLACK


def annotate(video: Video, out: Path, header: Sequence[str], frames: int, bouts: Sequence[Bout]) -> None:
    """Writes annotated.mp4 from the video and frames.csv; intact parts of an earlier run are reused.

    Args:
        video: decoded again.
        out: the folder of results.
        header: lines drawn at the bottom.
        frames: number of frames in the video.
        bouts: that are shown.

    Raises:
        UserError: a file cannot be written, or OpenCV is not installed.
    """
    need_opencv("annotated.mp4")
    folder, looks = out / UNFINISHED / "annotated", LookTimes(bouts)
    folder.mkdir(parents=True, exist_ok=True)
    parts = [folder / f"{number:06d}.mp4" for number in range(-(-frames // PART))]
    for part in parts:
        if part.exists() and not _is_sound(part, looks):
            try:
                part.unlink()
            except OSError as error:
                raise cannot_write(part, error) from error
    missing = _missing_frames(video, out / "frames.csv", parts, looks)
    with Progress("annotated.mp4", frames, "frame") as progress:
        for number, group in interrupts.steps(groupby(missing, key=lambda one: one[0].number // PART)):
            with replacing(parts[number]) as temporary:
                _encode(video, group, temporary, header, progress)
            write_text(_sum_of(parts[number]), _sum_text(parts[number], looks))
    with replacing(out / "annotated.mp4") as temporary:
        join_parts(parts, temporary, header)


def seconds_per_frame(path: Path, count: int = 30) -> float:
    """Measures how long a frame of the annotated video takes, on the first frames of a video."""
    video = Video(path)
    with tempfile.TemporaryDirectory() as folder, Progress("", count, "frame", show=False) as progress:
        began = time.monotonic()
        shown = [(frame, list[DrawnFace]()) for frame in islice(video.frames(), count)]
        _encode(video, iter(shown), Path(folder) / "measured.mp4", (), progress)
        return (time.monotonic() - began) / len(shown)


def _is_sound(part: Path, looks: LookTimes) -> bool:
    """Whether a part has its checksum, and shows these looks."""
    try:
        return read_small(_sum_of(part)) == _sum_text(part, looks).encode()
    except OSError:
        return False


def _sum_text(part: Path, looks: LookTimes) -> str:
    return f"{file_sha256(part)} {looks.digest}"


def _sum_of(part: Path) -> Path:
    """Returns the path of a part's checksum."""
    return part.with_suffix(".sha256")


def _missing_frames(
    video: Video, rows: Path, parts: Sequence[Path], looks: LookTimes
) -> Iterator[tuple[Frame, list[DrawnFace]]]:
    """Yields the frames of missing parts with their faces."""
    by_frame = groupby(read_rows(rows), key=lambda row: row.frame)
    number, of_frame = -1, []
    for frame in made_ahead(video.frames(), AHEAD):
        while number < frame.number:
            number, group = next(by_frame, (1 << 62, iter(())))
            of_frame = list(group)
        if not parts[frame.number // PART].exists():
            here = of_frame if number == frame.number else []
            yield frame, [DrawnFace(row, looks.at(row.track, row.time)) for row in here]


def _encode(
    video: Video, shown: Iterator[tuple[Frame, list[DrawnFace]]], path: Path, header: Sequence[str], progress: Progress
) -> None:
    import av

    width, height = _size(video)
    with av.open(str(path.absolute()), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        # Without B-frames, which refer to later frames, parts can be joined.
        stream.options = {"preset": "veryfast", "crf": "23", "bf": "0"}
        for frame, faces in shown:
            picture = draw_faces(frame.reduced(SIDE), faces, width / video.size[0], header)[:height, :width]
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


def draw_faces(picture: np.ndarray, faces: Sequence[DrawnFace], scale: float, header: Sequence[str]) -> np.ndarray:
    """Draws boxes and header lines into a picture ``(H, W, 3)``, in place; `scale` is its pixels per pixel of a box."""
    import cv2

    height = picture.shape[0]
    size = max(height / 1100, LABEL)
    for row, looks in faces:
        colour = tuple(int(value) for value in colour_of(row.score))
        left, top, right, bottom = (round(scale * edge) for edge in row.box)
        label, out = f"{row.track}  {row.score:.2f}", 0
        if looks:  # the thick part lies outside the box, so that it covers nothing of the face
            out = max(2, round(height / 180))
            cv2.rectangle(picture, (left - out, top - out), (right + out, bottom + out), colour, 2 * out)
            label = f"{row.track} LOOKS {row.score:.2f}"
        cv2.rectangle(picture, (left, top), (right, bottom), colour, 2)
        above = top - 2 * out - 5
        at = (left, above if above > 15 else bottom + 2 * out + round(30 * size) + 3)
        _write(picture, label, at, size, ((0, 0, 0), colour) if looks else (colour, (0, 0, 0)))
    size = max(height / 1100, LINE)
    for number, line in enumerate(reversed(header)):
        at = (6, height - 8 - round(number * 34 * size))
        _write(picture, line, at, size, ((255, 255, 255), (0, 0, 0)))
    return picture


def _write(
    picture: np.ndarray, text: str, at: tuple[int, int], size: float, colours: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    """Writes a line in the first colour on a bar in the second."""
    import cv2

    text = text.encode("ascii", "replace").decode()  # OpenCV's fonts have no other letters
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    cv2.rectangle(picture, (at[0] - 2, at[1] - height - 2), (at[0] + width + 2, at[1] + below), colours[1], -1)
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colours[0], 1, cv2.LINE_AA)


def colour_of(score: float) -> np.ndarray:
    """Returns the colour ``(3,)`` of a score in [0, 1]."""
    place = 2 * min(max(score, 0.0), 1.0)
    low = min(int(place), 1)
    return COLOURS[low] + (place - low) * (COLOURS[low + 1] - COLOURS[low])


def join_parts(parts: Sequence[Path], path: Path, header: Sequence[str]) -> None:
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
