"""Measured properties of key frames (sharpness, head yaw) for a row's diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.data.windows import KeyFrames
from benchmarks.pixels.sharpness import sharpness
from benchmarks.priors.base import Prior


def frame_properties(
    root: Path,
    tables: Mapping[str, pd.DataFrame],
    key_frames: Sequence[Mapping[str, KeyFrames]],
    cache: Path,
    prior: Prior | None,
) -> dict[str, dict[str, np.ndarray]]:
    """Measures the properties that `diagnose` cannot read off boxes and windows.

    They are measured for the labelled key frames of all splits but train.

    Args:
        root: of the data set; crop paths are relative to it.
        tables: split -> frame table.
        key_frames: for each row to diagnose, split -> its key frames.
        cache: file of `sharpness`; each crop it lacks costs about 2 ms of one core.
        prior: of head poses, if there is one.

    Returns:
        split -> `sharpness` and, with a prior, `head yaw` (absolute, degrees) -> (rows of the table,) float64, NaN
        where unknown and outside the labelled key frames.

    Raises:
        UserError: a crop does not exist, or the prior cannot be computed.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for split, table in tables.items():
        centres = np.unique(np.concatenate([of_row[split].centres for of_row in key_frames if split in of_row]))
        centres = centres[table["label"].to_numpy()[centres] >= 0]
        if split == "train" or not len(centres):
            continue
        frames = table.iloc[centres]
        known = {"sharpness": sharpness(root, frames["image"].tolist(), cache)}
        if prior is not None:
            known["head yaw"] = np.abs(prior.read(frames).head_pose[:, 0].astype(np.float64))
        found[split] = {}
        for name, values in known.items():
            found[split][name] = np.full(len(table), np.nan)
            found[split][name][centres] = values
    return found
