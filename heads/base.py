"""What a head is given, and what it gives back."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from registry import UserError


@dataclass
class Window:
    """A batch of windows: T frames of one track around the key frame, which is frame ``T // 2``.

    Attributes:
        features: ``(B, T, D)``, one vector a frame.
        present: ``(B, T)`` bool, False where the track has no frame or the frame has no image. What ``features`` holds
            there is nobody's business: read it through `zeroed`.
        centre_map: ``(B, C, H, W)`` feature map of the key frame, for heads that look inside the image.
        priors: what estimators say about the key frame, by name, ``(B, ...)`` each.
    """

    features: Tensor
    present: Tensor
    centre_map: Tensor | None = None
    priors: dict[str, Tensor] | None = None

    def zeroed(self) -> Tensor:
        """Return ``features`` with zero vectors in place of the absent frames, ``(B, T, D)``."""
        return self.features.masked_fill(~self.present[..., None], 0.0)

    def to(self, device: str | torch.device) -> "Window":
        """Return the same windows on ``device``, the features in float32 whatever they were kept in."""
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


class Head(nn.Module):
    """Windows of features -> logits; the key frame is what is judged, its neighbours are context.

    A subclass takes ``(feature_dim, window, **its own arguments)``, each annotated and with a default, and implements
    `forward`. One that is solved rather than descended to has ``fit(window, labels, class_weight)`` as well, with
    labels ``(B,)`` int64 and class_weight ``(2,)``; it is called once, with all windows there are.

    Attributes:
        map_channels: C of the key frame's map for a head that needs ``Window.centre_map``, else None.
        needs_priors: names of the ``Window.priors`` that it needs.

    Args:
        feature_dim: D, numbers a frame.
        window: T, frames a window, odd.
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
        """Return logits ``(B, 2)``; class 1 is looking at the camera's wearer. Absent frames have no say."""
        raise NotImplementedError

    def encode(self, features: Tensor) -> Tensor:
        """Return what `judge` needs of each frame, ``(N, D)`` -> ``(N, E)``; here the features as they are.

        Windows around neighbouring key frames share most of their frames. A head that works on each frame by itself
        before it looks at windows does that here, once a frame, when windows are scored. It overrides `judge` too.
        """
        return features

    def judge(self, encoded: Tensor, rows: Tensor, present: Tensor) -> Tensor:
        """Return the logits ``(B, 2)`` of windows that share frames; they are those of `forward`, up to rounding.

        Args:
            encoded: ``(N, E)``, what `encode` returned for the features of N frames.
            rows: ``(B, T)`` int64, places in ``encoded``; an absent frame's is that of a zero vector.
            present: ``(B, T)`` bool, as in `Window`.
        """
        return self(Window(encoded[rows], present))

    def require(self, window: Window) -> None:
        """Check that a window has the map and the priors that the head needs; `forward` calls it where it needs any.

        Raises:
            UserError: one is missing; says which.
        """
        name = type(self).__name__
        if self.map_channels is not None and window.centre_map is None:
            raise UserError(f"head {name} needs the key frame's feature map; it runs on images, behind gaze_resnet18")
        for prior in self.needs_priors:
            if prior not in (window.priors or {}):
                given = ", ".join(sorted(window.priors or {})) or "none"
                raise UserError(f"head {name} needs the prior '{prior}' of the key frame (given: {given})")
