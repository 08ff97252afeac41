"""A small convolutional network that tells gaze on rendered heads: one stream sees the face, one the eyes enlarged."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from backbones.base import Backbone, Preprocessing, WeightsInfo
from backbones.checksums import file_sha256
from registry import BACKBONES

FOLDER = Path(__file__).resolve().parent.parent / "zoo" / "weights" / "gaze_nano"
PREPROCESSING = Preprocessing(size=112, resize=112)
ANGLES = ("left_eye_yaw", "left_eye_pitch", "right_eye_yaw", "right_eye_pitch")
EYES = ("left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y")
FACE_SIDE = 64  # pixels of the face that the first stream sees
EYES_SIZE = (32, 80)  # rows and columns of what the second one sees,
EYES_SHARE = (0.24, 0.58)  # and its share of the picture's height and width


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


class _Block(nn.Module):
    """Two convolutions and a way around them (He et al. 2016, "Deep residual learning for image recognition")."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _conv(inputs, outputs, stride), _conv(outputs, outputs, 1)
        self.around = nn.Identity() if inputs == outputs and stride == 1 else _conv(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.around(x) + self.second(functional.relu(self.first(x))))


def _stream(fold: int, stem: int, blocks: tuple[tuple[int, int], ...], kept: int, cells: int) -> nn.Sequential:
    """Convolutions down to `cells` places, of which a vector of 192 numbers is made; every place keeps its own.

    The first of them sees squares of `fold` by `fold` pixels as channels: nothing of the picture is lost, and there is
    less to be done at full size.

    Args:
        fold: pixels.
        stem: channels after the first convolution.
        blocks: channels and stride of each.
        kept: channels of a place.
        cells: places.
    """
    layers, inputs = [nn.PixelUnshuffle(fold), _conv(3 * fold**2, stem, 1), nn.ReLU()], stem
    for outputs, stride in blocks:
        layers.append(_Block(inputs, outputs, stride))
        inputs = outputs
    return nn.Sequential(*layers, nn.Conv2d(inputs, kept, 1), nn.Flatten(), nn.Linear(kept * cells, 192), nn.ReLU())


class GazeNetwork(nn.Module):
    """Faces -> what is known of them, and of where they look.

    The eyes of a face of 60 pixels are six pixels wide, a five-hundredth of the picture. A network that sees the whole
    of it needs hundreds of thousands of faces to find them. This one is told where they are by its first stream, cuts
    them out, and looks again (Jaderberg et al. 2015, "Spatial transformer networks").

    Args:
        names: of what the first stream reads off a face, `EYES` among them.
        mean: ``(len(names),)`` of each over the training faces.
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, names: tuple[str, ...], mean: Tensor | None = None, std: Tensor | None = None) -> None:
        super().__init__()
        self.face = _stream(4, 64, ((64, 1), (128, 2), (128, 1)), kept=32, cells=64)
        self.known = nn.Linear(192, len(names))
        self.eyes = _stream(2, 64, ((96, 2), (96, 1), (160, 2), (160, 1)), kept=48, cells=40)
        self.both = nn.Sequential(nn.Linear(384, 192), nn.ReLU())
        self.gaze = nn.Linear(192, len(ANGLES) + 5)
        # From what is known of a face, how its crop would have to lie: see `Backbone.reframe`. At first, as it lies.
        self.framing = nn.Linear(len(names), 4)
        for parameter in self.framing.parameters():
            nn.init.zeros_(parameter)
        self.columns = [names.index(name) for name in EYES]
        self.feature_dim = 192 + len(ANGLES) + 5 + len(names)
        self.register_buffer("mean", torch.zeros(len(names)) if mean is None else mean)
        self.register_buffer("std", torch.ones(len(names)) if std is None else std)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, feature_dim)`` of normalised ``images (B, 3, S, S)``: what `look` says, side by side."""
        return torch.cat(self.look(images), 1)

    def look(self, images: Tensor, between: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Look at faces.

        Args:
            images: ``(B, 3, S, S)``, normalised.
            between: ``(K, 2)``, the point between the eyes of the first K, x and y in [0, 1]; that of the others is
                where the first stream sees it.

        Returns:
            ``(B, 192)`` hidden; ``(B, 9)`` angles of the eyes in the head (standardised), x and y of the gaze's unit
            vector seen from the camera with the logarithms of their errors, and the logit of looking at the camera;
            ``(B, len(names))`` what the first stream reads off the face (standardised).
        """
        face = self.face(functional.interpolate(images, size=(FACE_SIDE, FACE_SIDE), mode="bilinear"))
        known = self.known(face)
        told = 0 if between is None else len(between)
        places = (known[told:].float() * self.std + self.mean)[:, self.columns]
        seen = (places[:, :2] + places[:, 2:]) / 2
        eyes = self.eyes(cut_parts(images, seen if between is None else torch.cat([between, seen])))
        hidden = self.both(torch.cat([face, eyes], 1))
        return hidden, self.gaze(hidden), known


def cut_parts(images: Tensor, between: Tensor) -> Tensor:
    """Cut out the eyes ``(B, 3, *EYES_SIZE)``, each with mean 0 and standard deviation about 1."""
    rows, columns = EYES_SIZE
    down = torch.linspace(-1, 1, rows, device=images.device) * EYES_SHARE[0]
    right = torch.linspace(-1, 1, columns, device=images.device) * EYES_SHARE[1]
    middle = between.to(images.dtype) * 2 - 1
    grid = torch.stack(
        [
            (middle[:, 0, None, None] + right[None, None, :]).expand(-1, rows, -1),
            (middle[:, 1, None, None] + down[None, :, None]).expand(-1, -1, columns),
        ],
        dim=3,
    ).to(images.dtype)
    eyes = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    eyes = eyes - eyes.mean((1, 2, 3), keepdim=True)
    return eyes / (eyes.square().mean((1, 2, 3), keepdim=True).sqrt() + 0.05)


@BACKBONES.register_module(name="gaze_nano")
class GazeNano(Backbone):
    """The small gaze network that ships with the project, for videos: 2.9 million parameters, two streams.

    It has learnt from rendered heads where they look, and whether it is at the camera. So it is no backbone to compare
    heads on: it brings the answer with it, where others bring a description of a face.
    """

    reframes = True

    def __init__(self, frozen: bool = True) -> None:
        names = tuple(json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))["names"])
        path = FOLDER / "model.safetensors"
        with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten
            network: Any = GazeNetwork(names)
        network = network.to(memory_format=torch.channels_last)  # as the encoder has it: the same bits either way
        network.load_state_dict(load_file(path))
        super().__init__(
            network,
            architecture={"name": "gaze_nano", "names": [*names]},
            feature="hidden layer, eyes, gaze, looking, and what the first stream reads off the face",
            feature_dim=network.feature_dim,
            preprocessing=PREPROCESSING,
            weights_info=WeightsInfo("gaze_nano", "shipped", file_sha256(path), "Apache-2.0"),
            frozen=frozen,
        )

    def known(self, features: Tensor) -> Tensor:
        """What the first stream reads off the faces, ``(B, len(names))`` of ``features (B, D)``."""
        return features[:, -len(self.architecture["names"]) :]

    def reframe(self, features: Tensor) -> Tensor:
        """From what the first stream reads off the faces; row by row, so that none depends on another."""
        framing: Any = self.network.get_submodule("framing")
        return (self.known(features).double()[:, None] * framing.weight.double()).sum(2) + framing.bias.double()
