"""Shared parts of the video tests: small videos of bright squares, a detector for them, and a model."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from benchmarks.video.detectors.base import Detector, Faces
from registry import DETECTORS
from zoo.model import LookingAtMeModel
from zoo.models import Model

av = pytest.importorskip("av")
pytest.importorskip("cv2")

SIZE = (160, 120)
SQUARE = 24


@DETECTORS.register_module(name="bright")
class Bright(Detector):
    """Finds bright squares."""

    def detect(self, picture: np.ndarray) -> Faces:
        labels, _ = ndimage.label(picture.min(axis=2) > 110)
        found = [(y.start, y.stop, x.start, x.stop) for y, x in ndimage.find_objects(labels)]
        boxes = np.array([(x0, y0, x1, y1) for y0, y1, x0, x1 in found if x1 - x0 > 6], dtype=np.float64).reshape(-1, 4)
        return Faces(boxes, np.ones(len(boxes)))

    def fingerprint(self) -> dict[str, Any]:
        return {"bright": 1}


def squares(frame: int) -> list[tuple[int, int, int]]:
    """Left edge, upper edge and brightness of two squares that drift apart; the second is absent in frames 40 to 43."""
    out = [(20 + frame // 2, 20, 140 + (frame // 10) % 2 * 90)]
    return out + ([] if 40 <= frame <= 43 else [(100 - frame // 3, 70, 240 - (frame // 15) % 2 * 90)])


def draw(shown: Sequence[tuple[int, int, int]], size: tuple[int, int] = SIZE) -> np.ndarray:
    """A dark picture with bright squares."""
    picture = np.full((size[1], size[0], 3), 30, dtype=np.uint8)
    for left, top, brightness in shown:
        picture[top : top + SQUARE, left : left + SQUARE] = brightness
    return picture


def make(
    path: Path,
    frames: int = 90,
    rate: int = 30,
    times: Sequence[float] | None = None,
    content: Callable[[int], np.ndarray] = lambda frame: draw(squares(frame)),
    aspect: tuple[int, int] | None = None,
) -> Path:
    """Writes a video; `times` are the seconds of each frame, for a variable rate; `aspect` is that of its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        height, width = content(0).shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000) if times is not None else Fraction(1, rate)
        stream.options = {"preset": "ultrafast", "crf": "5", "g": "20"}
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = Fraction(*aspect)
        for number in range(frames):
            shown = av.VideoFrame.from_ndarray(content(number), format="rgb24")
            shown.pts = number if times is None else round(1000 * times[number])
            shown.time_base = stream.codec_context.time_base
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return path


def model(rate: float = 15.0, window: int = 7, views: tuple[str, ...] = ("original", "flipped"), **more: Any) -> Model:
    """A model with random weights whose scores depend on the whole window."""
    torch.manual_seed(1)
    head = dict(type="lstm", projection=8, hidden=8, layers=1, mlp=(8, 8, 8), window=window)
    network = LookingAtMeModel.build(dict(type="tiny_means", scale=3.0), head).eval()
    for parameter in network.head.parameters():
        parameter.data *= 4  # otherwise all scores are near 0.5
    card: Any = None  # not read
    fields = dict(margin=(0.0,) * 4, smoothing={"filter": "median", "window": 5}, rendered_only=True) | more
    return Model(name="squares", card=card, network=network, views=views, rate=rate, **fields)
