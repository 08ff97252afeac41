"""A small convolutional network for gaze, trained on rendered heads: one stream for the face, one for the eyes."""

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
FACE_SIDE = 64  # side of the first stream's input, pixels
EYES_SIZE = (32, 80)  # rows and columns of the second stream's input
EYES_SHARE = (0.24, 0.58)  # height and width of the eye region as shares of the crop


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


class _Block(nn.Module):
    """Residual block of two convolutions (He et al. 2016, "Deep residual learning for image recognition")."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _conv(inputs, outputs, stride), _conv(outputs, outputs, 1)
        self.around = nn.Identity() if inputs == outputs and stride == 1 else _conv(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.around(x) + self.second(functional.relu(self.first(x))))


def _stream(fold: int, stem: int, blocks: tuple[tuple[int, int], ...], kept: int, cells: int) -> nn.Sequential:
    """Convolutions, then a linear layer to 192 numbers with separate weights for each cell of the map.

    Squares of `fold` by `fold` pixels become channels first: less work at full resolution, without losing pixels.

    Args:
        fold: side of the squares, pixels.
        stem: channels after the first convolution.
        blocks: channels and stride of each block.
        kept: channels per cell.
        cells: cells of the last map.
    """
    layers, inputs = [nn.PixelUnshuffle(fold), _conv(3 * fold**2, stem, 1), nn.ReLU()], stem
    for outputs, stride in blocks:
        layers.append(_Block(inputs, outputs, stride))
        inputs = outputs
    return nn.Sequential(*layers, nn.Conv2d(inputs, kept, 1), nn.Flatten(), nn.Linear(kept * cells, 192), nn.ReLU())


class GazeNetwork(nn.Module):
    """Estimates facial attributes and gaze from face crops.

    In a face of 60 pixels an eye is six pixels wide, 1/500 of the picture. A network on the whole picture needs
    hundreds of thousands of faces to learn to find the eyes. Here the first stream locates them, and the second sees
    them cropped and enlarged (Jaderberg et al. 2015, "Spatial transformer networks").

    Args:
        names: attributes that the first stream estimates, including `EYES`.
        mean: ``(len(names),)`` means of the attributes over the training faces.
        std: ``(len(names),)`` standard deviations.
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
        # From the attributes to `Backbone.reframe`; zero until fitted, which leaves crops as they are.
        self.framing = nn.Linear(len(names), 4)
        for parameter in self.framing.parameters():
            nn.init.zeros_(parameter)
        self.columns = [names.index(name) for name in EYES]
        self.feature_dim = 192 + len(ANGLES) + 5 + len(names)
        self.register_buffer("mean", torch.zeros(len(names)) if mean is None else mean)
        self.register_buffer("std", torch.ones(len(names)) if std is None else std)

    def forward(self, images: Tensor) -> Tensor:
        """Return features ``(B, feature_dim)`` of normalised ``images (B, 3, S, S)``: the outputs of `look`, joined."""
        return torch.cat(self.look(images), 1)

    def look(self, images: Tensor, between: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Run both streams.

        Args:
            images: ``(B, 3, S, S)``, normalised.
            between: ``(K, 2)``, true point between the eyes for the first K images, x and y in [0, 1]. For the other
                images the first stream's estimate is used.

        Returns:
            ``(B, 192)`` hidden layer; ``(B, 9)`` angles of the eyes in the head (standardised), x and y of the gaze's
            unit vector in camera coordinates, the logarithms of their errors, and the logit of looking at the camera;
            ``(B, len(names))`` the first stream's attributes (standardised).
        """
        face = self.face(functional.interpolate(images, size=(FACE_SIDE, FACE_SIDE), mode="bilinear"))
        known = self.known(face)
        given = 0 if between is None else len(between)
        places = (known[given:].float() * self.std + self.mean)[:, self.columns]
        found = (places[:, :2] + places[:, 2:]) / 2
        eyes = self.eyes(cut_parts(images, found if between is None else torch.cat([between, found])))
        hidden = self.both(torch.cat([face, eyes], 1))
        return hidden, self.gaze(hidden), known


def cut_parts(images: Tensor, between: Tensor) -> Tensor:
    """Crop the eyes, ``(B, 3, *EYES_SIZE)``, normalised to mean 0 and a standard deviation of about 1 per crop."""
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
    """The small gaze network shipped with lamzoo, for videos: 2.9 million parameters, two streams.

    It was trained to predict gaze and looking at the camera on rendered heads. Do not compare heads on it: its
    features contain the answer, while those of other backbones describe a face.
    """

    reframes = True

    def __init__(self, frozen: bool = True) -> None:
        names = tuple(json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))["names"])
        path = FOLDER / "model.safetensors"
        with torch.random.fork_rng(devices=[]):  # the random initial weights are overwritten below
            network: Any = GazeNetwork(names)
        network = network.to(memory_format=torch.channels_last)  # like the encoder, so `forward` gives the same bits
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
        """Return the first stream's attributes ``(B, len(names))`` from ``features (B, D)``."""
        return features[:, -len(self.architecture["names"]) :]

    def reframe(self, features: Tensor) -> Tensor:
        framing: Any = self.network.get_submodule("framing")
        # Not a matrix product: its sums depend on the number of rows.
        return (self.known(features).double()[:, None] * framing.weight.double()).sum(2) + framing.bias.double()
