"""P(looking) of windows of features or of pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.features.windows import FeatureData
from benchmarks.pixels.windows import PixelData
from benchmarks.system.ahead import made_ahead
from heads.base import Head, Window
from registry import UserError
from zoo.model import LookingAtMeModel, PixelWindow


class NotFiniteError(UserError):
    """Scores that are NaN."""


def logits(model: nn.Module, batch: Window | PixelWindow) -> Tensor:
    """Compute logits (B, 2), with a head for windows of features or a whole model for windows of pixels."""
    if isinstance(batch, PixelWindow):
        assert isinstance(model, LookingAtMeModel)
        return model.judge(batch)
    return model(batch)


def probabilities(found: Tensor) -> np.ndarray:
    """P(looking) of logits (B, 2), float64 (B,).

    The softmax is computed in float64. In float32, confident scores would tie at 1.0, and ties cost average precision.

    Raises:
        NotFiniteError: a score is NaN.
    """
    scores = found.double().softmax(dim=1)[:, 1].cpu().numpy()
    bad = np.count_nonzero(~np.isfinite(scores))
    if bad:
        raise NotFiniteError(f"{bad} of {len(scores)} scores are NaN: the model's weights, or its features, overflow")
    return scores


@torch.inference_mode()
def score_windows(
    model: nn.Module,
    data: FeatureData | PixelData,
    *,
    batch_size: int | None = None,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Compute P(looking) of every window, float64 (M,). Frames that windows of a batch share are encoded once.

    Args:
        model: a head, or backbone and head for windows of pixels; on `device`.
        data: M windows.
        batch_size: windows per batch; None for the default of the data.
        device: torch device.
    """
    model.eval()
    size = batch_size or data.score_batch
    parts = [range(start, min(start + size, len(data))) for start in range(0, len(data), size)]
    found = []
    if isinstance(data, FeatureData):
        assert isinstance(model, Head)
        for part in parts:
            features, *windows = (each.to(device) for each in data.shared(slice(part.start, part.stop)))
            found.append(probabilities(model.judge(model.encode(features.float()), *windows)))
    else:
        for batch, _ in made_ahead(data[part] for part in parts):
            found.append(probabilities(logits(model, batch.to(device))))
    return np.concatenate(found) if found else np.empty(0)
