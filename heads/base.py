"""The contract of temporal heads: `Window` in, logits out."""

from dataclasses import dataclass, fields, replace
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from registry import UserError

# Bounds of arguments, checked when a recipe is resolved: widths, numbers of layers, and probabilities of dropout.
Size = Annotated[int, Meta(ge=1, le=65_536)]
Depth = Annotated[int, Meta(ge=1, le=100)]
Share = Annotated[float, Meta(ge=0, lt=1)]


@dataclass
class Window:
    """A batch of windows: T frames of one track around the key frame, which is frame ``T // 2``.

    Attributes:
        features: ``(B, T, D)``, one vector per frame.
        present: ``(B, T)`` bool, False where the track has no frame or the frame has no image. The contents of
            ``features`` at absent frames are undefined; use `zeroed`.
        centre_map: ``(B, C, H, W)`` feature map of the key frame, for heads that need spatial detail.
        priors: estimates about the key frame by name, such as head pose, each ``(B, ...)``.
    """

    features: Tensor
    present: Tensor
    centre_map: Tensor | None = None
    priors: dict[str, Tensor] | None = None

    def zeroed(self) -> Tensor:
        """Return ``features`` with zero vectors in place of the absent frames, ``(B, T, D)``."""
        return self.features.masked_fill(~self.present[..., None], 0.0)

    def to(self, device: str | torch.device) -> "Window":
        """Return the windows on ``device`` with features in float32."""
        if self.features.device == torch.device(device) and self.features.dtype == torch.float32:
            return self
        moved: dict = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                moved[field.name] = {name: tensor.to(device) for name, tensor in value.items()}
            elif value is not None:
                moved[field.name] = value.to(device)
        return replace(self, **moved | {"features": moved["features"].float()})


def in_float32(recurrent: nn.Module, x: Tensor) -> Tensor:
    """Return the outputs of recurrent layers for frames ``x``; on a GPU always computed in float32.

    Under autocast of any dtype cuDNN's recurrent layers compute in float16, whose gradients underflow without a scaler.
    """
    if not x.is_cuda:
        return recurrent(x)[0]
    with torch.autocast(x.device.type, enabled=False):
        return recurrent(x.float())[0]


class Head(nn.Module):
    """Base class of heads: windows of features -> logits for the key frame; its neighbours are context.

    A subclass takes ``(feature_dim, window, **own_arguments)``, all annotated, all but ``feature_dim`` with defaults,
    and implements `forward`. A head with a closed-form fit also has ``fit(window, labels, class_weight)``, with labels
    ``(B,)`` int64 and class_weight ``(2,)``. It is called once, with all training windows.

    Attributes:
        map_channels: C if the head needs ``Window.centre_map``, else None.
        needs_priors: names of the ``Window.priors`` that the head needs.

    Args:
        feature_dim: D, features per frame.
        window: T, frames per window, odd.

    Example:
        >>> class Mean(Head):
        ...     "The mean of the frames that are present; features 0 and 1 are the logits."
        ...
        ...     def forward(self, window):
        ...         count = window.present.sum(1, keepdim=True).clamp(min=1)
        ...         return (window.zeroed().sum(1) / count)[:, :2]
        >>> features = torch.tensor([[[0.0, 2.0], [4.0, 4.0], [9.0, 9.0]]])  # (B, T, D) = (1, 3, 2)
        >>> present = torch.tensor([[True, True, False]])
        >>> Mean(feature_dim=2, window=3)(Window(features, present)).tolist()
        [[2.0, 3.0]]
    """

    map_channels: int | None = None
    needs_priors: tuple[str, ...] = ()

    def __init__(self, feature_dim: int, window: int = 7) -> None:
        super().__init__()
        if feature_dim < 1:
            raise UserError(f"a head's feature_dim must be at least 1, got {feature_dim}")
        if window < 1 or window % 2 == 0:
            raise UserError(f"a head's window must be an odd number of frames, got {window}")
        self.feature_dim = feature_dim
        self.window = window

    def forward(self, window: Window) -> Tensor:
        """Return logits ``(B, 2)``; class 1 is looking at the camera wearer. Absent frames must not affect them."""
        raise NotImplementedError

    def encode(self, features: Tensor) -> Tensor:
        """Do the per-frame part of scoring, ``(N, D)`` -> ``(N, E)``; by default nothing.

        Windows of neighbouring key frames share most of their frames. A head whose first layers act on single frames
        runs them here, once per frame, and overrides `judge` too.
        """
        return features

    def judge(self, encoded: Tensor, rows: Tensor, present: Tensor) -> Tensor:
        """Return logits ``(B, 2)`` of windows that share frames, equal to those of `forward` up to rounding.

        Args:
            encoded: ``(N, E)``, output of `encode` for N frames.
            rows: ``(B, T)`` int64, indices into ``encoded``; absent frames point to an encoded zero vector.
            present: ``(B, T)`` bool, as in `Window`.
        """
        return self(Window(encoded[rows], present))

    def require(self, window: Window) -> None:
        """Check that a window has the map and the priors that the head needs; for use in `forward`.

        Raises:
            UserError: the map or a prior is missing.
        """
        name = type(self).__name__
        if self.map_channels is not None and window.centre_map is None:
            raise UserError(f"head {name} needs the key frame's feature map; it runs on images, behind gaze_resnet18")
        for prior in self.needs_priors:
            if prior not in (window.priors or {}):
                given = ", ".join(sorted(window.priors or {})) or "none"
                raise UserError(f"head {name} needs the prior '{prior}' of the key frame (given: {given})")
