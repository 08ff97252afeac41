"""The files of SynthLAM, from its rows: annotations in Ego4D's layout, crops, priors and truth; and its archive."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import lzma
import multiprocessing
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.priors.base import LANDMARKS
from tools.synthlam import scene
from tools.synthlam.clips import SPLITS, plan
from tools.synthlam.filming import Crop, render_clip
from zoo.files.atomic import write_text

NAME = "synthlam-2"
#: Modules that decide the pixels and labels of a clip.
RENDERING = (
    *("camera", "filming", "geometry", "head_model", "identity", "light"),
    *("paint", "parts", "renderer", "scene"),
)

CROP_COLUMNS = ("split", "clip", "track", "frame", "person", "identity", "image", "width", "height", "label")
TRUTH = [
    "gaze_angle",
    "gaze_yaw",
    "gaze_pitch",
    "head_yaw",
    "head_pitch",
    "head_roll",
    "eye_yaw",
    "eye_pitch",
    "blink",
    "distance",
    "occluded",
    "motion",
]


@dataclass(frozen=True)
class Order:
    """Which clips to render, and where to keep them.

    Attributes:
        seed: of people, clips and pixels.
        work: folder that keeps finished clips, so that they are not rendered again.
        workers: processes.
        times: multiplies the number of training clips.
        every: renders every n-th frame of a training clip.
        splits: to render.
    """

    seed: int
    work: Path
    workers: int = 1
    times: int = 1
    every: int = 1
    splits: tuple[str, ...] = tuple(SPLITS)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every {self.every}: must be 1 or more")


@dataclass(frozen=True)
class Job:
    """A clip to render, and the file that keeps its rows."""

    clip: scene.Clip
    split: str
    every: int
    path: Path


def render_jobs(order: Order) -> Iterator[tuple[Job, list[Crop]]]:
    """Render the clips of an order, or read those in its work folder.

    Raises:
        ValueError: the order's seed, times or every is out of range.
    """
    folder = order.work / rendering_checksum()[:12]
    jobs = []
    planned = plan(order.seed, order.times)
    for split in order.splits:
        every = order.every if split == "train" else 1
        jobs += [Job(clip, split, every, folder / f"{clip.name}_{clip.seed}_{every}.json") for clip in planned[split]]
    with multiprocessing.get_context("spawn").Pool(order.workers) as pool:
        for done, (job, rows) in enumerate(zip(jobs, pool.imap(render_job, jobs), strict=True)):
            print(f"{done + 1}/{len(jobs)} {job.clip.name}: {len(rows)} rows", flush=True)
            yield job, rows


def render_job(job: Job) -> list[Crop]:
    """Return the rows of a clip, read from its file, or rendered and written there."""
    if job.path.exists():
        rows = json.loads(job.path.read_text(encoding="utf-8"))
        for row in rows:
            row["box"] = tuple(row["box"])
            row["jpeg"] = None if row["jpeg"] is None else base64.b64decode(row["jpeg"])
        return [Crop(**row) for row in rows]
    crops = render_clip(job.clip, job.split, job.every)
    rows = [asdict(crop) for crop in crops]
    for row in rows:
        row["jpeg"] = None if row["jpeg"] is None else base64.b64encode(row["jpeg"]).decode()
    write_text(job.path, json.dumps(rows))
    return crops


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide the pixels."""
    (opencv, *_) = packages_distributions()["cv2"]  # one of several that hold the same module
    return {name: version(name) for name in ("anny", "pyvista", "vtk", "numpy", opencv)}


@functools.cache
def rendering_checksum() -> str:
    """Return a sha256 of everything but the clip that decides its rows: code and versions."""
    content = json.dumps(versions(), sort_keys=True).encode()
    for name in RENDERING:
        content += Path(__file__).with_name(f"{name}.py").read_bytes()
    return hashlib.sha256(content).hexdigest()


class Files:
    """The files of the data set, path -> content, to which clips are added one by one."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.truth = [",".join((*CROP_COLUMNS, *TRUTH))]
        self.labels = ["clip,track,frame,unique_id,person,x1,y1,x2,y2,label"]
        self.videos: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
        self.poses: dict[str, list[float]] = {}
        self.landmarks: dict[str, dict[str, dict[str, list[list[float]]]]] = {}

    def add(self, clip: scene.Clip, split: str, rows: list[Crop]) -> None:
        """Add the crops, annotations, priors and truth of a clip."""
        identities = {person.name: person.identity for person in clip.people}
        for row in rows:
            key = f"{clip.name}:{row.track}:{row.frame}"
            if split == "test":
                path = self._label(clip.name, row, hashlib.sha256(key.encode()).hexdigest()[:8])
            else:
                path = f"face_imgs/{clip.name}/{row.track}/face_{row.frame:05d}.jpg"
            if row.head_pose is not None:
                self.poses[key] = row.head_pose
            if row.landmarks is not None:
                frames = self.landmarks.setdefault(clip.name, {}).setdefault(row.track, {})
                frames[str(row.frame)] = row.landmarks
            if row.jpeg is None:
                continue
            self.content[path] = row.jpeg
            width, height = Image.open(io.BytesIO(row.jpeg)).size
            identity = f"{split}_{identities[row.person]:05d}"
            crop = (split, clip.name, row.track, row.frame, row.person, identity, path, width, height, row.label)
            self.truth.append(",".join(map(str, crop)) + "," + ",".join(f"{row.truth[name]:g}" for name in TRUTH))
        if split != "test":
            _annotate(self.content, self.videos[split], clip, rows)

    def _label(self, clip: str, row: Crop, unique_id: str) -> str:
        """Add a line to the labels of the test split; return the path of its crop."""
        x, y, w, h = row.box
        box = ",".join(f"{v:.1f}" for v in (x, y, x + w, y + h))
        self.labels.append(f"{clip},{row.track},{row.frame},{unique_id},{row.person},{box},{row.label}")
        return f"videos_challenge/{clip}/{row.track}/{row.frame:05d}_{unique_id}.jpg"

    def finish(self, seed: int) -> dict[str, bytes]:
        """Add what spans several clips, and return all files."""
        files = self.content
        for split, listed in self.videos.items():
            files[f"json/av_{split}.json"] = _json({"version": "v1", "split": split, "videos": listed})
            names = [clip["clip_uid"] for video in listed for clip in video["clips"]]
            files[f"split/{split}.list"] = ("\n".join(names) + "\n").encode()
        files["labels_challenge.csv"] = ("\n".join(self.labels) + "\n").encode()
        files["truth.csv"] = ("\n".join(self.truth) + "\n").encode()
        files["priors/head_pose.json"] = _json(self.poses)
        files["priors/landmarks.json"] = _json(self.landmarks)
        files["scene.json"] = _json(
            dict(
                frames_per_second=scene.RATE,
                frame_size=scene.FRAME_SIZE,
                focal_pixels=scene.FOCAL,
                looking_within_degrees=scene.LOOKING_DEG,
                landmarks=LANDMARKS,
                seed=seed,
            )
        )
        return files


def make_files(order: Order) -> dict[str, bytes]:
    """Render the whole data set; return path -> content.

    Raises:
        ValueError: the order's seed, times or every is out of range.
    """
    files = Files()
    for job, rows in render_jobs(order):
        files.add(job.clip, job.split, rows)
    return files.finish(order.seed)


def _json(value: Any) -> bytes:
    return (json.dumps(value, separators=(",", ":")) + "\n").encode()


def _annotate(files: dict[str, bytes], videos: list[dict[str, Any]], clip: scene.Clip, rows: list[Crop]) -> None:
    """Add Ego4D's annotations of one clip, raw and prepared."""
    tracks: dict[str, list[Crop]] = {}
    for row in rows:
        tracks.setdefault(row.track, []).append(row)
    persons: list[dict[str, Any]] = [dict(person_id="0", camera_wearer=True, tracking_paths=[])]
    for person in clip.people:
        paths = [
            dict(
                track_id=track,
                track=[
                    dict(zip(("frame", "x", "y", "width", "height"), (r.frame, *_round(r.box)), strict=True))
                    for r in listed
                ],
            )
            for track, listed in tracks.items()
            if listed[0].person == person.name
        ]
        persons.append(dict(person_id=person.name, tracking_paths=paths))
    looks = [
        dict(person=person.name, start_frame=clip.first_frame + a, end_frame=clip.first_frame + b, target="0")
        for person in clip.people
        for a, b in person.segments
    ]
    entry = dict(
        clip_uid=clip.name, video_start_sec=0.0, video_end_sec=300.0, persons=persons, social_segments_looking=looks
    )
    videos.append(dict(video_uid=f"video_{clip.name}", clips=[entry]))
    for track, listed in tracks.items():
        prepared = []
        for r in listed:
            x, y, w, h = _round(r.box)
            prepared.append(
                {
                    "clip_uid": clip.name,
                    "frameNumber": r.frame,
                    "Person ID": r.person,
                    "x": x,
                    "y": y,
                    "height": h,
                    "width": w,
                }
            )
        files[f"json_original/{clip.name}/{track}.json"] = _json(prepared)
    files[f"result_LAM/{clip.name}.json"] = _json(
        [dict(label=look["person"], start_frame=look["start_frame"], end_frame=look["end_frame"]) for look in looks]
    )


def _round(box: tuple[float, float, float, float]) -> list[float]:
    return [round(v, 1) for v in box]


def pack(files: dict[str, bytes]) -> bytes:
    """Pack the files into an xz-compressed tar; uncompressed, a third of it would be headers of small files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(files):
            info = tarfile.TarInfo(path)
            info.size = len(files[path])
            tar.addfile(info, io.BytesIO(files[path]))
    return lzma.compress(buffer.getvalue(), preset=6)
