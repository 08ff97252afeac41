"""Reads the `predictions.csv` of finished rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from backbones.opening import open_regular, read_at_most
from benchmarks.data.csv_fields import read_csv
from benchmarks.data.frames import KEY, LARGEST
from benchmarks.rows.schema import Result, read_result
from registry import UserError
from zoo.files.checksums import check_file
from zoo.files.untrusted import LARGEST_FILE


@dataclass(frozen=True)
class Predictions:
    """The scores of a row in one split.

    Attributes:
        result: record of the row.
        path: of `predictions.csv`.
        frames: N labelled key frames with clip, track, frame and label, sorted.
        scores: seed -> (N,) P(looking).
    """

    result: Result
    path: Path
    frames: pd.DataFrame
    scores: dict[int, np.ndarray]


def read_table(path: Path, remedy: str) -> pd.DataFrame:
    """Read split, seed, clip, track, frame, label and score from a `predictions.csv`, in the order of the file.

    Args:
        path: of the file.
        remedy: advice for the error.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    check_file(path, "result.json", remedy)
    try:
        with open_regular(path) as file:
            data = read_at_most(file, LARGEST_FILE)
        table = read_csv(
            data,
            usecols=["split", "seed", *KEY, "label", "score"],
            dtype={
                **dict.fromkeys(("split", "clip", "track", "score"), str),  # converted below: numpy reads every digit
                **dict.fromkeys(("seed", "frame", "label"), np.int64),
            },
            keep_default_na=False,  # a clip may be named NA
        )
        table = table.assign(score=table["score"].to_numpy().astype(np.float64))
        for name, low, high in (("frame", 1 - LARGEST, LARGEST - 1), ("label", -1, 1), ("score", 0, 1)):
            outside = ~table[name].between(low, high)  # NaN too
            if outside.any():
                row = int(np.argmax(outside))
                raise ValueError(f"row {row + 1}: {name} is {table[name].iloc[row]}")
        return table
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {remedy}") from error
    except (ValueError, OverflowError) as error:
        raise UserError(f"cannot read {path}: {error}; {remedy}") from error


def read_predictions(folder: Path, split: str) -> Predictions:
    """Read the scores of all seeds of a row in one split.

    Raises:
        UserError: the file cannot be read, has no labelled frames of the split, or its seeds differ in their frames.
    """
    result, path = read_result(folder / "result.json"), folder / "predictions.csv"
    table = read_table(path, "run the recipe again")
    table = table[(table["split"] == split) & (table["label"] >= 0)]
    if table.empty:
        raise UserError(f"{path} has no labelled frames of the {split} split; name another with --split")
    scores, frames = {}, None
    for seed, part in table.groupby("seed"):
        own = part.sort_values(KEY, ignore_index=True)
        if frames is None:
            frames = own[[*KEY, "label"]]
            if frames.duplicated(KEY).any():
                raise UserError(f"{path}: duplicate frames in the {split} split; delete {folder} and run again")
        elif not own[[*KEY, "label"]].equals(frames):
            raise UserError(f"{path}: seed {seed} and the first have different frames; delete {folder} and run again")
        scores[int(seed)] = own["score"].to_numpy()
    assert frames is not None
    return Predictions(result, path, frames, scores)


def common_frames(a: Predictions, b: Predictions) -> tuple[pd.DataFrame, tuple[np.ndarray, np.ndarray]]:
    """Find the key frames that both rows scored.

    Returns:
        Clip, track, frame and label of the M common key frames, and their (M,) indices in `a` and in `b`.

    Raises:
        UserError: the rows are on different datasets, have no key frame in common, or differ in a label.
    """
    names = [row.result["dataset"]["name"] for row in (a, b)]
    if names[0] != names[1]:
        raise UserError(f"{a.path} is on {names[0]}, {b.path} on {names[1]}; compare rows of the same dataset")
    ours, theirs = (row.frames.assign(place=range(len(row.frames))) for row in (a, b))
    joined = ours.merge(theirs, on=KEY, suffixes=("", "_b"))
    if joined.empty:
        raise UserError(f"{a.path} and {b.path} have no key frame in common")
    differ = joined[joined["label"] != joined["label_b"]]
    if len(differ):
        row = differ.iloc[0]
        raise UserError(
            f"{a.path} and {b.path} differ in {len(differ)} labels, the first: clip {row['clip']}, track "
            f"{row['track']}, frame {row['frame']}; they were run on different data, so run one of them again"
        )
    return joined[[*KEY, "label"]], (joined["place"].to_numpy(), joined["place_b"].to_numpy())
