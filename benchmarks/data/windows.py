"""Key frames, and the windows of neighbouring frames around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.data.frames import sorted_by_track, tracks
from registry import UserError


def windows(
    frames: pd.DataFrame,
    radius: int = 3,
    centres: np.ndarray | None = None,
    present: np.ndarray | None = None,
) -> np.ndarray:
    """Finds the neighbours of each frame by frame number within its track, not by row order.

    Rows may be in any order. A million rows take about a second.

    Args:
        frames: a FrameTable, N rows.
        radius: frames on each side; the published programs use 3.
        centres: bool (N,), rows to build a window for, such as `key_frames(frames, 13)`; all rows by default.
        present: bool (N,), rows that are not absent; by default those with an image. Pass all True for a table read
            without images.

    Returns:
        int64 (M, 2 radius + 1) row numbers, one window per centre in row order, -1 where the frame (also the
        centre) has no row or is not present.

    Example:
        >>> from benchmarks.data.frames import frame_table
        >>> table = frame_table(dict(clip="c", track="t", frame=[1, 2, 4], person="1", x1=0, y1=0, x2=9, y2=9, label=0,
        ...                          image=["1.jpg", "2.jpg", "4.jpg"], unique_id=""))
        >>> windows(table, radius=2).tolist()
        [[-1, -1, 0, 1, -1], [-1, 0, 1, -1, 2], [1, -1, 2, -1, -1]]
    """
    if present is None:
        present = (frames["image"] != "").to_numpy(dtype=bool)
    rows = np.arange(len(frames)) if centres is None else np.flatnonzero(np.asarray(centres, dtype=bool))
    found = np.full((len(rows), 2 * radius + 1), -1, dtype=np.int64)
    if not len(rows):
        return found
    frame = frames["frame"].to_numpy()
    # One number per row, more than `radius` apart between tracks, so that near numbers are in the same track.
    lowest = int(frame.min())
    span = int(frame.max()) - lowest + radius + 1
    number = tracks(frames) * span + (frame - lowest)  # below 2^63: frame numbers are below `LARGEST`
    candidates = np.flatnonzero(present)
    candidates = candidates[np.argsort(number[candidates], kind="stable")]
    have = number[candidates]
    if centres is None and len(candidates) == len(rows):
        # Every row is a present centre: each pair of neighbours is found once, for both windows.
        flat, middle = found.reshape(-1), candidates * (2 * radius + 1) + radius
        flat[middle] = candidates
        for step in range(1, 2 * radius + 1):  # frame numbers are distinct, so a window holds no more
            distance = have[step:] - have[:-step]
            near = np.flatnonzero(distance <= radius)
            if not len(near):
                break
            distance = distance[near]
            flat[middle[near] + distance] = candidates[near + step]
            flat[middle[near + step] - distance] = candidates[near]
        return found
    wanted = number[rows]
    first = np.searchsorted(have, wanted - radius)
    for step in range(2 * radius + 1):
        at = first + step
        inside = at < len(have)
        distance = np.where(inside, have[np.where(inside, at, 0)] - wanted if len(have) else 0, radius + 1)
        hit = np.flatnonzero(distance <= radius)
        found[hit, radius + distance[hit]] = candidates[at[hit]]
    return found


def image_windows(found: np.ndarray) -> np.ndarray:
    """Fills absent places of windows with present frames, for models that take images.

    The published rule, as shown by the reference windows: on each side of the centre the present frames move towards
    the centre in order, and the free outer places repeat the outermost frame of that side, or the centre if the side is
    empty. So `[a . . C . d e]` becomes `[a a a C d e e]`, not `[a a C C d d e]`.

    Args:
        found: int64 (M, T), T odd, from `windows`.

    Returns:
        int64 (M, T) without -1 in windows that have a present frame. An absent centre (which the published index never
        has) is replaced by the nearest present frame, the earlier of two.
    """
    radius = found.shape[1] // 2
    nearest = sorted(range(2 * radius + 1), key=lambda place: abs(place - radius))
    by_distance = found[:, nearest]
    centre = by_distance[np.arange(len(found)), np.argmax(by_distance >= 0, axis=1)]
    filled = np.empty_like(found)
    filled[:, radius] = centre
    filled[:, radius + 1 :] = _outwards(found[:, radius + 1 :], centre)
    filled[:, :radius] = _outwards(found[:, :radius][:, ::-1], centre)[:, ::-1]
    return filled


def key_frames(frames: pd.DataFrame, stride: int = 13) -> np.ndarray:
    """Marks every `stride`-th row of each track, counted from the track's first row: bool (N,).

    This is the rule of the published index: the count restarts in each track and follows positions, not frame numbers
    (a track that starts at frame 47 has key frames 47, 60, 73). Interpolated frames count and can be key frames.
    """
    if stride < 1:
        raise UserError(f"stride {stride}: must be 1 or more")
    order, track, _ = sorted_by_track(frames)
    position = np.arange(len(order))
    starts = np.flatnonzero(np.diff(track, prepend=-1))
    rank = position - np.repeat(starts, np.diff(np.append(starts, len(order))))
    keys = np.zeros(len(order), dtype=bool)
    keys[order] = rank % stride == 0
    return keys


def _outwards(side: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Fills one side of windows outwards: present rows, then the last of them (or the centre) repeated."""
    moved = np.take_along_axis(side, np.argsort(side < 0, axis=1, kind="stable"), axis=1)
    count = (side >= 0).sum(axis=1)
    last = np.where(count > 0, moved[np.arange(len(side)), np.maximum(count - 1, 0)], centre)
    return np.where(moved >= 0, moved, last[:, None])


@dataclass(frozen=True)
class KeyFrames:
    """The windows of one split for one recipe.

    Attributes:
        rows: (M, T) int64 row numbers of the split's frame table, -1 where the frame is absent.
        centres: (M,) int64 row numbers of the key frames.
        labels: (M,) int64 labels of the key frames.
    """

    rows: np.ndarray
    centres: np.ndarray
    labels: np.ndarray
