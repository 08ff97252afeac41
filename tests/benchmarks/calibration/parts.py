"""Shared parts of the calibration tests: a video of coloured squares, a model that half understands them, its run."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from backbones.base import Backbone, Preprocessing, WeightsInfo
from benchmarks.video.bouts import BoutOptions
from benchmarks.video.pipeline import predict_video
from benchmarks.video.search import FaceSource
from registry import BACKBONES
from tests.benchmarks.video.parts import SQUARE, Bright, make
from zoo.cards import Card
from zoo.model import LookingAtMeModel
from zoo.models import Model, open_model, write_folder

RATE = 15  # frames per second
EPISODE = 36  # frames, of which the last 12 are empty, so that the next faces are new tracks
EPISODES = 5
FRAMES = EPISODE * EPISODES
PLACES = ((20, 20), (100, 70))
THRESHOLD = 0.5


@BACKBONES.register_module(name="tint")
class Tint(Backbone):
    """The mean of each channel, from 0 to 1."""

    def __init__(self) -> None:
        super().__init__(
            torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
            architecture={"name": "tint"},
            feature="mean colour",
            feature_dim=3,
            preprocessing=Preprocessing(size=8, resize=8, mean=(0.0,) * 3, std=(1.0,) * 3),
            weights_info=WeightsInfo(name="none", origin="tests", sha256="0" * 64, licence="Apache-2.0"),
        )


def colours(frame: int) -> list[tuple[int, int, int]]:
    """Red, green and blue of the two squares; none between episodes."""
    if frame % EPISODE >= EPISODE - 12:
        return []
    random = np.random.default_rng(1000 + frame // 4)  # a new colour every quarter of a second
    return [(int(red), 160, int(blue)) for red, blue in random.integers(120, 250, (2, 2))]


def picture(frame: int) -> np.ndarray:
    """One frame ``(120, 160, 3)``."""
    out = np.full((120, 160, 3), 30, dtype=np.uint8)
    for (left, top), colour in zip(PLACES, colours(frame), strict=False):
        out[top : top + SQUARE, left : left + SQUARE] = colour
    return out


def looks(frame: int, left: float) -> bool:
    """The truth: a square looks if it is blue. The model of `model_folder` sees more red in it than blue."""
    return colours(frame)[0 if left < 60 else 1][2] > 185


def video(path: Path) -> Path:
    return make(path, FRAMES, RATE, content=picture)


def model_folder(folder: Path, **more: Any) -> Path:
    """A model whose log odds depend on red and a little on blue, with most scores below the threshold."""
    network = LookingAtMeModel.build(dict(type="tint"), dict(type="probe", window=1)).eval()
    weight = torch.tensor([6.0, 0.0, 4.0])
    with torch.no_grad():
        network.head.linear.weight.copy_(torch.stack([-weight, weight]) / 2)
        network.head.linear.bias.copy_(torch.tensor([4.5, -4.5]))
    card = Card("tint", "Tint", "Sees colours.", {"type": "tint"}, {"type": "probe"}, "By hand.", ("blind",), (), ())
    fields: dict[str, Any] = dict(rate=15.0, margin=(0.0,) * 4, smoothing=None, rendered_only=True, cost=0.1) | more
    model = Model(name="tint", card=card, network=network, views=("original",), threshold=THRESHOLD, **fields)
    write_folder(folder, model, {"type": "tint"}, {"type": "probe", "window": 1}, origin="tests", licence="Apache-2.0")
    return folder


def predicted(path: Path, model: Path, out: Path) -> Path:
    """The folder of a finished run over a video."""
    opened = open_model(str(model))
    options = BoutOptions(opened.threshold, 0.2, 0.2, opened.cost)
    predict_video(path, opened, FaceSource(Bright(), 7.5), options, out)
    return out
