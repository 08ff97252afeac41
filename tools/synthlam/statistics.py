"""The figures of SynthLAM's data card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data.ego4d import SPLITS, read_split
from benchmarks.data.synthlam import truth
from benchmarks.evaluation.metrics import lam_map

GAZE_BINS = (0, 3, 6, 9, 12, 18, 25, 40, 180)  # degrees
YAW_BINS = (0, 10, 20, 30, 45, 60, 90, 180)  # degrees
SIZE_BINS = (22, 32, 40, 50, 60, 80, 113)  # pixels, the crop's larger side


def statistics(folder: Path) -> dict[str, dict[str, Any]]:
    """Compute the figures of the data card for each split from the files in `folder`.

    Returns:
        For each split: counts of clips, tracks, people (identities), crops, rows (the reader's, absent frames
        included), the share of looking rows, looks (runs of looking frames) and their median length, gaps (runs of
        frames without a crop inside a track) and their median length, crop sizes, histograms as shares, and the
        figures that the true angles alone reach against the annotators' labels.
    """
    known = truth(folder)
    out: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        rows = read_split(folder, split)
        crops = known[known.split == split]
        side = crops[["width", "height"]].max(axis=1)
        gaps = [int(g) - 1 for _, track in crops.groupby("track") for g in np.diff(track.frame) if g > 1]
        looks = []
        for _, track in rows.groupby(["clip", "track"]):
            change = np.flatnonzero(np.diff(np.concatenate([[0], track.label, [0]])))
            looks += (change[1::2] - change[::2]).tolist()

        def shares(values: pd.Series, bins: tuple[int, ...], count: int = len(crops)) -> list[float]:
            return (np.histogram(values, bins)[0] / count).round(4).tolist()

        at_camera = lam_map(1 - crops.gaze_angle.to_numpy() / 180, crops.label.to_numpy())
        facing = lam_map(1 - np.hypot(crops.head_yaw, crops.head_pitch).to_numpy() / 360, crops.label.to_numpy())
        out[split] = dict(
            clips=int(rows["clip"].nunique()),
            tracks=int(rows.groupby("clip").track.nunique().sum()),
            identities=int(crops.identity.nunique()),
            crops=len(crops),
            rows=len(rows),
            rows_without_crop=int((rows.image == "").sum()),
            positive_rate=round(float(rows.label.mean()), 4),
            positive_rate_of_crops=round(float(crops.label.mean()), 4),
            looks=len(looks),
            look_median=float(np.median(looks)),
            gaps=len(gaps),
            gap_median=float(np.median(gaps)),
            gap_longest=max(gaps),
            side_percentiles=[float(p) for p in np.percentile(side, [5, 25, 50, 75, 95])],
            gaze_angle=shares(crops.gaze_angle, GAZE_BINS),
            head_yaw=shares(crops.head_yaw.abs(), YAW_BINS),
            crop_side=shares(side, SIZE_BINS),
            blinking=round(float((crops.blink > 0.5).mean()), 4),
            occluded=round(float(crops.occluded.mean()), 4),
            true_gaze=[at_camera.map, at_camera.ap_looking, at_camera.ap_not_looking],
            true_head_pose=[facing.map, facing.ap_looking, facing.ap_not_looking],
        )
    return out
