"""Windows to scores: P(looking) of every key frame, one view after another."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from heads.base import Head, Window
from registry import UserError
from zoo.model import LookingAtMeModel, PixelWindow

if TYPE_CHECKING:
    from benchmarks.pixels import PixelData


class WindowData(Dataset):
    """Windows over an array of features; a batch is one gather.

    Args:
        features: (N, D) floats of whatever size, one row a frame and view.
        rows: (M, T) int64, rows of `features`, -1 where the frame is absent.
        labels: (M,) int64; 1 looking, 0 not, -1 unknown.
    """

    metainfo: dict = {}  # mmengine warns about data sets that have none
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


def logits(model: nn.Module, batch: Window | PixelWindow) -> Tensor:
    """Logits (B, 2): of a head for windows of features, of a whole model for windows of pixels."""
    if isinstance(batch, PixelWindow):
        assert isinstance(model, LookingAtMeModel)
        return model.judge(batch)
    return model(batch)


def probabilities(found: Tensor) -> np.ndarray:
    """P(looking) of logits (B, 2), float64 (B,).

    Softmax is taken in float64: confident scores would tie at 1.0 in float32, and ties cost average precision.
    """
    return found.double().softmax(dim=1)[:, 1].cpu().numpy()


@torch.inference_mode()
def scores(
    model: nn.Module, data: WindowData | PixelData, *, batch_size: int | None = None, device: str | torch.device = "cpu"
) -> np.ndarray:
    """P(looking) of every window, float64 (M,). Frames that windows of a batch share are encoded once.

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
        stop = min(start + size, len(data))
        if isinstance(data, WindowData):
            assert isinstance(model, Head)
            features, *windows = (part.to(device) for part in data.shared(slice(start, stop)))
            found.append(probabilities(model.judge(model.encode(features.float()), *windows)))
        else:
            batch, _ = data.__getitems__(range(start, stop))
            found.append(probabilities(logits(model, batch.to(device))))
    return np.concatenate(found) if found else np.empty(0)
