"""The features that the recipes of one backbone train and score on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.data.windows import KeyFrames

if TYPE_CHECKING:
    import torch

    from benchmarks.features.windows import WindowData


@dataclass
class FeatureSource:
    """Features of every frame that some window of a group of recipes touches.

    Attributes:
        arrays: (split, view) -> (N, D) tensor.
        positions: split -> (rows of the frame table,) int64, place in the arrays, -1 where not encoded.
        backbone: the record's section of that name.
        seconds: what encoding all of it took, whenever that was.
        damaged: image paths left out.
    """

    arrays: dict[tuple[str, str], torch.Tensor]
    positions: dict[str, np.ndarray]
    backbone: dict[str, Any]
    seconds: float
    damaged: list[str] = field(default_factory=list)

    def window_data(self, plan: KeyFrames, split: str, views: Sequence[str]) -> WindowData:
        """The windows over the features of one or several views; each window comes once a view."""
        import torch

        from benchmarks.features.windows import WindowData

        rows = np.where(plan.rows >= 0, self.positions[split][plan.rows], -1)
        count = len(self.arrays[split, views[0]])
        shifted = [np.where(rows >= 0, rows + number * count, -1) for number in range(len(views))]
        features = torch.cat([self.arrays[split, view] for view in views])
        return WindowData(features, np.concatenate(shifted), np.tile(plan.labels, len(views)))
