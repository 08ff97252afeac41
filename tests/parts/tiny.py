"""Test plug-in: a fast backbone without weights, the 4 x 4 mean colours of a picture."""

from pathlib import Path

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from backbones.base import Backbone, Preprocessing, WeightsInfo
from backbones.checksums import file_sha256
from registry import BACKBONES


class _Means(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return adaptive_avg_pool2d(images, 4).flatten(1)


@BACKBONES.register_module(name="tiny_means")
class TinyMeans(Backbone):
    """Mean colours of a 4 x 4 grid."""

    def __init__(self, scale: float = 1.0, weights: str | None = None) -> None:
        sha256 = file_sha256(Path(weights)) if weights else "0" * 64
        super().__init__(
            _Means(),
            architecture={"name": "tiny_means", "scale": scale},
            feature="means",
            feature_dim=48,
            preprocessing=Preprocessing(size=16, resize=16),
            weights_info=WeightsInfo(name="none", origin="tests", sha256=sha256, licence="Apache-2.0"),
        )
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) * self.scale
