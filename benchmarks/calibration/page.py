"""Renders the page on which a user marks faces: one file, without network, and without scores."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from benchmarks.calibration.choice import choose_faces
from benchmarks.calibration.finished import EDGES, FinishedRun
from benchmarks.calibration.marks import box_text
from benchmarks.system import interrupts
from benchmarks.system.progress import Progress
from benchmarks.video.decode import Frame, Video
from benchmarks.video.scorer import cut, widened
from registry import UserError, printable

MARGIN = (0.4,) * 4  # around a face, in shares of its sides: eyes are judged by the turn of the head too
SIDE = 288  # maximum pixels of the longer side of a crop
SOON = 1e-3  # seconds by which the time of a frame may differ from that of its row
_QUALITY = 80

_HERE = Path(__file__).parent


def render_label_page(run: FinishedRun, count: int) -> tuple[str, np.ndarray]:
    """Render the page of a run, reading its video once.

    Args:
        run: finished.
        count: number of faces wanted.

    Returns:
        The page, and the places in the run's rows that are on it.

    Raises:
        UserError: the video has moved or changed, or cannot be decoded to the end.
    """
    chosen = choose_faces(run.rows, run.threshold, count)
    faces = _faces(run, chosen)
    listed = ",".join(map(str, chosen.tolist()))
    style, script = (Markup((_HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template("page.html").render(
        style=style,
        script=script,
        style_sha256=_source_hash(style),
        script_sha256=_source_hash(script),
        data={"key": "lamzoo-label-" + hashlib.sha256(f"{run.sha256} {listed}".encode()).hexdigest(), "faces": faces},
        count=len(faces),
        video=run.video["name"],
        folder=printable(str(run.folder)),
    )
    return text, chosen


def _source_hash(source: str) -> str:
    """The source of a content security policy that allows exactly this inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode("ascii")


def _faces(run: FinishedRun, chosen: np.ndarray) -> list[dict[str, Any]]:
    """The faces with their crops, in the order of `chosen`."""
    found: dict[int, dict[str, Any]] = {}
    for frame, rows in wanted_frames(run, chosen):
        picture = frame.picture()
        for place, row in rows.iterrows():
            box = row[EDGES].to_numpy(dtype=np.float64)
            found[int(str(place))] = {
                "time": float(row["time"]),
                "frame": int(row["frame"]),
                "track": str(row["track"]),
                "box": box_text(box),
                **_crop(picture, box),
            }
    return [found[place] for place in chosen.tolist()]


def wanted_frames(run: FinishedRun, wanted: np.ndarray) -> Iterator[tuple[Frame, pd.DataFrame]]:
    """Decode the run's video and yield the frames that have wanted rows, each with these rows.

    Raises:
        UserError: the video has moved or changed, or its frames are not where they were.
    """
    video = run.open_video()
    rows = run.rows.iloc[np.sort(wanted)]
    by_frame = dict(iter(rows.groupby("frame", sort=True)))
    last = int(rows["frame"].max())
    with Progress(run.video["name"], last + 1, "frame") as progress:
        for frame in interrupts.steps(_until(video, last)):
            progress.advance()
            here = by_frame.pop(frame.number, None)
            if here is None:
                continue
            if abs(frame.time - float(here["time"].iloc[0])) > SOON:
                break
            yield frame, here
        else:
            if not by_frame:
                return
    raise UserError(
        f"video {video.name} does not have the frames of {run.folder} at their times; another FFmpeg may decode it "
        "otherwise: predict it again"
    )


def _until(video: Video, last: int) -> Iterator[Frame]:
    for frame in video.frames():
        yield frame
        if frame.number >= last:
            return


def _crop(picture: np.ndarray, box: np.ndarray) -> dict[str, Any]:
    """The crop around a face as a data URI, and the face's left, top, width and height inside it, in per cent."""
    rect = widened(box, MARGIN)
    image = cut(picture, rect) or Image.new("RGB", (1, 1))
    corner, size = np.maximum(np.floor(rect[:2]), 0), np.array(image.size)
    edges = np.clip((box - np.tile(corner, 2)) / np.tile(size, 2), 0, 1) * 100
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    image.save(written, "WEBP", quality=_QUALITY)
    inside = [edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1]]
    return {
        "crop": "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode("ascii"),
        "inside": [round(float(value), 2) for value in inside],
    }
