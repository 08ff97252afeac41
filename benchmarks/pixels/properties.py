"""Measured properties of key frames (sharpness, head yaw) for a row's diagnosis."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmarks.pixels.sharpness import sharpness

if TYPE_CHECKING:
    from benchmarks.data.windows import KeyFrames
    from benchmarks.priors.base import Prior


def frame_properties(
    root: Path,
    tables: Mapping[str, pd.DataFrame],
    key_frames: Mapping[str, KeyFrames],
    cache: Path | None,
    prior: Prior | None,
) -> dict[str, dict[str, np.ndarray]]:
    """Measure the sharpness and head yaw of the labelled key frames of every split except train.

    Args:
        root: the dataset's root, which the crops' paths are relative to.
        tables: split -> frame table.
        key_frames: split -> key frames of a row.
        cache: file of `benchmarks.pixels.sharpness.sharpness`; each missing crop takes about 2 ms of a core.
            None opens no crop and leaves sharpness out.
        prior: source of head poses, or None.

    Returns:
        split -> `sharpness` and, with a prior, `head yaw` (absolute, degrees) -> (rows of the table,) float64. NaN
        where unknown, and in all rows that are not labelled key frames.

    Raises:
        UserError: a crop does not exist, or the prior cannot be read.
    """
    properties: dict[str, dict[str, np.ndarray]] = {}
    for split, of_split in key_frames.items():
        rows = of_split.centres[of_split.labels >= 0]
        if split == "train" or not len(rows):
            continue
        frames = tables[split].iloc[rows]
        known = {} if cache is None else {"sharpness": sharpness(root, frames["image"].tolist(), cache)}
        if prior is not None:
            known["head yaw"] = np.abs(prior.read(frames).head_pose[:, 0].astype(np.float64))
        properties[split] = {}
        for name, values in known.items():
            properties[split][name] = np.full(len(tables[split]), np.nan)
            properties[split][name][rows] = values
    return properties
