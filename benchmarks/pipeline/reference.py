"""A reference row's scores, from the angles of its key frames. No crop, feature or weight is read."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd

from benchmarks.pipeline.row import REFERENCE_SEEDS, ReferenceRow
from benchmarks.rows.record import RowScores
from benchmarks.scoring.reference import angle_scores, chance_scores, head_angles, true_angles

# Record sections `backbone` and `head`.
_NONE = {"type": "none", "of": [], "parameters": 0}


def score_reference(row: ReferenceRow) -> RowScores:
    """Score the key frames of every split except train.

    Raises:
        UserError: the prior cannot be read or computed.
    """
    started = time.perf_counter()
    tables = row.session.tables
    scores = {
        split: _scores(row, tables[split].iloc[key_frames.centres])[None]
        for split, key_frames in row.key_frames.items()
    }
    return RowScores(
        seeds=REFERENCE_SEEDS,
        key_frames=row.key_frames,
        parts={split: {} for split in scores},
        fused=scores,
        fitted={},
        backbone=_NONE,
        head=_NONE,
        training=[],
        counts={"damaged": 0},
        seconds={"features": 0.0, "training": 0.0, "scoring": time.perf_counter() - started},
    )


def _scores(row: ReferenceRow, frames: pd.DataFrame) -> np.ndarray:
    """Scores (M,) of M rows of a frame table."""
    if row.prior is not None:
        return angle_scores(head_angles(row.prior.read(frames).head_pose))
    if row.truth is not None:
        return angle_scores(true_angles(row.truth, frames))
    return chance_scores(len(frames))
