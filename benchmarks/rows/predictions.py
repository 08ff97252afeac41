"""What finished rows scored: their folders, and `predictions.csv` read again."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.data.frames import KEY, LARGEST
from benchmarks.rows.folder import folder_name
from benchmarks.rows.schema import read_result
from registry import UserError, did_you_mean
from zoo.files.checksums import check_file
from zoo.files.untrusted import open_input


@dataclass(frozen=True)
class Predictions:
    """What a row scored in one split.

    Attributes:
        name: of the row.
        dataset: that it was run on.
        path: of the file.
        frames: N rows with clip, track, frame and label, sorted; unlabelled frames left out.
        scores: seed -> (N,) P(looking).
    """

    name: str
    dataset: str
    path: Path
    frames: pd.DataFrame
    scores: dict[int, np.ndarray]


def find_row(name: str, out: Path, dataset: str) -> Path | None:
    """The folder of a row, by its name or as a path; None where there is none that was finished."""
    for folder in (Path(name), out / "results" / dataset / folder_name(name)):
        if (folder / "result.json").is_file():
            return folder
    return None


def row_folder(name: str, out: Path, dataset: str) -> Path:
    """The folder of a row, as of `find_row`, or of that name in its record.

    Raises:
        UserError: there is none; names the nearest.
    """
    found = find_row(name, out, dataset)
    if found is not None:
        return found
    there = {read_result(path)["name"]: path.parent for path in sorted(out.glob(f"results/{dataset}/*/result.json"))}
    if name not in there:
        hint = did_you_mean(name, list(there)) or f"; python bench.py table --out {out} shows what there is"
        raise UserError(f"no row {name} in {out / 'results' / dataset}{hint}")
    return there[name]


def read_table(path: Path, remedy: str) -> pd.DataFrame:
    """Read a `predictions.csv`: split, seed, clip, track, frame, label and score, as they were written.

    Args:
        path: the file.
        remedy: what to do where it cannot be read.

    Raises:
        UserError: it cannot, or is damaged.
    """
    check_file(path, "result.json", remedy)
    try:
        with open_input(path) as file:
            data = io.BytesIO(file.read())
        table = pd.read_csv(
            data,
            usecols=["split", "seed", *KEY, "label", "score"],
            dtype={
                **dict.fromkeys(("split", "clip", "track", "score"), str),  # numpy reads every digit of a score
                **dict.fromkeys(("seed", "frame", "label"), np.int64),
            },
            keep_default_na=False,  # a clip may be called NA
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
    """Read what a row scored in one split, of all seeds.

    Raises:
        UserError: the file cannot be read, has no labelled frame of that split, or its seeds scored other frames.
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
                raise UserError(f"{path}: frames of the {split} split come twice; delete {folder} and run again")
        elif not own[[*KEY, "label"]].equals(frames):
            raise UserError(f"{path}: seed {seed} has other frames than the first; delete {folder} and run again")
        scores[int(seed)] = own["score"].to_numpy()
    assert frames is not None
    return Predictions(result["name"], result["dataset"]["name"], path, frames, scores)


def common_frames(a: Predictions, b: Predictions) -> tuple[pd.DataFrame, tuple[np.ndarray, np.ndarray]]:
    """The key frames that both rows scored, joined by key: the table, and their places among the rows' own.

    Raises:
        UserError: they were run on different datasets, have no frame in common, or differ in a label.
    """
    if a.dataset != b.dataset:
        raise UserError(f"{a.path} is of dataset {a.dataset}, {b.path} of {b.dataset}; rows of one can be compared")
    ours, theirs = (row.frames.assign(place=range(len(row.frames))) for row in (a, b))
    joined = ours.merge(theirs, on=KEY, suffixes=("", "_b"))
    if joined.empty:
        raise UserError(f"{a.path} and {b.path} have no key frame in common")
    differ = joined[joined["label"] != joined["label_b"]]
    if len(differ):
        row = differ.iloc[0]
        raise UserError(
            f"{a.path} and {b.path} differ in {len(differ)} labels, the first: clip {row['clip']}, track "
            f"{row['track']}, frame {row['frame']}; they were run on different data, run one of them again"
        )
    return joined[[*KEY, "label"]], (joined["place"].to_numpy(), joined["place_b"].to_numpy())
