"""Smooth scores along each track, with a fixed window or one chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.data.windows import KeyFrames, windows
from benchmarks.evaluation.metrics import lam_map
from registry import UserError

if TYPE_CHECKING:
    from benchmarks.config.recipe import Smoothing


WINDOWS = (1, 3, 5, 7, 9, 11, 13, 15, 17, 21, 25, 31, 41, 51)  # frames; at 30 a second, up to one and two thirds of one


def choose_window(
    frames: pd.DataFrame, scores: np.ndarray, labels: np.ndarray, how: str, windows: Sequence[int] = WINDOWS
) -> int:
    """Choose the smoothing window with the highest mAP on the validation split, in the mean over seeds.

    Args:
        frames: N rows with clip, track and frame.
        scores: (S, N) of S seeds.
        labels: (N,) 0 or 1.
        how: the filter, as for `smooth_scores`.
        windows: what to choose from; the first of equals wins.

    Returns:
        Frames, odd; 1 where smoothing does not help.

    Raises:
        UserError: the labels are of one class only.
    """
    reached = []
    for window in windows:
        values = [lam_map(smooth_scores(frames, of_seed, how, window), labels).map for of_seed in scores]
        if None in values:
            raise UserError("a smoothing window is chosen on validation frames of both classes; here is one only")
        reached.append(float(np.mean([value for value in values if value is not None])))
    return windows[int(np.argmax(reached))]


def smoothed(
    fused: dict[str, np.ndarray],
    plans: Mapping[str, KeyFrames],
    tables: Mapping[str, pd.DataFrame],
    smoothing: Smoothing | None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Smooth the scores (seeds, M) of each split along the tracks: the scores, and what was fitted for that."""
    if smoothing is None:
        return fused, {}
    keys = {split: tables[split].iloc[plan.centres] for split, plan in plans.items()}
    window, fitted = smoothing.window, {}
    if window is None:
        known = plans["val"].labels >= 0
        window = choose_window(keys["val"][known], fused["val"][:, known], plans["val"].labels[known], smoothing.filter)
        fitted = {"smoothing window": window}
    smoothed = {
        split: np.stack([smooth_scores(keys[split], of_seed, smoothing.filter, window) for of_seed in scores])
        for split, scores in fused.items()
    }
    return smoothed, fitted


FILTERS = ("median", "gaussian")


def smooth_scores(frames: pd.DataFrame, scores: np.ndarray, how: str = "median", window: int = 5) -> np.ndarray:
    """Smooth scores along each track, by frame number.

    Each score becomes the median, or the Gaussian mean, of those scores of its track whose frame is at most
    `window // 2` away, itself included. Frames that are absent take no part, so a gap is never bridged beyond the
    window, and scores at a stride of `window` frames or more stay as they are.

    Args:
        frames: N rows with clip, track and frame, in any order.
        scores: (N,).
        how: "median", or "gaussian" with a standard deviation of a quarter of the window, so that the window ends at
            two of them.
        window: frames, odd; 1 changes nothing.

    Returns:
        (N,).
    """
    if how not in FILTERS:
        raise UserError(f"filter {how!r}: must be one of {', '.join(FILTERS)}")
    if window < 1 or window % 2 == 0:
        raise UserError(f"window {window}: must be an odd number of frames, such as 5")
    scores = np.asarray(scores, dtype=np.float64)
    if window == 1 or not len(scores):
        return scores.copy()
    radius = window // 2
    rows = windows(frames, radius, present=np.ones(len(frames), dtype=bool))
    return filter_windows(np.where(rows >= 0, scores[rows], np.nan), how)


def filter_windows(near: np.ndarray, how: str) -> np.ndarray:
    """Smooths windows of scores.

    Args:
        near: (N, W) scores around each of N frames, W odd, NaN where a frame is absent; not the one in the middle.
        how: "median" or "gaussian", as for `smooth_scores`.

    Returns:
        (N,).
    """
    present = ~np.isnan(near)
    if how == "median":
        near, count = np.sort(near, axis=1), present.sum(axis=1)  # NaN last
        at = np.arange(len(near))
        return (near[at, (count - 1) // 2] + near[at, count // 2]) / 2
    offsets = np.arange(near.shape[1]) - near.shape[1] // 2
    weight = np.where(present, np.exp(-0.5 * (offsets / (near.shape[1] / 4)) ** 2), 0)
    return np.nansum(near * weight, axis=1) / weight.sum(axis=1)
