"""The pixels that the recipes of one trainable backbone train and score on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backbones.base import Backbone
from benchmarks.config.recipe import Recipe
from benchmarks.data.windows import KeyFrames
from benchmarks.pixels.crops import Crops
from benchmarks.pixels.windows import CropRows, PixelData
from benchmarks.priors.base import Prior, Priors
from registry import BACKBONES, UserError
from zoo.weights import read_weights


@dataclass
class PixelSource:
    """Crops of every frame in the windows of a group of recipes whose backbone trains.

    Attributes:
        crops: split -> crops.
        positions: split -> (rows of the frame table,) int64 crop numbers, -1 where there is no crop.
        tables: split -> frame table.
        backbone: record section `backbone`.
        seconds: time to decode the crops.
        damaged: paths of skipped crops.
        sharpness: split -> (rows,) p of `cumulative_normal`, if blurred frames are to be dropped.
        prior: for heads that need one.
        published_faults: show blurred key frames of the test split as black.
    """

    crops: dict[str, Crops]
    positions: dict[str, np.ndarray]
    tables: Mapping[str, pd.DataFrame]
    backbone: dict[str, Any]
    seconds: float
    damaged: list[str]
    sharpness: dict[str, np.ndarray] | None = None
    prior: Prior | None = None
    published_faults: bool = False

    def windows(self, key_frames: KeyFrames, split: str, views: Sequence[str]) -> PixelData:
        """The windows around key frames, once per view."""
        rows = np.where(key_frames.rows >= 0, self.positions[split][key_frames.rows], -1)
        shift = [len(self.crops[split]) if view == "flipped" else 0 for view in views]
        p = None if self.sharpness is None else np.where(rows >= 0, self.sharpness[split][key_frames.rows], 0.0)
        windows = CropRows(
            np.concatenate([np.where(rows >= 0, rows + more, -1) for more in shift]),
            np.tile(key_frames.labels, len(views)),
        )
        blur = None if p is None else np.tile(p, (len(views), 1))
        black = self.published_faults and split == "test"
        return PixelData(self.crops[split], windows, self._priors(key_frames, split, views), blur, black)

    def _priors(self, key_frames: KeyFrames, split: str, views: Sequence[str]) -> Priors | None:
        if self.prior is None:
            return None
        found = self.prior.read(self.tables[split].iloc[key_frames.centres])
        by_view = [found.mirrored() if view == "flipped" else found for view in views]
        return Priors(*(np.concatenate(parts) for parts in zip(*by_view, strict=True)))


def check_init(recipe: Recipe) -> None:
    """Check that the weights of a recipe that starts from Gaze360's are an import of them.

    Raises:
        UserError: the file is of another kind, missing or damaged.
    """
    weights = recipe.backbone.get("weights")
    if recipe.init == "gaze360" and weights is not None:
        kind = read_weights(Path(weights))[1].get("kind")
        if kind != recipe.init:
            raise UserError(
                f"recipe {recipe.name} starts from Gaze360's weights, but {weights} was not written by import --as "
                "gaze360; add --set init=none to start from it"
            )


def build_backbone(config: Mapping[str, Any], seed: int) -> Backbone:
    """Build a trainable backbone. Random initial weights are drawn with the training's seed, unless config has one."""
    backbone: Backbone = BACKBONES.build(config)
    takes_seed = "seed" in inspect.signature(BACKBONES.get(config["type"])).parameters
    if backbone.weights_info.random_init and takes_seed and "seed" not in config:
        backbone = BACKBONES.build({**config, "seed": seed})
    return backbone
