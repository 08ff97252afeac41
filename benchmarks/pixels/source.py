"""The pixels that the recipes of one trainable backbone train and score on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor

from backbones.base import Backbone
from benchmarks.data.frames import tracks
from benchmarks.pixels.crops import Crops
from benchmarks.pixels.windows import PixelData, as_tensors
from benchmarks.priors.base import Prior, Priors
from registry import BACKBONES

if TYPE_CHECKING:
    from benchmarks.data.windows import KeyFrames


@dataclass
class PixelSource:
    """Pixels of every frame that some window of a group of recipes touches; the part `Features` has otherwise.

    Attributes:
        crops: split -> its crops.
        positions: split -> (rows of the frame table,) int64, crops by number, -1 where there is none.
        tables: split -> frame table.
        backbone: the record's section of that name.
        seconds: what decoding all of it took.
        damaged: image paths left out.
        sharpness: split -> (rows,) p of `cumulative_normal`, where blurred frames are to be dropped.
        provider: of priors, where the head needs any.
    """

    crops: dict[str, Crops]
    positions: dict[str, np.ndarray]
    tables: Mapping[str, pd.DataFrame]
    backbone: dict[str, Any]
    seconds: float
    damaged: list[str]
    sharpness: dict[str, np.ndarray] | None = None
    provider: Prior | None = None

    def window_data(self, plan: KeyFrames, split: str, views: Sequence[str]) -> PixelData:
        """The windows over the pixels of one or several views; each window comes once a view."""
        rows = np.where(plan.rows >= 0, self.positions[split][plan.rows], -1)
        shift = [len(self.crops[split]) if view == "flipped" else 0 for view in views]
        of_track = tracks(self.tables[split])[plan.centres]
        p = None if self.sharpness is None else np.where(rows >= 0, self.sharpness[split][plan.rows], 0.0)
        return PixelData(
            self.crops[split],
            np.concatenate([np.where(rows >= 0, rows + more, -1) for more in shift]),
            np.tile(plan.labels, len(views)),
            # A view's last track and the next one's first must not be one.
            np.concatenate([of_track + number * (int(of_track.max(initial=0)) + 1) for number in range(len(views))]),
            self._priors_of(plan, split, views),
            None if p is None else np.tile(p, (len(views), 1)),
        )

    def _priors_of(self, plan: KeyFrames, split: str, views: Sequence[str]) -> dict[str, Tensor] | None:
        if self.provider is None:
            return None
        found = self.provider.read(self.tables[split].iloc[plan.centres])
        by_view = [found.mirrored() if view == "flipped" else found for view in views]
        return as_tensors(Priors(*(np.concatenate(parts) for parts in zip(*by_view, strict=True))))


def build_backbone(config: Mapping[str, Any], seed: int) -> Backbone:
    """Build a backbone that trains. Where its weights are random and no seed is named, the training's draws them."""
    backbone: Backbone = BACKBONES.build(config)
    takes_seed = "seed" in inspect.signature(BACKBONES.get(config["type"])).parameters
    if backbone.weights_info.random_init and takes_seed and "seed" not in config:
        backbone = BACKBONES.build({**config, "seed": seed})
    return backbone
