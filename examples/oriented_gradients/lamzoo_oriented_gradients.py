"""Backbone `oriented_gradients`: histograms of oriented gradients, features without training."""

import math
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional

from backbones.base import Backbone, Preprocessing, WeightsInfo
from registry import BACKBONES

CELL = 8  # pixels per side
LIMIT = 0.2  # of a normalised number, so that one strong edge does not drown the rest


class Histograms(nn.Module):
    """Images ``(B, 3, H, W)`` in [0, 1] -> normalised histograms ``(B, D)``; H and W are multiples of `CELL`.

    Args:
        bins: directions from 0 to 180 degrees. A gradient votes with its length, for the two nearest directions.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, images: Tensor) -> Tensor:
        """Return the histograms of all blocks of two by two cells, side by side."""
        grey = functional.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        right = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]
        down = grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
        length = torch.hypot(right, down)
        place = torch.atan2(down, right) / math.pi % 1 * self.bins  # direction, in bins; bin 0 is an upright edge
        bins = torch.arange(self.bins, device=images.device, dtype=place.dtype).view(1, -1, 1, 1)
        away = (place - bins).abs()
        votes = length * (1 - torch.minimum(away, self.bins - away)).clamp_min(0)
        cells = functional.avg_pool2d(votes, CELL)  # (B, bins, H / 8, W / 8)
        blocks = functional.unfold(cells, 2)  # (B, 4 bins, blocks)
        blocks = functional.normalize(blocks, dim=1, eps=1e-3).clamp_max(LIMIT)
        return functional.normalize(blocks, dim=1, eps=1e-3).flatten(1)


@BACKBONES.register_module(name="oriented_gradients")
class OrientedGradients(Backbone):
    """Histograms of oriented gradients. Dalal and Triggs 2005, section 6, with all cells of the crop.

    Args:
        size: side to which a crop is resized, in pixels; a multiple of 8.
        bins: directions of each histogram.
    """

    def __init__(
        self,
        size: Annotated[int, Meta(ge=16, le=512, multiple_of=8)] = 64,
        bins: Annotated[int, Meta(ge=2, le=64)] = 9,
    ) -> None:
        super().__init__(
            Histograms(bins),
            architecture={"name": "oriented_gradients", "version": 1, "bins": bins},  # all that changes the features
            feature="histograms of all blocks",
            feature_dim=4 * bins * (size // CELL - 1) ** 2,
            preprocessing=Preprocessing(size=size, resize=size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
            weights_info=WeightsInfo("none", "none", sha256="0" * 64, licence="Apache-2.0"),
        )
