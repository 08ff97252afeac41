"""The frame table: one row per face crop."""

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

# Upper limit of frame numbers and box edges. Larger values are errors in the data and would overflow elsewhere.
LARGEST = 2**31

# pandas' dtype of text: `str` from 3.0 on; before that `object`, which may hold anything.
_STRING = pd.Series([""]).astype(str).dtype


def frame_table(columns: Mapping[str, Any], where: str = "frame table") -> pd.DataFrame:
    """Builds a FrameTable: types checked, sorted by clip, track and frame, no frame twice.

    Args:
        columns: the eleven columns of `COLUMNS`, each of length N or a single value; further columns are kept.
        where: source of the rows, for the messages.

    Returns:
        DataFrame with N rows and index 0..N-1: clip, track, person, image, unique_id text ("" if missing),
        frame int64, x1, y1, x2, y2 float64 in pixels (NaN where unknown), label int64 (1 looking, 0 not, -1 unknown).

    Raises:
        UserError: a column is missing, a frame or label is not an integer, a frame number is 2^31 or more, a label is
            not -1, 0 or 1, or a frame of a track is listed twice.
    """
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise UserError(f"{where}: no column {', '.join(missing)}; a frame table has {', '.join(COLUMNS)}")
    table = pd.DataFrame(dict(columns))
    # Columns of the right type are not converted again, which would dominate the time for large tables.
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
    order, tracks, _ = sorted_by_track(table)
    frame = table["frame"].to_numpy()[order]
    twice = np.flatnonzero((tracks[1:] == tracks[:-1]) & (frame[1:] == frame[:-1]))
    if len(twice):
        row = table.iloc[order[twice[0]]]
        raise UserError(
            f"{where}: frame {row['frame']} of clip {row['clip']}, track {row['track']} is listed twice"
            + (f" (and {len(twice) - 1} more duplicates)" if len(twice) > 1 else "")
        )
    if not np.array_equal(order, np.arange(len(order))):
        table = table.iloc[order].reset_index(drop=True)
    further = [name for name in table.columns if name not in COLUMNS]
    return table[[*COLUMNS, *further]]


def concat(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Joins frame tables of disjoint clips, or of several data sets, into one sorted table."""
    return frame_table({name: pd.concat([t[name] for t in tables], ignore_index=True) for name in tables[0].columns})


def repeated(values: Sequence[str], counts: Sequence[int] | np.ndarray) -> Any:
    """Builds a text column that repeats each value, much faster than from single strings."""
    return pd.Series(list(values), dtype=object).astype(str).array.repeat(np.asarray(counts, dtype=np.int64))


def tracks(frames: pd.DataFrame) -> np.ndarray:
    """Numbers the tracks of a table in the order of (clip, track): int64 (N,), equal for equal clip and track."""
    clip_codes, _ = numbered(frames["clip"], sort=True)
    track_codes, track_count = numbered(frames["track"], sort=True)
    # The products leave gaps, so they are renumbered from 0.
    return numbered(clip_codes * max(track_count, 1) + track_codes, sort=True)[0]


def numbered(values: pd.Series | np.ndarray, sort: bool = False) -> tuple[np.ndarray, int]:
    """Numbers the distinct values of a column from 0: int64 (N,) codes, and the number of distinct values.

    Rows of a track are usually consecutive; then only the first row of each run is looked up.

    Args:
        values: (N,).
        sort: number values in sorted order instead of order of appearance.
    """
    if isinstance(values, pd.Series):  # Arrow arrays compare fast but convert to Python strings slowly
        values = values.array if getattr(values.dtype, "storage", "") == "pyarrow" else values.to_numpy()
    differ = np.asarray(values[1:] != values[:-1], dtype=bool)
    starts = np.flatnonzero(np.concatenate([[True], differ]))[: len(values)]
    if 2 * len(starts) > len(values):
        codes, found = pd.factorize(values, sort=sort)
        return codes.astype(np.int64), len(found)
    codes, found = pd.factorize(values[starts], sort=sort)
    return np.repeat(codes.astype(np.int64), np.diff(np.append(starts, len(values)))), len(found)


def sorted_by_track(frames: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns row numbers sorted by clip, track and frame, with the track number and frame of each."""
    code = tracks(frames)
    frame = frames["frame"].to_numpy()
    # Tables are nearly always sorted already, and checking is ten times cheaper than sorting.
    step = np.diff(code)
    if np.all((step > 0) | ((step == 0) & (np.diff(frame) >= 0))):
        return np.arange(len(code)), code, frame
    order = np.lexsort((frame, code))
    return order, code[order], frame[order]
