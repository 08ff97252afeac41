"""Test plug-in: a backbone slow enough to be killed at work, with a limited batch size."""

import time

import torch
from torch import Tensor, nn

from backbones.base import Backbone, Preprocessing, WeightsInfo
from registry import BACKBONES


@BACKBONES.register_module(name="slow_means")
class SlowMeans(Backbone):
    """A random projection of the picture, sensitive to any difference between batches."""

    def __init__(self, delay: float = 0.0, fits: int = 1000) -> None:
        generator = torch.Generator().manual_seed(0)
        network = nn.Linear(16 * 16 * 3, 32, bias=False)
        network.weight.data = torch.randn(32, 16 * 16 * 3, generator=generator)
        super().__init__(
            network,
            architecture={"name": "slow_means"},
            feature="projection",
            feature_dim=32,
            preprocessing=Preprocessing(size=16, resize=16),
            weights_info=WeightsInfo(name="none", origin="tests", sha256="1" * 64, licence="Apache-2.0"),
        )
        self.delay = delay
        self.fits = fits
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.fits:
            raise torch.OutOfMemoryError("no room")
        self.batches.append(len(images))
        time.sleep(self.delay)
        return self.network(images.flatten(1))
