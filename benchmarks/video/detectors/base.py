"""The interface of face detectors, and operations on boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from registry import UserError

SMALL = 320  # pixels of the longer side up to which pictures are padded to squares
NETS = 12  # cached networks, one per input size
OVERLAP = 0.3  # intersection over union above which the lower-scored of two boxes is dropped


class Faces(NamedTuple):
    """The faces of one picture.

    Attributes:
        boxes: ``(N, 4)`` float64 x1, y1, x2, y2 in pixels from the picture's upper left corner: from forehead to chin
            and from cheek to cheek, as in WIDER FACE. Models add their own margin.
        scores: ``(N,)`` float64 confidence in [0, 1].
    """

    boxes: np.ndarray
    scores: np.ndarray


class Detector:
    """Finds faces in pictures. A plug-in registers a subclass whose arguments have annotations and defaults.

    Attributes:
        side: pixels of the longer side to which whole frames are shrunk for `detect`; None: not shrunk.
        confident: score that a face reaches in at least two of its detections; tracks that do not are dropped. 0: none.
        sure: score from which two detections need no recognised face; see `benchmarks.video.doubt`. 0: none does.
    """

    side: int | None = None
    confident: float = 0.0
    sure: float = 0.0

    def detect(self, picture: np.ndarray) -> Faces:
        """Finds the faces of a picture ``(H, W, 3)`` uint8, RGB. Deterministic."""
        raise NotImplementedError

    def fingerprint(self) -> dict[str, Any]:
        """Returns everything that determines the results, ready for JSON."""
        raise NotImplementedError


class SizedNetworks:
    """Networks by the size of their input; the oldest is dropped when there are more than `NETS`.

    Args:
        make: builds a network for an input's height and width.
    """

    def __init__(self, make: Callable[[tuple[int, int]], Any]) -> None:
        self._make = make
        self._nets: dict[tuple[int, int], Any] = {}

    def of(self, shape: tuple[int, int]) -> Any:
        """Returns the network for inputs of this height and width."""
        if shape not in self._nets:
            if len(self._nets) == NETS:
                self._nets.pop(next(iter(self._nets)))
            self._nets[shape] = self._make(shape)
        return self._nets[shape]


def check_detector_arguments(detector: str, side: int, least: int, threshold: float) -> None:
    """Checks what detectors have in common.

    Args:
        detector: its name.
        side: pixels of a frame's longer side.
        least: smallest possible side.
        threshold: minimum confidence.

    Raises:
        UserError: one of them is out of range.
    """
    if side < least:
        raise UserError(f"detector {detector}: side is {side}; it must be at least {least}")
    if not 0 < threshold < 1:
        raise UserError(f"detector {detector}: threshold is {threshold}; it must be between 0 and 1")


def padded(picture: np.ndarray, multiple: int) -> np.ndarray:
    """Pads a picture ``(H, W, 3)`` below and to the right with black, which keeps the coordinates.

    Sides become multiples of `multiple` pixels, and pictures of at most `SMALL` squares, so that a network gets few
    input sizes.
    """
    import cv2

    height, width = picture.shape[:2]
    square = max(height, width) if max(height, width) <= SMALL else 0
    below, right = (-max(side, square) % multiple + max(square - side, 0) for side in (height, width))
    return cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))


def within(boxes: np.ndarray, scores: np.ndarray, picture: np.ndarray) -> Faces:
    """Clips boxes ``(N, 4)`` to a picture ``(H, W, 3)`` and drops those that lie outside it."""
    height, width = picture.shape[:2]
    boxes = np.clip(boxes, 0, [width, height, width, height])
    seen = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return Faces(boxes[seen], scores[seen])


def best(boxes: np.ndarray, scores: np.ndarray) -> Faces:
    """Non-maximum suppression of boxes ``(N, 4)`` with scores ``(N,)``; best first."""
    keep: list[int] = []
    for place in np.argsort(-scores, kind="stable").tolist():
        if not keep or iou(boxes[[place]], boxes[keep]).max() <= OVERLAP:
            keep.append(place)
    return Faces(boxes[keep], scores[keep])


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes ``(N, 4)`` and ``(M, 4)``: ``(N, M)``, 0 if either has no area."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).clip(0, None).prod(axis=1) for box in (a, b))
    either = area_a[:, None] + area_b[None] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)
