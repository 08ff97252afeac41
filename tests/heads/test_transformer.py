"""The transformer masks absent frames: attention ignores them, unlike zero vectors."""

import torch

from heads.base import Window
from registry import HEADS


@torch.no_grad()
def test_absent_is_not_the_same_as_zero() -> None:
    head = HEADS.build({"type": "transformer", "feature_dim": 4, "width": 8, "heads": 2, "mlp": 8}).eval()
    features = torch.randn(1, 7, 4, generator=torch.Generator().manual_seed(0))
    present = torch.ones(1, 7, dtype=torch.bool)
    features[0, 1] = 0
    seen = head(Window(features, present))
    present[0, 1] = False
    assert not torch.allclose(head(Window(features, present)), seen)


@torch.no_grad()
def test_order_matters() -> None:
    head = HEADS.build({"type": "transformer", "feature_dim": 4, "width": 8, "heads": 2, "mlp": 8}).eval()
    torch.nn.init.normal_(head.position)
    features = torch.randn(1, 7, 4, generator=torch.Generator().manual_seed(0))
    present = torch.ones(1, 7, dtype=torch.bool)
    swapped = features[:, [1, 0, 2, 3, 4, 5, 6]]
    assert not torch.allclose(head(Window(features, present)), head(Window(swapped, present)))
