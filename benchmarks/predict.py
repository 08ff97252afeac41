"""Windows to scores: P(looking) of every key frame, one view after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from heads.base import Window
from registry import UserError
from zoo.model import LookingAtMeModel, PixelWindow

if TYPE_CHECKING:
    from benchmarks.pixels import PixelData


class WindowData(Dataset):
    """Windows over an array of features; a batch is one gather.

    Args:
        features: (N, D) floats, one row a frame and view.
        rows: (M, T) int64, rows of `features`, -1 where the frame is absent.
        labels: (M,) int64; 1 looking, 0 not, -1 unknown.
    """

    metainfo: dict = {}  # mmengine warns about data sets that have none
    score_batch = 1024  # windows

    def __init__(self, features: Tensor, rows: np.ndarray, labels: np.ndarray) -> None:
        # One more row, of zeros: -1 is its index too, so absent frames need no case of their own.
        self.features = torch.cat([features.float(), torch.zeros(1, features.shape[1])])
        self.rows = torch.from_numpy(np.ascontiguousarray(rows))
        self.labels = torch.from_numpy(np.ascontiguousarray(labels))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Window, Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> tuple[Window, Tensor]:
        """A whole batch at once: Window of B windows, labels (B,). torch's DataLoader asks for batches this way."""
        rows = self.rows[indices]
        return Window(features=self.features[rows], present=rows >= 0), self.labels[indices]

    def all(self) -> tuple[Window, Tensor]:
        """Every window in one batch."""
        return self.__getitems__(range(len(self)))


def check_takes_features(name: str, head: Any) -> None:
    """Raise a UserError where a head, or its class, needs more than windows of features."""
    needed = [*(["the key frame's map"] if head.map_channels is not None else []), *head.needs_priors]
    if needed:
        raise UserError(f"head {name} needs {', '.join(needed)}; windows of features do not have them")


def logits(model: nn.Module, batch: Window | PixelWindow) -> Tensor:
    """Logits (B, 2): of a head for windows of features, of a whole model for windows of pixels."""
    if isinstance(batch, PixelWindow):
        assert isinstance(model, LookingAtMeModel)
        return model.judge(batch)
    return model(batch)


def probabilities(model: nn.Module, batch: Any) -> np.ndarray:
    """P(looking), float64 (B,).

    Softmax is taken in float64: confident scores would tie at 1.0 in float32, and ties cost average precision.
    """
    return logits(model, batch).double().softmax(dim=1)[:, 1].cpu().numpy()


@torch.inference_mode()
def scores(
    model: nn.Module, data: WindowData | PixelData, *, batch_size: int | None = None, device: str | torch.device = "cpu"
) -> np.ndarray:
    """P(looking) of every window, float64 (M,).

    Args:
        model: a head, or backbone and head for windows of pixels; on `device`.
        data: M windows.
        batch_size: windows at once; None for what suits the data.
        device: where to compute.
    """
    model.eval()
    size = batch_size or data.score_batch
    found = []
    for start in range(0, len(data), size):
        batch, _ = data.__getitems__(range(start, min(start + size, len(data))))
        found.append(probabilities(model, batch.to(device)))
    return np.concatenate(found) if found else np.empty(0)
