"""Smoothing of scores along tracks, with a fixed window or one chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.data.windows import KeyFrames, windows
from benchmarks.evaluation.calibration import both_classes
from benchmarks.evaluation.metrics import lam_map
from registry import UserError

if TYPE_CHECKING:
    from benchmarks.config.recipe import Smoothing


# Window sizes to choose from, in frames; 51 frames at 30 fps are 1.7 seconds.
WINDOWS = (1, 3, 5, 7, 9, 11, 13, 15, 17, 21, 25, 31, 41, 51)


# Name of the validation key frames at the stride of test. A window of frames holds as many scores there as it will on
# test, so smoothing is fitted on them, and so are the weights of an ensemble.
FITTING = "fitting"


def smooth_splits(
    scores: dict[str, np.ndarray],
    key_frames: Mapping[str, KeyFrames],
    tables: Mapping[str, pd.DataFrame],
    smoothing: Smoothing | None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Smooth a row's scores on every split, as its recipe says.

    Validation is smoothed at the density of test: at its own key frames, scores are those of `FITTING` after smoothing.

    Args:
        scores: split, and `FITTING` if it differs from validation -> (S, M) scores of S seeds.
        key_frames: of the same -> the M key frames.
        tables: split -> frame table.
        smoothing: filter and window; None changes nothing.

    Returns:
        The smoothed scores, and the window under `smoothing window` if it was chosen on validation.

    Raises:
        UserError: a window must be chosen, but the validation frames have one class only.
    """
    if smoothing is None:
        return scores, {}
    frames = {split: tables[split_of(split)].iloc[of_split.centres] for split, of_split in key_frames.items()}
    window, fitted = smoothing.window, {}
    fit_on = FITTING if FITTING in key_frames else "val"
    if window is None:
        labels = key_frames[fit_on].labels
        known = labels >= 0
        window = choose_window(frames[fit_on][known], scores[fit_on][:, known], labels[known], smoothing.filter)
        fitted = {"smoothing window": window}
    smoothed = {
        split: np.stack([smooth_scores(frames[split], of_seed, smoothing.filter, window) for of_seed in of_split])
        for split, of_split in scores.items()
    }
    if fit_on == FITTING:
        smoothed["val"] = smoothed[FITTING][:, np.isin(key_frames[FITTING].centres, key_frames["val"].centres)]
    return smoothed, fitted


def split_of(name: str) -> str:
    """The split of some key frames: validation for `FITTING`."""
    return "val" if name == FITTING else name


def choose_window(frames: pd.DataFrame, scores: np.ndarray, labels: np.ndarray, how: str) -> int:
    """Choose the window with the best validation mAP, averaged over seeds; of equals the shortest.

    Args:
        frames: N rows with clip, track and frame.
        scores: (S, N) of S seeds.
        labels: (N,) 0 or 1.
        how: filter, as in `smooth_scores`.

    Returns:
        One of `WINDOWS`; 1 if smoothing does not help.

    Raises:
        UserError: the labels have one class only.
    """
    both_classes(labels, "choose a smoothing window")
    reached = []
    for window in WINDOWS:
        values = [lam_map(smooth_scores(frames, of_seed, how, window), labels).map for of_seed in scores]
        reached.append(np.array(values, dtype=np.float64).mean())
    return WINDOWS[int(np.argmax(reached))]


def smooth_scores(frames: pd.DataFrame, scores: np.ndarray, how: str = "median", window: int = 5) -> np.ndarray:
    """Smooth scores along each track, by frame number.

    Each score becomes the median or the Gaussian mean of the scores of its track at most `window // 2` frames away,
    itself included. Absent frames are left out. So gaps longer than the window are not bridged, and scores at a stride
    of `window` frames or more do not change.

    Args:
        frames: N rows with clip, track and frame, in any order.
        scores: (N,).
        how: `median`, or `gaussian` with a standard deviation of a quarter of the window.
        window: frames, odd; 1 changes nothing.

    Returns:
        (N,).

    Raises:
        UserError: the window is even or below 1.

    Example:
        >>> frames = pd.DataFrame({"clip": "c", "track": "t", "frame": [1, 2, 3, 4, 9]})
        >>> smooth_scores(frames, np.array([0.1, 0.9, 0.2, 0.3, 0.7]), "median", window=3).tolist()
        [0.5, 0.2, 0.3, 0.25, 0.7]
    """
    if window < 1 or window % 2 == 0:
        raise UserError(f"window {window}: must be an odd number of frames, such as 5")
    scores = np.asarray(scores, dtype=np.float64)
    if window == 1 or not len(scores):
        return scores.copy()
    radius = window // 2
    rows = windows(frames, radius, present=np.ones(len(frames), dtype=bool))
    return filter_windows(np.where(rows >= 0, scores[rows], np.nan), how)


def filter_windows(near: np.ndarray, how: str) -> np.ndarray:
    """Filter windows of scores.

    Args:
        near: (N, W) scores around each of N frames, W odd; NaN for absent frames, but not in the middle.
        how: `median` or `gaussian`, as in `smooth_scores`.

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
