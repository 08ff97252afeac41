"""Cuts face crops from videos in one pass per video, resized and named as the reader expects."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from backbones.opening import read_small
from benchmarks.data.pictures import limit_pixels, open_video, seal_of, write_sealed
from benchmarks.system import interrupts
from registry import UserError
from zoo.files.atomic import cannot_write
from zoo.files.untrusted import below

FPS = 30  # of Ego4D clips and of the frame numbers in the annotations
SIDE = 224  # pixels; crops are square whatever the shape of the box
QUALITY = 95  # JPEG

_OVER_THE_EDGE = 1.15  # of a picture's side, up to which boxes are taken for those of this picture
_SHORT_SIDES = (360, 480, 540, 720, 1080, 1440, 2160)  # pixels, of usual videos

_POLL = 0.2  # seconds between checks for Ctrl-C


@dataclass
class CropReport:
    """Counts and findings of cutting crops."""

    written: int = 0
    there: int = 0
    damaged: int = 0  # of the existing ones, if verified
    outside: int = 0
    past_end: dict[str, int] = field(default_factory=dict)  # clip -> frames
    missing: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    other_rate: dict[str, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every clip had a readable video."""
        return not self.missing and not self.failed

    def add(self, other: CropReport) -> None:
        """Adds the counts and findings of another report."""
        self.written += other.written
        self.there += other.there
        self.damaged += other.damaged
        self.outside += other.outside
        self.missing += other.missing
        self.past_end |= other.past_end
        self.failed |= other.failed
        self.other_rate |= other.other_rate

    def lines(self) -> list[str]:
        """Returns the report, one finding per line."""
        said = [f"crops: {self.written} written, {self.there} existed already"]
        if self.damaged:
            said.append(f"crops that were damaged or had no checksum, cut again: {self.damaged}")
        if self.outside:
            said.append(f"boxes outside the picture, no crop: {self.outside}")
        for what, clips in (
            ("clips with frames past the end of their video, which get no crop", self.past_end),
            (f"videos without {FPS} frames per second; frames are selected by time", self.other_rate),
            ("videos missing", dict.fromkeys(sorted(self.missing), "")),
            ("videos that could not be read to the end", self.failed),
        ):
            if clips:
                said.append(f"{what}: {len(clips)}")
                said += [f"  {clip} {value}".rstrip() for clip, value in sorted(clips.items())]
        return said


def cut_crops(
    root: str | Path,
    frames: pd.DataFrame,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda count: None,
    verify: bool = False,
) -> CropReport:
    """Cuts the face crops of a frame table out of `videos/<clip>.mp4`.

    Each row becomes `face_imgs/<clip>/<track>/face_%05d.jpg`: the box with its edges rounded down and clipped to the
    picture, resized to 224 x 224 (bilinear), as a JPEG of quality 95. Existing crops are kept, and a video whose crops
    all exist is not decoded, so an interrupted run resumes. Crops are written atomically.

    Frame numbers count from 1 at 30 per second: frame k is shown at (k - 1) / 30 s; at exactly that rate it is the
    video's k-th frame.

    Args:
        root: folder that holds `videos/`.
        frames: a FrameTable of train or val, read without images.
        workers: processes; by default one per core.
        progress: called with the number of crops after each video.
        verify: read existing crops, and cut those again that are damaged or have no checksum.

    Returns:
        Report; it names missing and broken videos, which do not stop the others.

    Raises:
        UserError: PyAV is not installed, there is no `videos/`, a video is smaller than the one that its boxes are of,
            or a crop cannot be written. In the first three cases no crop is cut.
    """
    root = Path(root)
    try:
        import av  # noqa: F401
    except ImportError:
        raise UserError("cutting crops needs PyAV: pip install av (or add --annotations-only)") from None
    if not (root / "videos").is_dir():
        raise UserError(
            f"{root / 'videos'}: no such folder; put the clips there as <clip>.mp4, or add --annotations-only"
        )
    workers = workers or os.cpu_count() or 1
    jobs = [(root, str(clip), rows, verify) for clip, rows in frames.groupby("clip", sort=True)]
    _check_sizes(root, frames)
    report = CropReport()
    if workers == 1 or len(jobs) == 1:
        for job in interrupts.steps(jobs):
            report.add(_cut_clip(*job))
            progress(len(job[2]))
        return report
    stop, tell = multiprocessing.Pipe(duplex=False)
    with (
        stop,
        tell,
        interrupts.deferred(),
        ProcessPoolExecutor(min(workers, len(jobs)), initializer=interrupts.init_worker, initargs=(stop,)) as pool,
    ):
        with interrupts.starting_workers():
            waiting = {pool.submit(_cut_clip, *job): len(job[2]) for job in jobs}
        try:
            while waiting:
                interrupts.check()
                for done in wait(waiting, _POLL, FIRST_COMPLETED).done:
                    report.add(done.result())
                    progress(waiting.pop(done))
        except BrokenProcessPool:
            raise UserError(
                "a process that cut crops was killed, possibly out of memory; run the same command again to resume, "
                "with fewer --workers if memory is short"
            ) from None
        except BaseException:
            tell.send("stop")
            pool.shutdown(cancel_futures=True)
            raise
    return report


def _check_sizes(root: Path, frames: pd.DataFrame) -> None:
    """Compare the boxes of each clip with the size of its video, before any crop is cut.

    Ego4D also offers its videos with a short side of 540 pixels, in which the annotated boxes lie elsewhere.

    Raises:
        UserError: more than a few boxes lie outside of a video.
    """
    small = []
    for clip, rows in interrupts.steps(frames.groupby("clip", sort=True)):
        size = _picture_size(below(root / "videos", f"{clip}.mp4", "the frame table"))
        boxes = rows[["x1", "y1", "x2", "y2"]].to_numpy()
        if size is not None and _is_smaller(size, boxes):
            small.append((str(clip), size, boxes))
    if not small:
        return
    clip, (width, height), boxes = small[0]
    reach = boxes[:, 2:].max(axis=0)
    of = f"{len(small)} videos are" if len(small) > 1 else "a video is"
    raise UserError(
        f"{of} smaller than annotated: {root / 'videos' / clip}.mp4 has {width} x {height} pixels, but its boxes reach "
        f"to {reach[0]:.0f} x {reach[1]:.0f}, so {_expected_size((width, height), reach)} is expected; Ego4D's "
        f"video_540ss are scaled down: download the clips in full size, and delete what was cut from these in "
        f"{root / 'face_imgs'}"
    )


def _picture_size(video: Path) -> tuple[int, int] | None:
    """Width and height that a video's header says; None if there is no video, or it cannot be read."""
    import av

    if not video.is_file():
        return None
    try:
        with open_video(video) as container:
            context = container.streams.video[0].codec_context
            return (context.width, context.height) if context.width and context.height else None
    except (av.error.FFmpegError, IndexError):
        return None  # told when its crops are cut


def _is_smaller(size: tuple[int, int], boxes: np.ndarray) -> bool:
    """Whether boxes (N, 4) are of a larger picture: their middle is beyond its edge by more than boxes ever are.

    Boxes of Ego4D reach over the edge by up to 5 %. A few that lie outside are faults of the annotation.
    """
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    outside = int((middle > np.array(size) * _OVER_THE_EDGE).any(axis=1).sum())
    return outside > max(0.01 * len(boxes), min(1.0, 0.2 * len(boxes)))


def _expected_size(size: tuple[int, int], reach: np.ndarray) -> str:
    """The smallest usual size of this shape that boxes fit into, which may reach over its edge a little."""
    for short in _SHORT_SIDES:
        width, height = (round(side * short / min(size) / 2) * 2 for side in size)
        if (reach <= np.array([width, height]) * _OVER_THE_EDGE).all():
            return f"{width} x {height}"
    return "a larger picture"


def _cut_clip(root: Path, clip: str, rows: pd.DataFrame, verify: bool) -> CropReport:
    """Cuts the missing crops of one clip."""
    import av

    report = CropReport()
    faces, where = root / "face_imgs", f"the frame table of clip {clip}"
    wanted: dict[int, list[tuple[Path, np.ndarray]]] = {}
    for track, of_track in rows.groupby("track", sort=True):
        here = below(faces, f"{clip}/{track}/face", where, written=True).parent
        try:
            here.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(here, error) from None
        there = {entry.name for entry in os.scandir(here)}
        for name in there:
            if name.endswith(".part"):  # left by a killed process; no other process writes to this folder
                (here / name).unlink(missing_ok=True)
        boxes = of_track[["x1", "y1", "x2", "y2"]].to_numpy()
        for frame, box in zip(of_track["frame"].tolist(), boxes, strict=True):
            name = f"face_{frame:05d}.jpg"
            if name in there and verify and not _is_sealed(here / name):
                report.damaged += 1
                wanted.setdefault(frame, []).append((here / name, box))
            elif name in there:
                report.there += 1
            else:
                wanted.setdefault(frame, []).append((here / name, box))
    video = below(root / "videos", f"{clip}.mp4", where)
    if not wanted:
        return report
    if not os.path.lexists(video):
        report.missing.append(clip)
        return report
    left = set(wanted)
    if not video.is_file():
        report.failed[clip] = "(not a file)"
        return report
    try:
        with open_video(video) as container:
            limit_pixels(container.streams.video[0])
            rate = container.streams.video[0].average_rate
            if rate is not None and abs(float(rate) - FPS) > 0.01:
                report.other_rate[clip] = round(float(rate), 3)
            for frame, picture in _pictures(container, left):
                left.discard(frame)
                for path, box in wanted[frame]:
                    write_crop(path, picture, box, report)
                interrupts.check()
    except (av.error.FFmpegError, IndexError) as error:
        report.failed[clip] = (
            f"({' '.join(str(error).split())}); {sum(len(wanted[frame]) for frame in left)} crops not cut"
        )
        return report
    if left:
        report.past_end[clip] = len(left)
    return report


def _is_sealed(path: Path) -> bool:
    """Whether a crop is a file as `write_sealed` wrote it."""
    try:
        return bool(seal_of(read_small(path)))
    except OSError:
        return False


def _pictures(container: Any, wanted: set[int]) -> Iterator[tuple[int, Image.Image]]:
    """Decodes a video once and yields (frame number, picture) for each wanted number, in order."""
    from av.video.reformatter import VideoReformatter

    # PyAV's own reformatter is global: a forked worker would wait for threads that exist only in its parent.
    reformatter = VideoReformatter()
    numbers = sorted(wanted)
    place = 0
    previous = None
    last = 0
    start = None
    for shown in container.decode(video=0):
        if shown.pts is None:
            number = last + 1
        else:
            time = float(shown.pts * shown.time_base)
            start = time if start is None else start
            number = round((time - start) * FPS) + 1
        # In a video with a lower rate, a number without its own frame shows the previous frame.
        while place < len(numbers) and numbers[place] < number and previous is not None:
            yield numbers[place], reformatter.reformat(previous, format="rgb24").to_image()
            place += 1
        while place < len(numbers) and numbers[place] < number:
            place += 1
        if place == len(numbers):
            return
        previous, last = shown, number
        if number == numbers[place]:
            yield number, reformatter.reformat(shown, format="rgb24").to_image()
            place += 1


def stretched(crop: Image.Image) -> Image.Image:
    """Resizes a crop to SIDE x SIDE pixels, ignoring its aspect ratio."""
    return crop.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def write_crop(path: Path, picture: Image.Image, box: np.ndarray, report: CropReport) -> None:
    """Cut a box out of a picture and write it as a crop; counts it in the report."""
    left, top = (max(int(edge), 0) for edge in box[:2])
    right, bottom = min(int(box[2]), picture.width), min(int(box[3]), picture.height)
    if right <= left or bottom <= top:
        report.outside += 1
        return
    crop = stretched(picture.crop((left, top, right, bottom)))
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write_sealed(part, crop, QUALITY)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise cannot_write(path, error) from None
    report.written += 1
