"""Make the ten-second video that ships: `python bench.py predict sample -o OUT`.

`python -m tools.make_sample` writes `sample.mp4` and `sample.json`: where the video comes from, where each face is,
and when it looks at the camera. The video shows four scenes of SynthLAM's test clips, with two rendered people each:
those with the largest faces in which somebody looks and somebody does not. Their crops are put where they were, in the
part of the frame around the two. A wall separates the scenes. It is shown for longer than a track survives without its
face, so no track continues into the next scene. Needs PyAV.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from backbones.checksums import file_sha256
from benchmarks.data import synthlam
from benchmarks.video.inputs import SAMPLE
from benchmarks.video.track import GAP
from tools.check_video import RATE, clips_of, wall_of
from tools.synthlam.scene import LOOKING_DEG
from zoo.files.atomic import replacing, write_json

SIZE = (640, 360)
SCENES = 4
FRAMES = 10 * RATE
EMPTY = round(1.4 * GAP * RATE)  # frames without people after each scene
MARGIN = 8  # pixels between the faces and the edge of the picture
SHORTEST = 0.2  # seconds; shorter looks are not listed
OPTIONS = {"preset": "veryslow", "crf": "23", "threads": "1"}  # of H.264


class Scene(NamedTuple):
    """A clip with two people who fit into the picture.

    Attributes:
        clip: name.
        rows: of its frame table, with `gaze_angle` in degrees.
        side: pixels; the median of the longer side of the smaller person's boxes.
    """

    clip: str
    rows: pd.DataFrame
    side: float


def scenes_of(clips: Sequence[tuple[str, pd.DataFrame]], truth: pd.DataFrame) -> list[Scene]:
    """Return the scenes that could be shown, largest faces first."""
    found = []
    for clip, rows in clips:
        boxes = rows[["x1", "y1", "x2", "y2"]].to_numpy()
        room = boxes.max(axis=0)[2:] - boxes.min(axis=0)[:2]
        if rows["track"].nunique() != 2 or (room > np.array(SIZE) - 2 * MARGIN).any():
            continue
        if not 0.2 <= (rows["label"] == 1).mean() <= 0.8 or not _is_steady(rows):
            continue
        sides = pd.Series((boxes[:, 2:] - boxes[:, :2]).max(axis=1)).groupby(rows["track"].to_numpy()).median()
        known = truth[truth["clip"] == clip][["track", "frame", "gaze_angle"]]
        found.append(Scene(clip, rows.merge(known, "left", ["track", "frame"]), float(sides.min())))
    return sorted(found, key=lambda scene: -scene.side)


def _is_steady(rows: pd.DataFrame) -> bool:
    """Whether both faces are in nearly all frames."""
    frames = rows["frame"].max() - rows["frame"].min() + 1
    return bool((rows.groupby("track")["frame"].nunique() > 0.9 * frames).all())


def pictures_of_scene(scene: Scene, root: Path) -> Iterator[Image.Image]:
    """Yield its frames. A missing crop repeats the last one; `root` is SynthLAM's folder."""
    wall, last = wall_of(SIZE), {}
    left, top = _corner(scene.rows)
    by_frame: dict[int, pd.DataFrame] = dict(iter(scene.rows.groupby("frame")))  # type: ignore[arg-type]
    for frame in range(min(by_frame), max(by_frame) + 1):
        picture = wall.copy()
        for row in by_frame.get(frame, scene.rows.iloc[:0]).itertuples():
            if row.image:
                last[row.track] = Image.open(root / row.image).convert("RGB")
            if row.track in last:
                picture.paste(last[row.track], (round(row.x1) - left, round(row.y1) - top))
        yield picture


def _corner(rows: pd.DataFrame) -> tuple[int, int]:
    """Return the left upper corner of the part of the frame in whose middle the faces are."""
    middle = (rows[["x1", "y1"]].min().to_numpy() + rows[["x2", "y2"]].max().to_numpy()) / 2
    left, top = (middle - np.array(SIZE) / 2).round().astype(int).tolist()
    return left, top


def _middle(rows: pd.DataFrame, scene: Scene) -> list[int]:
    """Return the mean middle of a track's boxes, x and y in pixels of the video."""
    boxes, (left, top) = rows[["x1", "y1", "x2", "y2"]].mean(), _corner(scene.rows)
    return [round((boxes["x1"] + boxes["x2"]) / 2 - left), round((boxes["y1"] + boxes["y2"]) / 2 - top)]


def looks_of(rows: pd.DataFrame, start: int) -> list[list[float]]:
    """List start and end, in seconds of the video, of a track's looks: the gaze meets the camera.

    Args:
        rows: of one track.
        start: number of the video's frame that shows the first frame of its scene, minus that frame's number.
    """
    frames = rows[rows["gaze_angle"] < LOOKING_DEG]["frame"].to_numpy() + start
    runs = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1) if len(frames) else []
    shown = [(int(run[0]), min(int(run[-1]) + 1, FRAMES)) for run in runs if run[0] < FRAMES]
    return [[round(a / RATE, 3), round(b / RATE, 3)] for a, b in shown if b - a >= SHORTEST * RATE]


def write_sample(out: Path) -> None:
    """Write the video and its record to a folder."""
    import av

    video, root, number = out / SAMPLE.name, synthlam.root(), 0
    faces: list[dict[str, Any]] = []
    scenes = scenes_of(clips_of("test", root), synthlam.truth(root))[:SCENES]
    options = {"movflags": "faststart"}
    with replacing(video) as temporary, av.open(str(temporary), "w", format="mp4", options=options) as container:
        stream: Any = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = OPTIONS
        while number < FRAMES:
            scene = scenes[len(faces) // 2 % len(scenes)]
            start = number - int(scene.rows["frame"].min())
            for track, rows in scene.rows.groupby("track"):
                middle = _middle(rows, scene)
                faces.append({"clip": scene.clip, "track": track, "middle": middle, "looks": looks_of(rows, start)})
            for picture in itertools.chain(pictures_of_scene(scene, root), itertools.repeat(wall_of(SIZE), EMPTY)):
                if number < FRAMES:
                    container.mux(stream.encode(av.VideoFrame.from_image(picture)))
                    number += 1
        container.mux(stream.encode())
    record = {
        "video": video.name,
        "sha256": file_sha256(video),
        "bytes": video.stat().st_size,
        "frames": number,
        "frames_per_second": RATE,
        "dataset": synthlam.ARCHIVE.name,
        "faces": faces,
    }
    write_json(out / SAMPLE.with_suffix(".json").name, record)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.make_sample", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=SAMPLE.parent, help="folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write_sample(args.out)


if __name__ == "__main__":
    main()
