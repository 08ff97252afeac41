"""A backbone and a head, joined; nowhere else are they."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.base import Backbone, check_state
from heads.base import Head, Window
from registry import BACKBONES, HEADS, UserError
from zoo.weights import read_weights


class LookingAtMeModel(nn.Module):
    """Windows of face crops -> looking at the camera's wearer or not.

    Args:
        backbone: image -> D numbers.
        head: window of D numbers a frame -> two logits.

    Raises:
        UserError: the head was made for features of another size, or looks inside the image where the backbone gives
            no map.
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        if head.feature_dim != backbone.feature_dim:
            raise UserError(
                f"the head takes features of {head.feature_dim} numbers, the backbone "
                f"({backbone.weights_info.name}) gives {backbone.feature_dim}; use the backbone it was trained on"
            )
        given = getattr(backbone, "map_channels", None)
        if head.map_channels is not None and head.map_channels != given:
            raise UserError(
                f"the head ({type(head).__name__}) takes the key frame's map of {head.map_channels} channels, the "
                f"backbone ({backbone.weights_info.name}) gives {given or 'none'}; use gaze_resnet18"
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

    def encode(self, images: Tensor, present: Tensor, priors: dict[str, Tensor] | None = None) -> Window:
        """Run the backbone over the frames that are there; the others become zero vectors and cost nothing.

        The key frame's map is in the window where the head needs one, all zeros where that frame is absent.

        Args:
            images: ``(B, T, 3, H, W)`` normalised.
            present: ``(B, T)`` bool.
            priors: of the key frames, by name, for heads that need them.
        """
        centre_map = None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.backbone.frozen):
            if self.head.map_channels is None:
                encoded = self.backbone(images[present])
            else:
                backbone: Any = self.backbone  # one that has maps
                encoded, maps = backbone.forward_map(images[present])
                centre = present.shape[1] // 2
                is_centre = torch.zeros_like(present)
                is_centre[:, centre] = True
                centre_map = maps.new_zeros(len(present), *maps.shape[1:])
                centre_map[present[:, centre]] = maps[is_centre[present]]
        features = encoded.new_zeros(*present.shape, encoded.shape[-1])
        features[present] = encoded
        return Window(features, present, centre_map, priors)

    def forward(self, images: Tensor, present: Tensor, priors: dict[str, Tensor] | None = None) -> Tensor:
        """Return logits ``(B, 2)``, class 1 = looking, for ``images (B, T, 3, H, W)`` and ``present (B, T)``.

        Where features are at hand, call ``model.head(window)`` instead.
        """
        return self.head(self.encode(images, present, priors))


def read_model(path: Path) -> LookingAtMeModel:
    """Build the backbone and the head that `import --as gazelstm` or `gazepose` wrote, in evaluation mode.

    Raises:
        UserError: a damaged file, one that does not hold both, or tensors that do not fit.
    """
    state, about = read_weights(path)
    backbone, head = about.get("backbone"), about.get("head")
    if not isinstance(backbone, dict) or "type" not in backbone or not isinstance(head, dict):
        raise UserError(f"weights {path} are not those of a backbone and its head; import --as gazelstm makes such")
    try:
        model = LookingAtMeModel.build({**backbone, "weights": str(path)}, head)
    except UserError as error:
        raise UserError(f"weights {path}: {error}") from error
    check_state(
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        str(path),
    )
    model.load_state_dict(state)
    return model.eval()
