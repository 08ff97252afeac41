"""The features that the recipes of one backbone train and score on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.data.windows import KeyFrames
from benchmarks.features.windows import FeatureData


@dataclass
class FeatureSource:
    """Features of every frame in the windows of a group of recipes.

    Attributes:
        arrays: (split, view) -> (N, D) tensor.
        positions: split -> (rows of the frame table,) int64 rows of the arrays, -1 where the frame was not encoded.
        backbone: record section `backbone`.
        seconds: time to encode all of them, in this run or an earlier one.
        damaged: paths of skipped crops.
    """

    arrays: dict[tuple[str, str], torch.Tensor]
    positions: dict[str, np.ndarray]
    backbone: dict[str, Any]
    seconds: float
    damaged: list[str]

    def windows(self, key_frames: KeyFrames, split: str, views: Sequence[str]) -> FeatureData:
        """The windows around key frames, once per view."""
        rows = np.where(key_frames.rows >= 0, self.positions[split][key_frames.rows], -1)
        count = len(self.arrays[split, views[0]])
        shifted = [np.where(rows >= 0, rows + number * count, -1) for number in range(len(views))]
        features = torch.cat([self.arrays[split, view] for view in views])
        return FeatureData(features, np.concatenate(shifted), np.tile(key_frames.labels, len(views)))
