"""A backbone and a head, joined; nowhere else are they."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from backbones.base import Backbone
from heads.base import Head, Window
from registry import BACKBONES, HEADS, UserError


class LookingAtMeModel(nn.Module):
    """Windows of face crops -> looking at the camera's wearer or not.

    Args:
        backbone: image -> D numbers.
        head: window of D numbers a frame -> two logits.

    Raises:
        UserError: the head was made for features of another size.
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        if head.feature_dim != backbone.feature_dim:
            raise UserError(
                f"the head takes features of {head.feature_dim} numbers, the backbone "
                f"({backbone.weights_info.name}) gives {backbone.feature_dim}; use the backbone it was trained on"
            )
        self.backbone = backbone
        self.head = head

    @classmethod
    def build(cls, backbone: Mapping[str, Any], head: Mapping[str, Any]) -> "LookingAtMeModel":
        """Build both parts by name, ``dict(type=NAME, **arguments)``; the head's feature_dim is the backbone's.

        Example:
            >>> model = LookingAtMeModel.build(dict(type="internvit_nano"), dict(type="lstm", hidden=64))
        """
        built: Backbone = BACKBONES.build(backbone)
        return cls(built, HEADS.build({**head, "feature_dim": built.feature_dim}))

    def encode(self, images: Tensor, present: Tensor) -> Window:
        """Run the backbone over the frames that are there; the others become zero vectors and cost nothing.

        Args:
            images: ``(B, T, 3, H, W)`` normalised.
            present: ``(B, T)`` bool.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.backbone.frozen):
            encoded = self.backbone(images[present])
        features = encoded.new_zeros(*present.shape, encoded.shape[-1])
        features[present] = encoded
        return Window(features, present)

    def forward(self, images: Tensor, present: Tensor) -> Tensor:
        """Return logits ``(B, 2)``, class 1 = looking, for ``images (B, T, 3, H, W)`` and ``present (B, T)``.

        Where features are at hand, call ``model.head(window)`` instead.
        """
        return self.head(self.encode(images, present))
