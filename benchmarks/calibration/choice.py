"""Chooses the faces to mark: spread over tracks, times and scores, so that few marks teach most.

A random sample would have mostly faces that are easy and alike. So the scores of a run are divided into three strata,
near the threshold, above and below, which get fixed shares of the marks. Within a stratum tracks are drawn evenly, and
times evenly along a track. Figures on marked faces are weighted by stratum, so they hold for all faces of the run.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.evaluation.calibration import log_odds

APART = 0.2  # seconds; faces of a track that are nearer in time look alike
NEAR = 0.25  # share of the faces, nearest to the threshold by log odds, that form the first stratum
SHARES = (0.4, 0.25, 0.35)  # of the marks: near the threshold, above it, below it


def strata_of(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Divide faces by score: 0 near the threshold, 1 above it, 2 below it.

    Args:
        scores: ``(N,)`` P(looking).
        threshold: score from which a frame counts as looking.
    """
    away = np.abs(log_odds(scores) - log_odds(threshold))
    near = np.zeros(len(scores), dtype=bool)
    near[np.argsort(away, kind="stable")[: round(NEAR * len(scores))]] = True
    return np.where(near, 0, np.where(scores >= threshold, 1, 2))


def stratum_weights(strata: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """How many faces each marked face stands for, so that strata count as in the run; the mean is 1.

    Args:
        strata: ``(N,)`` of all faces, from `strata_of`.
        marked: ``(M,)`` places of the marked faces.

    Example:
        >>> stratum_weights(np.array([0, 2, 2, 2]), np.array([0, 3])).tolist()
        [0.5, 1.5]
    """
    whole, own = np.bincount(strata, minlength=3), np.bincount(strata[marked], minlength=3)
    weights = (whole / np.maximum(own, 1))[strata[marked]]
    return weights / weights.mean()


def choose_faces(rows: pd.DataFrame, threshold: float, count: int) -> np.ndarray:
    """Choose faces to mark; the same ones in every call.

    Args:
        rows: of a run, as in `FinishedRun`.
        threshold: score from which a frame counts as looking.
        count: number wanted; fewer are chosen if no more are far enough apart.

    Returns:
        ``(C,)`` places in the rows, in the order in which they are shown, which follows no score.
    """
    random = np.random.default_rng(0)
    tracks = np.unique(rows["track"].to_numpy(dtype=str), return_inverse=True)[1]
    times = rows["time"].to_numpy(dtype=np.float64)
    possible = _one_per_slot(tracks, times, random)
    strata = strata_of(rows["score"].to_numpy(dtype=np.float64), threshold)[possible]
    chosen = []
    for stratum, number in enumerate(_quotas(np.bincount(strata, minlength=3), count, random)):
        inside = possible[strata == stratum]
        chosen.append(_spread(inside, tracks[inside], times[inside], int(number), random))
    return random.permutation(np.concatenate(chosen))


def _one_per_slot(tracks: np.ndarray, times: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw one face of each `APART` seconds of each track."""
    drawn = random.permutation(len(times))
    slots = np.stack([tracks[drawn], np.floor(times[drawn] / APART)], axis=1)
    return np.sort(drawn[np.unique(slots, axis=0, return_index=True)[1]])


def _quotas(available: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Marks per stratum: `SHARES`, and what one lacks is shared out to the others."""
    wanted = np.floor(count * np.array(SHARES)).astype(int)
    given = np.minimum(wanted, available)
    return given + _shared_out(available - given, count - int(given.sum()), random)


def _shared_out(available: np.ndarray, total: int, random: np.random.Generator) -> np.ndarray:
    """Share out a total as evenly as availability allows; a rest is drawn."""
    given = np.zeros(len(available), dtype=int)
    while total > 0 and len(able := random.permutation(np.flatnonzero(given < available))):
        step = min(total // len(able), int((available - given)[able].min()))
        if step == 0:
            able, step = able[:total], 1
        given[able] += step
        total -= step * len(able)
    return given


def _spread(
    rows: np.ndarray, tracks: np.ndarray, times: np.ndarray, count: int, random: np.random.Generator
) -> np.ndarray:
    """Draw `count` of `rows`: tracks evenly, and evenly along each track from a random start."""
    out = [np.empty(0, dtype=int)]
    names, sizes = np.unique(tracks, return_counts=True)
    for name, quota in zip(names, _shared_out(sizes, count, random), strict=True):
        of_track = np.flatnonzero(tracks == name)
        of_track = of_track[np.argsort(times[of_track], kind="stable")]
        if quota:
            places = np.floor((np.arange(quota) + random.random()) * len(of_track) / quota).astype(int)
            out.append(rows[of_track[places]])
    return np.concatenate(out)
