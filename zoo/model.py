"""A backbone and a head in one module."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.base import Backbone, WeightsInfo, check_state
from backbones.checkpoints import at_most
from backbones.checksums import file_sha256
from backbones.hub import nothing_fetched
from heads.base import Head, Window
from registry import BACKBONES, HEADS, UserError
from zoo.weights import build_head, read_weights, write_weights

PASS = 64  # frames per forward pass without gradients: only the feature vectors are kept, so memory stays small


@dataclass
class PixelWindow:
    """A batch of windows of pixels. Windows overlap, so each distinct frame is stored once.

    Attributes:
        pixels: ``(U, size, size, 3)`` uint8 RGB, from the backbone's preprocessing.
        rows: ``(B, T)`` int64 indices into ``pixels``, -1 for absent frames.
        priors: name -> ``(B, ...)`` prior of the key frames, for heads that need them.
    """

    pixels: Tensor
    rows: Tensor
    priors: dict[str, Tensor] | None = None

    def to(self, device: str | torch.device) -> "PixelWindow":
        """Return the same windows on ``device``."""
        priors = self.priors and {name: tensor.to(device) for name, tensor in self.priors.items()}
        return replace(self, pixels=self.pixels.to(device), rows=self.rows.to(device), priors=priors)


class LookingAtMeModel(nn.Module):
    """Classifies windows of face crops: looking at the camera wearer or not.

    Args:
        backbone: maps an image to a feature vector of length D.
        head: maps a window of feature vectors to two logits.

    Raises:
        UserError: the head expects features of another size, or a feature map that the backbone does not provide.
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        if head.feature_dim != backbone.feature_dim:
            raise UserError(
                f"the head takes {head.feature_dim} features, the backbone ({backbone.weights_info.name}) gives "
                f"{backbone.feature_dim}; use the backbone the head was trained on"
            )
        given = getattr(backbone, "map_channels", None)
        if head.map_channels is not None and head.map_channels != given:
            raise UserError(
                f"the head ({type(head).__name__}) needs a feature map with {head.map_channels} channels, the backbone "
                f"({backbone.weights_info.name}) gives {given or 'none'}; use gaze_resnet18"
            )
        self.backbone = backbone
        self.head = head

    @classmethod
    def build(cls, backbone: Mapping[str, Any], head: Mapping[str, Any]) -> "LookingAtMeModel":
        """Build both parts from ``dict(type=NAME, **arguments)``. The head's feature_dim is the backbone's.

        Example:
            >>> model = LookingAtMeModel.build(dict(type="internvit_nano"), dict(type="lstm", hidden=64))
        """
        built: Backbone = BACKBONES.build(backbone)
        return cls(built, HEADS.build({**head, "feature_dim": built.feature_dim}))

    def encode(self, images: Tensor, present: Tensor, priors: dict[str, Tensor] | None = None) -> Window:
        """Run the backbone over the present frames. Absent frames get zero vectors and do not pass through it.

        The window includes the key frame's feature map if the head needs one, all zeros if that frame is absent.

        Args:
            images: ``(B, T, 3, H, W)`` normalised.
            present: ``(B, T)`` bool.
            priors: name -> prior of the key frames, for heads that need them.
        """
        rows = present.long().flatten().cumsum(0).view_as(present) - 1  # index among the present frames
        return self._window(*self._vectors(images[present]), rows.masked_fill(~present, -1), priors)

    def encode_pixels(self, batch: PixelWindow) -> Window:
        """Like `encode`, for windows that share frames: each frame passes through the backbone once.

        Outside training, frames are encoded `PASS` at a time, because no frame affects another's vector there. A
        backbone in training sees all frames at once, because batch normalisation depends on the batch.
        """
        size = max(1, len(batch.pixels)) if self.training and not self.backbone.frozen else PASS
        passes = [self._vectors(self.backbone.preprocessing.normalise(part)) for part in batch.pixels.split(size)]
        maps = [own for _, own in passes if own is not None]
        return self._window(
            torch.cat([vectors for vectors, _ in passes]), torch.cat(maps) if maps else None, batch.rows, batch.priors
        )

    def _vectors(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return vectors ``(U, D)`` of normalised ``images (U, 3, H, W)``, and their maps if the head needs them."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.backbone.frozen):
            if self.head.map_channels is None:
                return self.backbone(images), None
            backbone: Any = self.backbone  # has forward_map, as checked in __init__
            return backbone.forward_map(images)

    def _window(self, vectors: Tensor, maps: Tensor | None, rows: Tensor, priors: dict[str, Tensor] | None) -> Window:
        """Assemble windows: ``rows (B, T)`` are indices into ``vectors``, -1 for absent frames."""
        present = rows >= 0
        features = vectors.new_zeros(*rows.shape, vectors.shape[-1])
        features[present] = vectors[rows[present]]
        centre_map = None
        if maps is not None:
            centres = rows[:, rows.shape[1] // 2]
            centre_map = maps.new_zeros(len(rows), *maps.shape[1:])
            centre_map[centres >= 0] = maps[centres[centres >= 0]]
        return Window(features, present, centre_map, priors)

    def forward(self, images: Tensor, present: Tensor, priors: dict[str, Tensor] | None = None) -> Tensor:
        """Return logits ``(B, 2)``, class 1 = looking, for ``images (B, T, 3, H, W)`` and ``present (B, T)``.

        With precomputed features, call ``model.head(window)`` instead.
        """
        return self.head(self.encode(images, present, priors))

    def judge(self, batch: PixelWindow) -> Tensor:
        """Return logits ``(B, 2)``, class 1 = looking, for windows of pixels."""
        return self.head(self.encode_pixels(batch))


def without_weights(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Return a backbone's configuration without the arguments that choose its weights."""
    bare = {key: value for key, value in backbone.items() if key not in ("weights", "pretrained", "frozen")}
    pretrained = inspect.signature(BACKBONES.get(backbone["type"])).parameters.get("pretrained")
    if pretrained is not None and pretrained.default is True:
        bare["pretrained"] = False
    return bare


def _named_elsewhere(backbone: Mapping[str, Any]) -> str | None:
    """Name what a backbone's configuration needs from outside its file: weights, a folder or a repository; or None."""
    if backbone != without_weights(backbone):
        return "separate weights"
    return next((repr(value) for value in backbone.values() if isinstance(value, str) and "/" in value), None)


def write_model(
    path: Path, model: LookingAtMeModel, backbone: Mapping[str, Any], head: Mapping[str, Any], **about: Any
) -> str:
    """Write the weights and configurations of backbone and head to one file, for `read_model`.

    Args:
        path: a ``.safetensors`` file.
        model: trained model.
        backbone: ``dict(type=NAME, **arguments)``. Arguments that choose its weights are dropped: the file has them.
        head: ``dict(type=NAME, **arguments)``. feature_dim and window are added.
        **about: more metadata.

    Returns:
        The file's sha256.
    """
    bare = without_weights(backbone)
    head = {**head, "feature_dim": model.head.feature_dim, "window": model.head.window}
    return write_weights(path, model.state_dict(), {**about, "backbone": bare, "head": head})


def read_model(path: Path) -> LookingAtMeModel:
    """Read a model written by `write_model`, or by `import --as gazelstm` or `--as gazepose`.

    Returns:
        The model in evaluation mode, with a frozen backbone.

    Raises:
        UserError: the file is damaged, lacks the backbone or the head, or has tensors that do not fit.
    """
    state, about = read_weights(path)
    backbone, head = about.get("backbone"), about.get("head")
    if not isinstance(backbone, dict) or "type" not in backbone or not isinstance(head, dict):
        raise UserError(
            f"weights {path} are not those of a backbone and its head; use a file that export or import wrote"
        )
    numbers = sum(tensor.numel() for tensor in state.values())
    try:
        if elsewhere := _named_elsewhere(backbone):
            raise UserError(f"its backbone refers to {elsewhere}; a model file must hold its backbone's weights itself")
        with at_most(len(state), numbers, "it"), nothing_fetched():
            built: Backbone = BACKBONES.build(backbone)
    except UserError as error:
        raise UserError(f"weights {path}: {error}") from error
    head = build_head({**head, "feature_dim": built.feature_dim}, state, str(path), prefix="head.")
    try:
        model = LookingAtMeModel(built, head)
    except UserError as error:
        raise UserError(f"weights {path}: {error}") from error
    check_state(state, model.state_dict(), str(path))
    model.load_state_dict(state)
    licence = about.get("licence") or "unknown"
    model.backbone.weights_info = WeightsInfo(path.name, str(path), file_sha256(path), licence)
    return model.eval()


def initialise_lstm(head: Head, path: Path) -> dict[str, Any] | None:
    """Initialise a head's LSTM from an imported file, such as Gaze360's, which holds one beside the trunk.

    Returns:
        File name, kind of import, and tensors used. None if the file has no LSTM of these shapes.

    Raises:
        UserError: the file is missing or damaged.
    """
    state, about = read_weights(path)
    wanted = {name: tensor.shape for name, tensor in head.state_dict().items() if name.startswith("lstm.")}
    found = {name: state[f"head.{name}"] for name in wanted if f"head.{name}" in state}
    if not wanted or {name: tensor.shape for name, tensor in found.items()} != wanted:
        return None
    head.load_state_dict(found, strict=False)
    return {"file": path.name, "kind": about.get("kind"), "tensors": "lstm.*"}
