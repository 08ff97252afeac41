"""A backbone and a head, joined; nowhere else are they."""

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

PASS = 64  # frames a forward pass where no gradient is wanted: what is kept of a pass is its vectors


@dataclass
class PixelWindow:
    """A batch of windows whose frames are pixels; windows overlap, so each frame comes once.

    Attributes:
        pixels: ``(U, size, size, 3)`` uint8, RGB, as the backbone's preprocessing makes them.
        rows: ``(B, T)`` int64, places in ``pixels``, -1 where a frame is absent.
        priors: of the key frames, by name, ``(B, ...)`` each, for heads that need them.
    """

    pixels: Tensor
    rows: Tensor
    priors: dict[str, Tensor] | None = None

    def to(self, device: str | torch.device) -> "PixelWindow":
        """Return the same windows on ``device``."""
        priors = self.priors and {name: tensor.to(device) for name, tensor in self.priors.items()}
        return replace(self, pixels=self.pixels.to(device), rows=self.rows.to(device), priors=priors)


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
        rows = present.long().flatten().cumsum(0).view_as(present) - 1  # numbers those that are there
        return self._window(*self._vectors(images[present]), rows.masked_fill(~present, -1), priors)

    def encode_pixels(self, batch: PixelWindow) -> Window:
        """Do the same for frames that several windows share, each of which runs through the backbone once.

        Outside of training it does so `PASS` frames at a time, since then no frame has a say in another's vector.
        """
        size = max(1, len(batch.pixels)) if self.training and not self.backbone.frozen else PASS
        passes = [self._vectors(self.backbone.preprocessing.normalise(part)) for part in batch.pixels.split(size)]
        maps = [own for _, own in passes if own is not None]
        return self._window(
            torch.cat([vectors for vectors, _ in passes]), torch.cat(maps) if maps else None, batch.rows, batch.priors
        )

    def _vectors(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Vectors ``(U, D)`` of normalised ``images (U, 3, H, W)``, and their maps where the head looks at one."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.backbone.frozen):
            if self.head.map_channels is None:
                return self.backbone(images), None
            backbone: Any = self.backbone  # one that has maps
            return backbone.forward_map(images)

    def _window(self, vectors: Tensor, maps: Tensor | None, rows: Tensor, priors: dict[str, Tensor] | None) -> Window:
        """Give each place of the windows the vector of its frame: ``rows (B, T)`` are places in ``vectors``."""
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

        Where features are at hand, call ``model.head(window)`` instead.
        """
        return self.head(self.encode(images, present, priors))

    def judge(self, batch: PixelWindow) -> Tensor:
        """Return logits ``(B, 2)`` of windows of pixels."""
        return self.head(self.encode_pixels(batch))


def without_weights(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's configuration less what says where its weights come from."""
    bare = {key: value for key, value in backbone.items() if key not in ("weights", "pretrained", "frozen")}
    pretrained = inspect.signature(BACKBONES.get(backbone["type"])).parameters.get("pretrained")
    if pretrained is not None and pretrained.default is True:
        bare["pretrained"] = False
    return bare


def _named_elsewhere(backbone: Mapping[str, Any]) -> str | None:
    """What a backbone's configuration names that is not in its file: weights, or a folder or repository; or None."""
    if backbone != without_weights(backbone):
        return "weights of its own"
    return next((repr(value) for value in backbone.values() if isinstance(value, str) and "/" in value), None)


def write_model(
    path: Path, model: LookingAtMeModel, backbone: Mapping[str, Any], head: Mapping[str, Any], **about: Any
) -> str:
    """Write both parts with what builds them, for `read_model`.

    Args:
        path: a ``.safetensors`` file.
        model: trained.
        backbone: ``dict(type=NAME, **arguments)``; what says where its weights came from is left out, they are here.
        head: the same; feature_dim and window are added.
        **about: what else to remember.

    Returns:
        The file's sha256.
    """
    bare = without_weights(backbone)
    head = {**head, "feature_dim": model.head.feature_dim, "window": model.head.window}
    return write_weights(path, model.state_dict(), {**about, "backbone": bare, "head": head})


def read_model(path: Path) -> LookingAtMeModel:
    """Build the backbone and the head that `write_model`, or `import --as gazelstm` or `gazepose`, wrote.

    Returns:
        The model in evaluation mode, its backbone frozen.

    Raises:
        UserError: a damaged file, one that does not hold both, or tensors that do not fit.
    """
    state, about = read_weights(path)
    backbone, head = about.get("backbone"), about.get("head")
    if not isinstance(backbone, dict) or "type" not in backbone or not isinstance(head, dict):
        raise UserError(f"weights {path} are not those of a backbone and its head; import --as gazelstm makes such")
    numbers = sum(tensor.numel() for tensor in state.values())
    try:
        if elsewhere := _named_elsewhere(backbone):
            raise UserError(f"its backbone names {elsewhere}; a model's file has all that its backbone needs in it")
        with at_most(len(state), numbers, "it"), nothing_fetched():
            built: Backbone = BACKBONES.build(backbone)
    except UserError as error:
        raise UserError(f"weights {path}: {error}") from error
    head = build_head({**head, "feature_dim": built.feature_dim}, state, str(path), prefix="head.")
    try:
        model = LookingAtMeModel(built, head)
    except UserError as error:
        raise UserError(f"weights {path}: {error}") from error
    check_state(
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        str(path),
    )
    model.load_state_dict(state)
    licence = about.get("licence") or "unknown"
    model.backbone.weights_info = WeightsInfo(path.name, str(path), file_sha256(path), licence)
    return model.eval()


def initialise_lstm(head: Head, path: Path) -> dict[str, Any] | None:
    """Give a head's LSTM the weights that a file of `import` has for it: Gaze360's, beside the trunk.

    Returns:
        The file's name, what was imported, and the tensors taken; None where the file has no LSTM of these shapes.

    Raises:
        UserError: the file does not exist or is damaged.
    """
    state, about = read_weights(path)
    wanted = {name: tensor.shape for name, tensor in head.state_dict().items() if name.startswith("lstm.")}
    found = {name: state[f"head.{name}"] for name in wanted if f"head.{name}" in state}
    if not wanted or {name: tensor.shape for name, tensor in found.items()} != wanted:
        return None
    head.load_state_dict(found, strict=False)
    return {"file": path.name, "kind": about.get("kind"), "tensors": "lstm.*"}
