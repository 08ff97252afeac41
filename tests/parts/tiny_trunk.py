"""Test plug-in: a backbone that trains fast and has a feature map like `gaze_resnet18`."""

import os
import time
from typing import Any

import torch
from torch import Tensor, nn

from backbones.base import Backbone, Preprocessing, WeightsInfo
from registry import BACKBONES


class _Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, kernel_size=4, stride=4)
        self.norm = nn.BatchNorm2d(12)
        self.maps = nn.Conv2d(12, 512, kernel_size=1)
        self.fc = nn.Linear(12 * 16, 16)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.norm(self.patches(images))
        return self.fc(patches.flatten(1)), self.maps(patches)


@BACKBONES.register_module(name="tiny_trunk")
class TinyTrunk(Backbone):
    """Sixteen patches with one layer each; random weights from a seed."""

    map_channels = 512

    def __init__(self, seed: int = 0, frozen: bool = True) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _Trunk()
        super().__init__(
            network,
            architecture={"name": "tiny_trunk"},
            feature="patches",
            feature_dim=16,
            preprocessing=Preprocessing(size=16, resize=16),
            weights_info=WeightsInfo("random init", "random", None, "none", random_init=True),
            frozen=frozen,
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_map(images)[0]

    def forward_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(float(os.environ.get("TINY_TRUNK_NAP", "0")))  # time to kill it
        network: Any = self.network
        return network(images)
