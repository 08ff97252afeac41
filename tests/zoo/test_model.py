"""Backbone and head joined: pixels and features give the same logits, and absent frames cost nothing."""

import pytest
import torch
from torch import nn

from backbones.base import Backbone, Preprocessing, WeightsInfo
from heads.base import Window
from registry import BACKBONES, HEADS, UserError
from zoo.model import LookingAtMeModel


class Counting(nn.Module):
    """Mean colour; counts the images it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.images = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        return images.mean((2, 3)) * self.scale


def make(frozen: bool) -> LookingAtMeModel:
    backbone = Backbone(
        Counting(),
        architecture={},
        feature="mean colour",
        feature_dim=3,
        preprocessing=Preprocessing(size=4, resize=4),
        weights_info=WeightsInfo("none", "test", None, "Apache-2.0"),
        frozen=frozen,
    )
    return LookingAtMeModel(
        backbone, HEADS.build({"type": "gru", "feature_dim": 3, "projection": 4, "hidden": 4, "mlp": (4,)})
    )


@pytest.mark.parametrize("frozen", [True, False])
def test_pixels_and_features_give_the_same_logits(frozen: bool) -> None:
    model = make(frozen).eval()
    images = torch.randn(2, 7, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    present = torch.ones(2, 7, dtype=torch.bool)
    present[0, :2] = False
    features = torch.zeros(2, 7, 3)
    for b in range(2):
        for t in range(7):
            if present[b, t]:
                features[b, t] = images[b, t].mean((1, 2))
    torch.testing.assert_close(model(images, present), model.head(Window(features, present)))
    assert model.backbone.network.images == 12  # 14 frames, two of them absent
    model(images, present).sum().backward()
    assert (model.backbone.network.scale.grad is None) is frozen
    assert model.head.fc1.weight.grad is not None


def test_sizes_must_fit() -> None:
    model = make(True)
    with pytest.raises(UserError, match="takes 5 features, the backbone .* gives 3"):
        LookingAtMeModel(model.backbone, HEADS.build({"type": "probe", "feature_dim": 5}))


def test_build_by_name() -> None:
    model = LookingAtMeModel.build({"type": "internvit_nano"}, {"type": "probe", "window": 3})
    assert (
        model.head.feature_dim == model.backbone.feature_dim == BACKBONES.build({"type": "internvit_nano"}).feature_dim
    )
    side = model.backbone.preprocessing.size
    assert model(torch.zeros(1, 3, 3, side, side), torch.ones(1, 3, dtype=torch.bool)).shape == (1, 2)
    model.train()
    assert model.head.training
    assert not model.backbone.training
