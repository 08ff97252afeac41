"""Priors from MediaPipe's Face Mesh, which finds 468 points of a face; 27 of them give the head's pose.

The network is a file in a PyPI package that is read but never imported; OpenCV runs it. `python -m tools.check_priors`
prints the accuracy on SynthLAM by face size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backbones.face_mesh import INSTALL, SHA256, SIDE, MeshNetwork, Region, head_pose
from backbones.opening import read_small_json
from benchmarks.data.frames import BOX
from benchmarks.data.pictures import over_crops
from benchmarks.priors.base import Priors
from benchmarks.priors.files import FromFiles
from benchmarks.system import interrupts
from benchmarks.system.locks import NAME, locked
from benchmarks.system.progress import Progress, plural, say
from registry import PRIORS
from zoo.files.atomic import write_text
from zoo.files.untrusted import below

if TYPE_CHECKING:
    from PIL import Image

VERSION = 2  # raised when the same crops give other numbers than before
LARGEST = 2 * SIDE  # pixels of a crop's longer side; larger crops are reduced first
LEAST = 0.1  # minimum confidence for a pose; MediaPipe's 0.5 prefers no pose to a rough one

# Points of the mesh that make up each of `LANDMARKS`; left is the person's.
FIVE = ((4,), (263, 362, 386, 374), (33, 133, 159, 145), (291,), (61,))


@PRIORS.register_module(name="face_mesh")
class FaceMesh(FromFiles):
    """Head pose and landmarks computed from the crops by MediaPipe's Face Mesh (Apache-2.0) under OpenCV.

    Results are kept in `cache` as two files in the format of the prior `file`.

    Args:
        root: of the data set.
        cache: parent of the folder `face_mesh-<version>-<network>`.
    """

    must_match = False  # possibly no crop shows a recognisable face
    how = f"computed from the crops, after {INSTALL}"

    def files(self) -> tuple[Sequence[Path], Sequence[Path]]:
        folder = self.cache / f"face_mesh-{VERSION}-{SHA256[:8]}"
        return [folder / "head_pose.json"], [folder / "landmarks.json"]

    def read(self, frames: pd.DataFrame) -> Priors:
        """Compute missing priors, then look up the rows."""
        out = self.files()[0][0].parent
        with locked(out / NAME, str(out), wait=True):
            if compute(self.root, frames, out):
                self.__dict__.pop("_content", None)
            return super().read(frames)  # under the lock, since another process would delete the files to update them

    def fingerprint(self) -> dict[str, Any]:
        """The network's sha256, and the version of the code around it."""
        return {"network": SHA256, "version": VERSION}


def compute(root: Path, frames: pd.DataFrame, out: Path) -> bool:
    """Write `head_pose.json` and `landmarks.json` for the crops of a frame table, keeping earlier results.

    Finished clips are kept in `out/clips`, so that an interrupted run resumes with the next one. Clips whose crops
    have changed are computed again.

    Args:
        root: of the data set.
        frames: a frame table; rows without a crop are skipped.
        out: output folder.

    Returns:
        Whether any file was written.

    Raises:
        UserError: OpenCV or the network's package is not installed, a crop does not exist, or `out` cannot be written.
    """
    rows = frames[frames["image"] != ""]
    shards = {_shard(out, str(clip), of_clip): of_clip for clip, of_clip in rows.groupby("clip", sort=True)}
    todo = {path: of_clip for path, of_clip in shards.items() if not path.exists()}
    merged = [out / "head_pose.json", out / "landmarks.json"]
    if not todo and all(path.exists() for path in merged):
        return False
    damaged = 0
    if todo:
        estimator = Estimator()
        for path in merged:  # out of date with the first new clip
            path.unlink(missing_ok=True)
        with _one_thread_per_crop(), Progress("face mesh", sum(map(len, todo.values())), "crop") as progress:
            for path, of_clip in interrupts.steps(todo.items()):
                damaged += _compute_clip(estimator, root, of_clip, path)
                progress.advance(len(of_clip))
    if damaged:
        say(f"face_mesh: {plural(damaged, 'crop')} cannot be decoded; their priors are unknown")
    poses: dict[str, Any] = {}
    landmarks: dict[str, Any] = {}
    for path in sorted((out / "clips").glob("*.json")):
        content = read_small_json(path)
        poses |= content["head_pose"]
        landmarks |= content["landmarks"]
    for path, content in zip(merged, (poses, landmarks), strict=True):
        write_text(path, json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n")
    return True


@contextmanager
def _one_thread_per_crop() -> Iterator[None]:
    """Limit OpenCV to one thread, since crops already run in one thread per core."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _shard(out: Path, clip: str, rows: pd.DataFrame) -> Path:
    """The file of one clip's results; its name contains a hash of the crops."""
    listed = rows[["track", "frame", "image", *BOX]].to_csv(index=False)
    name = f"{clip}.{hashlib.sha256(listed.encode()).hexdigest()[:16]}.json"
    return below(out / "clips", name, "a clip of the frame table", written=True)


def _compute_clip(estimator: Estimator, root: Path, rows: pd.DataFrame, path: Path) -> int:
    """Write the results of one clip, replacing older ones; returns the number of crops that cannot be decoded."""
    boxes = rows[list(BOX)].to_numpy()
    shapes = boxes[:, 2:] - boxes[:, :2]
    answers = over_crops(root, rows["image"].tolist(), lambda number, picture: estimator(picture, shapes[number]))
    poses: dict[str, list[float]] = {}
    landmarks: dict[str, dict[str, dict[str, list]]] = {}
    keys = zip(rows["clip"], rows["track"], rows["frame"].tolist(), strict=True)
    for (clip, track, frame), answer in zip(keys, answers, strict=True):
        if answer is None:
            continue
        pose, points = answer
        landmarks.setdefault(clip, {}).setdefault(track, {})[str(frame)] = points.round(4).tolist()
        if pose is not None:
            poses[f"{clip}:{track}:{frame}"] = pose.round(2).tolist()
    clip = rows["clip"].iloc[0]
    older = [file for file in path.parent.glob("*.json") if file.name[:-22] == clip]
    write_text(path, json.dumps({"head_pose": poses, "landmarks": landmarks}, allow_nan=False))
    for file in older:
        file.unlink(missing_ok=True)
    return sum(answer is None for answer in answers)


class Estimator:
    """Estimates head pose and landmarks of a crop. Thread-safe.

    Raises:
        UserError: OpenCV or the network's package is missing, or the network fails its checksum.
    """

    def __init__(self) -> None:
        self._network = MeshNetwork("the prior face_mesh")

    def __call__(self, picture: Image.Image, shape: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """Estimate one crop.

        Args:
            picture: RGB.
            shape: (2,) width and height of the crop's box in any unit, NaN where unknown.

        Returns:
            Yaw, pitch, roll in degrees, or None if no face was recognised; and ``(5, 4)``: x, y, z (out of the
            image) in units of the crop's sides (z: of its width), and the confidence in a face.
        """
        mesh, flag, size = self.mesh(picture, shape)
        pose = head_pose(mesh, size) if flag >= LEAST else None
        five = np.stack([mesh[list(points)].mean(axis=0) for points in FIVE]) / [size[0], size[1], -size[0]]
        return pose, np.concatenate([five, np.full((5, 1), flag)], axis=1)

    def mesh(self, picture: Image.Image, shape: np.ndarray) -> tuple[np.ndarray, float, tuple[float, float]]:
        """Find the points of a face in two passes: over the whole crop, then over the upright face in it.

        Returns:
            ``(468, 3)`` x, y and depth in pixels of an undistorted crop, the confidence, and that crop's size.
        """
        picture = picture.copy() if max(picture.size) <= LARGEST else picture
        picture.thumbnail((LARGEST, LARGEST))
        pixels = np.asarray(picture)
        height, width = pixels.shape[:2]
        stretch = np.ones(2)
        # A square picture of a box that is not square was stretched, like Ego4D's crops.
        if width == height and np.isfinite(shape).all() and shape.min() > 0:
            stretch = shape / shape.max()
        size = (width * stretch[0], height * stretch[1])
        region = Region(size[0] / 2, size[1] / 2, max(size), 0.0)
        mesh, flag = self._network.look_twice(pixels, region, stretch)
        return mesh, flag, size
