"""Windows over an array of features; a batch is one gather."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from heads.base import Window
from registry import UserError

if TYPE_CHECKING:
    pass


class WindowData(Dataset):
    """Windows over an array of features; a batch is one gather.

    Args:
        features: (N, D) floats of whatever size, one row a frame and view.
        rows: (M, T) int64, rows of `features`, -1 where the frame is absent.
        labels: (M,) int64; 1 looking, 0 not, -1 unknown.
    """

    score_batch = 256  # windows; what a head computes for them at once stays near the processor

    def __init__(self, features: Tensor, rows: np.ndarray, labels: np.ndarray) -> None:
        # One more row, of zeros, is that of all absent frames, so they need no case of their own.
        self.features = torch.cat([features, features.new_zeros(1, features.shape[1])])
        self.rows = torch.from_numpy(np.where(rows >= 0, rows, len(features)))
        self.labels = torch.from_numpy(np.ascontiguousarray(labels))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: Tensor | slice) -> tuple[Window, Tensor]:
        """A batch: Window of B windows, labels (B,)."""
        rows = self.rows[places]
        # Twice as fast as indexing with rows.
        features = self.features.index_select(0, rows.flatten()).view(*rows.shape, -1)
        return Window(features=features, present=self._present(rows)), self.labels[places]

    def shared(self, places: slice) -> tuple[Tensor, Tensor, Tensor]:
        """A batch whose frames come once each, as `Head.judge` takes them: features (U, D), rows (B, T), present."""
        rows = self.rows[places]
        frames, of_frames = rows.unique(return_inverse=True)
        return self.features.index_select(0, frames), of_frames, self._present(rows)

    def _present(self, rows: Tensor) -> Tensor:
        return rows < len(self.features) - 1

    def on(self, device: torch.device) -> WindowData:
        """The same windows on a GPU if their features fit into half of its free memory; else these here.

        Batches are then gathered there, and nothing travels during a training.
        """
        size = self.features.numel() * self.features.element_size()
        if device.type != "cuda" or size > torch.cuda.mem_get_info(device)[0] // 2:
            return self
        moved = copy.copy(self)
        moved.features, moved.rows, moved.labels = (
            tensor.to(device) for tensor in (self.features, self.rows, self.labels)
        )
        return moved


def check_takes_features(name: str, head: Any) -> None:
    """Raise a UserError where a head, or its class, needs more than windows of features."""
    needed = [*(["the key frame's map"] if head.map_channels is not None else []), *head.needs_priors]
    if needed:
        raise UserError(f"head {name} needs {', '.join(needed)}; windows of features do not have them")
