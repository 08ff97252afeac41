"""Windows to scores: P(looking) of every key frame, one view after another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from heads.base import Head, Window


class WindowData(Dataset):
    """Windows over an array of features; a batch is one gather.

    Args:
        features: (N, D) floats, one row a frame and view.
        rows: (M, T) int64, rows of `features`, -1 where the frame is absent.
        labels: (M,) int64; 1 looking, 0 not, -1 unknown.
    """

    metainfo: dict = {}  # mmengine warns about data sets that have none

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


@torch.inference_mode()
def scores(head: Head, data: WindowData, *, batch_size: int = 1024, device: str | torch.device = "cpu") -> np.ndarray:
    """P(looking) of every window, float64 (M,).

    Softmax is taken in float64: confident scores would tie at 1.0 in float32, and ties cost average precision.
    """
    head.eval()
    probabilities = []
    for start in range(0, len(data), batch_size):
        window, _ = data.__getitems__(range(start, min(start + batch_size, len(data))))
        probabilities.append(head(window.to(device)).double().softmax(dim=1)[:, 1].cpu().numpy())
    return np.concatenate(probabilities) if probabilities else np.empty(0)
