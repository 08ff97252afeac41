"""Windows over an array of features."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from heads.base import Window
from registry import UserError


class FeatureData(Dataset):
    """Windows over an array of features; a batch is one gather.

    Args:
        features: (N, D) floats of any dtype, one row per frame and view.
        rows: (M, T) int64 rows of `features`, -1 where the frame is absent.
        labels: (M,) int64; 1 looking, 0 not looking, -1 unknown.
    """

    score_batch = 256  # windows; a head's activations for them stay in the CPU's caches

    def __init__(self, features: Tensor, rows: np.ndarray, labels: np.ndarray) -> None:
        # Absent frames refer to an extra row of zeros, so that a gather needs no special case for them.
        self.features = torch.cat([features, features.new_zeros(1, features.shape[1])])
        self.rows = torch.from_numpy(np.where(rows >= 0, rows, len(features)))
        self.labels = torch.from_numpy(np.ascontiguousarray(labels))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: Tensor | slice) -> tuple[Window, Tensor]:
        """A batch of B windows and their labels (B,)."""
        rows = self.rows[places]
        # index_select is twice as fast as self.features[rows].
        features = self.features.index_select(0, rows.flatten()).view(*rows.shape, -1)
        return Window(features=features, present=self._present(rows)), self.labels[places]

    def shared(self, places: slice) -> tuple[Tensor, Tensor, Tensor]:
        """A batch with each frame once, for `Head.judge`: features (U, D), rows (B, T) of them, present (B, T)."""
        rows = self.rows[places]
        frames, of_frames = rows.unique(return_inverse=True)
        return self.features.index_select(0, frames), of_frames, self._present(rows)

    def _present(self, rows: Tensor) -> Tensor:
        return rows < len(self.features) - 1

    def on(self, device: torch.device) -> FeatureData:
        """Move the windows to a GPU if their features fit into half of its free memory; else return these.

        Batches are then gathered on the GPU, without transfers during a training.
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
    """Check that windows of features are enough for a head.

    Args:
        name: of the head.
        head: the head or its class.

    Raises:
        UserError: the head needs the key frame's map, or priors.
    """
    needed = [*(["the key frame's map"] if head.map_channels is not None else []), *head.needs_priors]
    if needed:
        raise UserError(f"head {name} needs {', '.join(needed)}; windows of features do not have them")
