"""Measured properties of key frames (sharpness, head yaw) for a row's diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from benchmarks.data.windows import KeyFrames
    from benchmarks.priors.base import Prior


def frame_properties(
    root: Path,
    tables: Mapping[str, pd.DataFrame],
    plans: Sequence[Mapping[str, KeyFrames]],
    cache: Path,
    provider: Prior | None,
) -> dict[str, dict[str, np.ndarray]]:
    """Find what `diagnose` cannot read off boxes and windows, for the labelled key frames of every split but train.

    Args:
        root: the data set's, which the crops' paths are relative to.
        tables: split -> frame table.
        plans: of each row that is to be diagnosed, split -> its key frames.
        cache: file of `benchmarks.pixels.sharpness.sharpness`; what it lacks takes about 2 ms of a core per crop.
        provider: of head poses, where there is one.

    Returns:
        split -> `sharpness` and, with a provider, `head yaw` (absolute, degrees) -> (rows of the table,) float64, NaN
        where unknown and in all rows that are no such key frame.

    Raises:
        UserError: a crop does not exist, or the provider cannot answer.
    """
    from benchmarks.pixels.sharpness import sharpness

    found: dict[str, dict[str, np.ndarray]] = {}
    for split, table in tables.items():
        keys = np.unique(np.concatenate([of_row[split].centres for of_row in plans if split in of_row]))
        keys = keys[table["label"].to_numpy()[keys] >= 0]
        if split == "train" or not len(keys):
            continue
        frames = table.iloc[keys]
        known = {"sharpness": sharpness(root, frames["image"].tolist(), cache)}
        if provider is not None:
            known["head yaw"] = np.abs(provider.read(frames).head_pose[:, 0].astype(np.float64))
        found[split] = {}
        for name, values in known.items():
            found[split][name] = np.full(len(table), np.nan)
            found[split][name][keys] = values
    return found
