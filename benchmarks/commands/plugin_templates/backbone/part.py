"""Backbone `my_part`: mean colours of a grid. Replace it with your network and its weights."""

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from backbones.base import Backbone, Preprocessing, WeightsInfo
from registry import BACKBONES


class _Network(nn.Module):
    """Images ``(B, 3, H, W)`` -> ``(B, D)``."""

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, images: Tensor) -> Tensor:
        return adaptive_avg_pool2d(images, self.grid).flatten(1)


@BACKBONES.register_module(name="my_part")
class MyPart(Backbone):
    """Mean colours of a grid of squares.

    Args:
        grid: squares per side.
        frozen: False trains the backbone with the head.
    """

    def __init__(self, grid: int = 4, frozen: bool = True) -> None:
        super().__init__(
            _Network(grid),
            # Everything that determines the features besides the weights: stored features are found by it and by the
            # weights' sha256. Raise the version when equal images give other features.
            architecture={"name": "my_part", "version": 1, "grid": grid},
            feature=f"mean colours of {grid} x {grid} squares",
            feature_dim=3 * grid**2,
            preprocessing=Preprocessing(size=64, resize=64),
            # For a file of weights: its sha256 from `backbones.checksums.file_sha256`, and its licence.
            weights_info=WeightsInfo(name="none", origin="none", sha256="0" * 64, licence="Apache-2.0"),
            frozen=frozen,
        )
