"""Renders in memory, with the renderer's parameters as targets, and their augmentation."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from backbones.base import Preprocessing
from registry import UserError
from tools.synthlam.pretraining import PRETRAINING_TARGETS

NAMES = tuple(PRETRAINING_TARGETS)
LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
ALIGNED_AT, ALIGNED_SCALE = (0.0, -0.15), 0.8  # place of the aligned eyes, in [-1, 1], and share of the crop shown
HELD_OUT = 20  # one shard in this many


@dataclass
class Renders:
    """Crops as the backbone sees them, with their targets.

    Attributes:
        images: ``(N, S, S, 3)`` uint8.
        targets: ``(N, len(NAMES))`` float32; angles in radians, landmarks in units of the square crop.
    """

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)


def load_shard(path: Path, preprocessing: Preprocessing, share: slice = slice(None)) -> Renders:
    """Read a shard, or a share of its rows, resized and cropped as for the backbone."""
    with np.load(path) as shard:
        if tuple(shard["names"]) != NAMES:
            raise UserError(f"{path} has unknown targets: {', '.join(shard['names'])}")
        targets = shard["targets"].astype(np.float32)[share]
        offsets, data = shard["offsets"], shard["jpeg"].tobytes()
    images = np.empty((len(targets), preprocessing.size, preprocessing.size, 3), np.uint8)
    for row, (start, end) in enumerate(zip(offsets[:-1][share], offsets[1:][share], strict=True)):
        image = Image.open(BytesIO(data[start:end]))
        images[row] = preprocessing.resize_crop(image)
        shown = min(image.size) * preprocessing.size / preprocessing.resize  # side of the centre crop, in pixels
        for axis, length in (("x", image.width), ("y", image.height)):
            columns = [NAMES.index(f"{landmark}_{axis}") for landmark in LANDMARKS]
            targets[row, columns] = (targets[row, columns] - 0.5) * length / shown + 0.5
    return Renders(torch.from_numpy(images), torch.from_numpy(targets))


def load_renders(
    folder: Path, preprocessing: Preprocessing, known: set[str], held_out: bool, share: slice = slice(None)
) -> Renders | None:
    """Read the shards that are not in ``known`` and add their names to it; None if there is no new shard.

    Args:
        folder: output of `python -m tools.synthlam pretraining`, finished or not.
        preprocessing: of the backbone.
        known: names of the shards read so far.
        held_out: read the held-out shards instead of the others.
        share: rows to take from each shard.
    """
    parts = []
    for path in sorted(folder.glob("shard_?????.npz")):
        if path.name not in known and (int(path.stem[6:]) % HELD_OUT == 0) == held_out:
            parts.append(load_shard(path, preprocessing, share))
            known.add(path.name)
    return together(parts) if parts else None


def load_training(folder: Path, more: Callable[[], Renders | None]) -> Renders:
    """Return the first crops of `more`, which reads those of ``folder`` that have not been read.

    Raises:
        UserError: there are none.
    """
    training = more()
    if training is None:
        raise UserError(f"{folder} has no training shards; write some with `python -m tools.synthlam pretraining`")
    return training


def together(parts: list[Renders]) -> Renders:
    """Concatenate parts. The list is emptied on the way, so that memory need not hold all crops twice."""
    count, targets = sum(map(len, parts)), torch.cat([part.targets for part in parts])
    images = torch.empty((count, *parts[0].images.shape[1:]), dtype=torch.uint8)
    end = 0
    while parts:
        part = parts.pop(0)
        start, end = end, end + len(part)
        images[start:end] = part.images
    return Renders(images, targets)


def mirror_targets(targets: Tensor) -> Tensor:
    """Return the targets of the mirrored images: left and right swap; yaw and roll change sign."""
    mirrored = targets.clone()
    for column, name in enumerate(NAMES):
        other = name
        if name.startswith("left_"):
            other = "right_" + name.removeprefix("left_")
        elif name.startswith("right_"):
            other = "left_" + name.removeprefix("right_")
        value = targets[:, NAMES.index(other)]
        if name.endswith(("yaw", "roll")):
            value = -value
        elif name.endswith("_x"):
            value = 1 - value
        mirrored[:, column] = value
    return mirrored


def augment(
    images: Tensor,
    targets: Tensor,
    generator: torch.Generator,
    aligned: float = 0.0,
    groups: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mirror, shift, scale and recolour crops; targets follow. Blur and noise are already in the renders.

    Args:
        images: ``(B, 3, S, S)`` in [0, 1].
        targets: ``(B, len(NAMES))``.
        generator: source of all random numbers.
        aligned: 1 enlarges the eyes and puts them at a fixed place; 0 keeps the framing of the crops.
        groups: ``(B,)`` int64 from 0; the frames of a group are changed alike. None: each crop is its own group.

    Returns:
        Images and targets of the same shapes.
    """
    count, size = len(images), images.shape[-1]
    draw = _Draw(generator, torch.arange(count) if groups is None else groups)
    flip = draw() < 0.5
    targets = torch.where(flip[:, None], mirror_targets(targets), targets)
    sign = torch.where(flip, -1.0, 1.0)
    scale, shift = _framing(targets, draw, aligned)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = scale * sign, shift[:, 0] * sign
    theta[:, 1, 1], theta[:, 1, 2] = scale, shift[:, 1]
    grid = functional.affine_grid(theta, [count, 3, size, size], align_corners=False)
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    targets = targets.clone()
    for axis, offset in (("x", shift[:, :1]), ("y", shift[:, 1:])):
        columns = [NAMES.index(f"{landmark}_{axis}") for landmark in LANDMARKS]
        targets[:, columns] = ((targets[:, columns] * 2 - 1 - offset) / scale[:, None] + 1) / 2
    targets[:, NAMES.index("log_size")] += scale.log()  # fewer of the crop's pixels are left
    return _recoloured(images, draw), targets


@dataclass
class _Draw:
    """Draws random numbers in [0, 1), ``(B, *shape)``, equal within a group."""

    generator: torch.Generator
    groups: Tensor

    def __call__(self, *shape: int) -> Tensor:
        return torch.rand((int(self.groups.max()) + 1, *shape), generator=self.generator)[self.groups]


def _framing(targets: Tensor, draw: _Draw, aligned: float) -> tuple[Tensor, Tensor]:
    """Draw a scale ``(B,)`` and a shift ``(B, 2)``: output x in [-1, 1] is read at ``scale * x + shift``."""
    framed = (draw() < 2 / 3).float()  # a third keep their exact framing
    scale = torch.exp((draw() * 2 - 1) * 0.12 * framed)
    shift = (draw(2) * 2 - 1) * 0.12 * framed[:, None]
    if aligned:
        eyes = [[NAMES.index(f"{side}_eye_{axis}") for side in ("left", "right")] for axis in "xy"]
        between = targets[:, eyes].mean(2).clamp(0.2, 0.8) * 2 - 1  # (B, 2), in [-1, 1]
        scale = (1 - aligned) * scale + aligned * ALIGNED_SCALE * scale
        at = between - scale[:, None] * torch.tensor(ALIGNED_AT)
        shift = (1 - aligned) * shift + aligned * (at + 0.2 * shift)
    return scale, shift


def _recoloured(images: Tensor, draw: _Draw) -> Tensor:
    brightness = (draw(1, 1, 1) * 2 - 1) * 0.3
    gain = torch.exp(brightness + (draw(3, 1, 1) * 2 - 1) * 0.08)
    contrast = torch.exp((draw(1, 1, 1) * 2 - 1) * 0.25)
    mean = images.mean((1, 2, 3), keepdim=True)
    return (((images - mean) * contrast + mean) * gain).clamp_(0, 1)
