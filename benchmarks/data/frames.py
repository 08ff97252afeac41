"""The frame table, one row a face crop, and the windows of neighbouring frames that a temporal head looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from registry import UserError

COLUMNS = ("clip", "track", "frame", "person", "x1", "y1", "x2", "y2", "label", "image", "unique_id")
TEXT = ("clip", "track", "person", "image", "unique_id")
BOX = ("x1", "y1", "x2", "y2")
KEY = ["clip", "track", "frame"]

# What numbers of frames and edges of boxes stay below: more are no frame of a video, and would overflow elsewhere.
LARGEST = 2**31

# What pandas makes of text: `str` from 3.0 on; before, `object`, which may hold anything.
_STRING = pd.Series([""]).astype(str).dtype


def frame_table(columns: Mapping[str, Any], where: str = "frame table") -> pd.DataFrame:
    """Build a FrameTable from its columns: types checked, sorted by clip, track and frame, each frame once.

    Args:
        columns: the eleven columns of `COLUMNS`, each of length N or one value for all rows; further columns are kept.
        where: what the rows were read from, for the messages.

    Returns:
        DataFrame with N rows and index 0..N-1: clip, track, person, image, unique_id text ("" where there is none),
        frame int64, x1, y1, x2, y2 float64 in pixels (NaN where unknown), label int64 (1 looking, 0 not, -1 unknown).

    Raises:
        UserError: a column is missing, a frame or label is no whole number, a frame's number is 2^31 or more, a label
            is not -1, 0 or 1, or a frame of a track comes twice.
    """
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise UserError(f"{where}: no column {', '.join(missing)}; a frame table has {', '.join(COLUMNS)}")
    table = pd.DataFrame(dict(columns))
    # Columns that are right already are left alone: converting them would take most of the time of a large table.
    for name in TEXT:
        if table[name].dtype != _STRING or not isinstance(_STRING, pd.StringDtype):
            table[name] = table[name].astype(str)
    try:
        for name in ("frame", "label"):
            if table[name].dtype != np.int64:
                whole = pd.to_numeric(table[name]).to_numpy()
                table[name] = whole.astype(np.int64)
                if not np.array_equal(whole, table[name].to_numpy()):
                    raise ValueError(f"column {name} has fractions")
        for name in BOX:
            if table[name].dtype != np.float64:
                table[name] = pd.to_numeric(table[name]).astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: {error}") from None
    frame = table["frame"].to_numpy()
    if len(frame) and not -LARGEST < int(frame.min()) <= int(frame.max()) < LARGEST:
        raise UserError(f"{where}: frame {frame[np.argmax(np.abs(frame))]}; a frame number is below 2^31")
    label = table["label"].to_numpy()
    unknown = (label < -1) | (label > 1)
    if unknown.any():
        raise UserError(f"{where}: label {label[unknown][0]}; a label is 1 (looking), 0 (not looking) or -1 (unknown)")
    order, tracks, _ = _sorted_by_track(table)
    frame = table["frame"].to_numpy()[order]
    twice = np.flatnonzero((tracks[1:] == tracks[:-1]) & (frame[1:] == frame[:-1]))
    if len(twice):
        row = table.iloc[order[twice[0]]]
        raise UserError(
            f"{where}: frame {row['frame']} of clip {row['clip']}, track {row['track']} comes twice"
            + (f" (and {len(twice) - 1} more such frames)" if len(twice) > 1 else "")
        )
    if not np.array_equal(order, np.arange(len(order))):
        table = table.iloc[order].reset_index(drop=True)
    further = [name for name in table.columns if name not in COLUMNS]
    return table[[*COLUMNS, *further]]


def concat(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join frame tables of disjoint clips, or of several data sets, into one sorted table."""
    return frame_table({name: pd.concat([t[name] for t in tables], ignore_index=True) for name in tables[0].columns})


def repeated(values: Sequence[str], counts: Sequence[int] | np.ndarray) -> Any:
    """Make a text column of each value so many times, far quicker than from as many strings."""
    return pd.Series(list(values), dtype=object).astype(str).array.repeat(np.asarray(counts, dtype=np.int64))


def tracks(frames: pd.DataFrame) -> np.ndarray:
    """Number the tracks of a table in the order of (clip, track): int64 (N,), equal where clip and track are equal."""
    clip_codes, _ = numbered(frames["clip"], sort=True)
    track_codes, track_count = numbered(frames["track"], sort=True)
    # Most of these numbers stand for no track: they are numbered anew, from 0 on.
    return numbered(clip_codes * max(track_count, 1) + track_codes, sort=True)[0]


def numbered(values: pd.Series | np.ndarray, sort: bool = False) -> tuple[np.ndarray, int]:
    """Number the values of a column: int64 (N,) from 0 on, equal where they are, and how many different ones there are.

    Rows of a clip and track stand together as a rule: then only the first of each run has to be looked up.

    Args:
        values: (N,).
        sort: number them in their order, not as they come.
    """
    if isinstance(values, pd.Series):  # Arrow's own arrays compare quickly, and become Python's strings slowly
        values = values.array if getattr(values.dtype, "storage", "") == "pyarrow" else values.to_numpy()
    differ = np.asarray(values[1:] != values[:-1], dtype=bool)
    starts = np.flatnonzero(np.concatenate([[True], differ]))[: len(values)]
    if 2 * len(starts) > len(values):
        codes, found = pd.factorize(values, sort=sort)
        return codes.astype(np.int64), len(found)
    codes, found = pd.factorize(values[starts], sort=sort)
    return np.repeat(codes.astype(np.int64), np.diff(np.append(starts, len(values)))), len(found)


def windows(
    frames: pd.DataFrame,
    radius: int = 3,
    centres: np.ndarray | None = None,
    present: np.ndarray | None = None,
) -> np.ndarray:
    """Find the neighbours of each frame by frame number within its track, never across tracks and never by row order.

    Linear in the rows but for one sort; a million rows take about a second. Rows may come in any order.

    Args:
        frames: a FrameTable, N rows.
        radius: frames on each side; the published programs use 3.
        centres: bool (N,), the rows to build a window for, such as `key_frames(frames, 13)`; all rows by default.
        present: bool (N,), the rows that can be looked at; by default those with an image. Pass all True for a table
            that was read without images.

    Returns:
        int64 (M, 2 radius + 1) of row numbers, one window a centre in row order, -1 where the frame is absent (no row,
        or a row that is not present, the centre included).

    Example:
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
    # One number a row, more than `radius` apart between tracks, so that a neighbour in the list is one in the track.
    lowest = int(frame.min())
    span = int(frame.max()) - lowest + radius + 1
    number = tracks(frames) * span + (frame - lowest)  # below 2^63: frame numbers are below `LARGEST`
    candidates = np.flatnonzero(present)
    candidates = candidates[np.argsort(number[candidates], kind="stable")]
    have = number[candidates]
    if centres is None and len(candidates) == len(rows):
        # Every row is a centre and can be looked at: each pair of neighbours is found once, for both.
        flat, middle = found.reshape(-1), candidates * (2 * radius + 1) + radius
        flat[middle] = candidates
        for step in range(1, 2 * radius + 1):  # frame numbers are distinct: no more of them lie in a window
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
    """Fill the absent places of windows with present frames, for models that look at images.

    The published rule, as the reference windows show it: on each side of the centre the present frames move towards
    the centre in their order, and the places left free at the outside repeat the outermost frame of that side, or the
    centre where the side is empty. So `[a . . C . d e]` becomes `[a a a C d e e]`, not `[a a C C d d e]`.

    Args:
        found: int64 (M, T), T odd, from `windows`.

    Returns:
        int64 (M, T) with no -1 in a window that has any present frame. Where the centre itself is absent (the published
        index has no such case) the present frame nearest to it, the earlier of two, stands in for it.
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
    """Mark every `stride`-th row of each track, counted from the track's first row: bool (N,).

    This is the published index's rule: the count starts anew in each track and goes by position, not by frame number
    (a track that starts at frame 47 has key frames 47, 60, 73). Interpolated frames count and can be key frames.
    """
    if stride < 1:
        raise UserError(f"stride {stride}: must be 1 or more")
    order, track, _ = _sorted_by_track(frames)
    position = np.arange(len(order))
    starts = np.flatnonzero(np.diff(track, prepend=-1))
    rank = position - np.repeat(starts, np.diff(np.append(starts, len(order))))
    keys = np.zeros(len(order), dtype=bool)
    keys[order] = rank % stride == 0
    return keys


def _sorted_by_track(frames: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row numbers in the order of clip, track and frame, with the track's number and the frame of each."""
    code = tracks(frames)
    frame = frames["frame"].to_numpy()
    # Tables are sorted already in nearly every call: looking is ten times cheaper than sorting.
    step = np.diff(code)
    if np.all((step > 0) | ((step == 0) & (np.diff(frame) >= 0))):
        return np.arange(len(code)), code, frame
    order = np.lexsort((frame, code))
    return order, code[order], frame[order]


def _outwards(side: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Fill one side of windows, from the centre outwards: present rows, then the last of them (or the centre) again."""
    moved = np.take_along_axis(side, np.argsort(side < 0, axis=1, kind="stable"), axis=1)
    count = (side >= 0).sum(axis=1)
    last = np.where(count > 0, moved[np.arange(len(side)), np.maximum(count - 1, 0)], centre)
    return np.where(moved >= 0, moved, last[:, None])
