"""The marks that a user saved from the page, joined with the rows of the run that they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.calibration.finished import EDGES, FinishedRun
from benchmarks.data.csv_fields import read_csv
from registry import UserError, did_you_mean
from zoo.files.untrusted import read_bytes

COLUMNS = ["time", "frame", "track", "box", "label"]
LABELS = {"looking": 1, "not looking": 0, "cannot say": -1}
NEARLY = 0.011  # seconds and pixels; a spreadsheet may have rounded them to hundredths


def box_text(edges: np.ndarray) -> str:
    """A box ``(4,)`` as the column `box` has it."""
    return " ".join(f"{edge:.2f}" for edge in edges)


def read_marks(path: Path, run: FinishedRun) -> tuple[np.ndarray, np.ndarray]:
    """Read a saved labels.csv.

    Returns:
        ``(M,)`` places in the run's rows, ascending, and ``(M,)`` labels: 1 looking, 0 not looking, -1 cannot say.

    Raises:
        UserError: the file cannot be read, is empty, lacks a column, has a value or a label that is none, a face that
            the run does not have, or one face with two labels; names the line.
    """
    data = read_bytes(path, "labels saved by the page")
    if not data.strip():
        raise UserError(f"{path} is empty; mark faces on {run.folder / 'label.html'} and save them")
    try:
        table = read_csv(data, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    table.columns = [str(name).strip() for name in table.columns]
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise UserError(f"{path} lacks {', '.join(missing)}; its first line must be {','.join(COLUMNS)}, as saved")
    if not len(table):
        raise UserError(f"{path} has no marks; mark faces on {run.folder / 'label.html'} and save them")
    numbers, labels = _numbers(path, table), _labels(path, table)
    places = _places(path, numbers, table["track"], run)
    marks = pd.Series(labels, index=places)
    contradictory = marks.groupby(level=0).nunique() > 1
    if contradictory.any():
        row = run.rows.iloc[contradictory.index[contradictory][0]]
        raise UserError(f"{path} has two labels for track {row['track']} in frame {row['frame']}; keep one")
    marks = marks[~marks.index.duplicated()].sort_index()
    return marks.index.to_numpy(), marks.to_numpy()


def _numbers(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """time, frame and the edges of the box, float64."""
    edges = table["box"].str.split(expand=True).reindex(columns=range(4))
    edges.columns = pd.Index(EDGES)
    wide = table["box"].map(lambda text: len(text.split()) != 4)
    numbers = pd.concat([table[["time", "frame"]], edges], axis=1).apply(pd.to_numeric, errors="coerce")
    wrong = wide | ~np.isfinite(numbers.astype(np.float64)).all(axis=1)
    if wrong.any():
        raise UserError(f"{path}: line {_line(wrong)} has a time, frame or box that is not a number; save it again")
    return numbers.astype(np.float64)


def _labels(path: Path, table: pd.DataFrame) -> np.ndarray:
    said = table["label"].str.strip().str.lower()
    unknown = ~said.isin(list(LABELS))
    if unknown.any():
        label = str(table["label"][unknown].iloc[0])
        known = f"{did_you_mean(label, list(LABELS))} (known: {', '.join(LABELS)})"
        raise UserError(f"{path}: line {_line(unknown)} has the label {label!r:.60}{known}")
    return said.map(LABELS).to_numpy(dtype=int)


def _places(path: Path, numbers: pd.DataFrame, tracks: pd.Series, run: FinishedRun) -> np.ndarray:
    """Find the row of each mark."""
    rows = run.rows
    wanted = pd.MultiIndex.from_arrays([numbers["frame"], tracks])
    places = pd.MultiIndex.from_arrays([rows["frame"].astype(np.float64), rows["track"]]).get_indexer(wanted)
    names = ["time", *EDGES]
    away = np.abs(numbers[names].to_numpy() - rows[names].to_numpy(dtype=np.float64)[places]).max(axis=1)
    foreign = (places < 0) | (away > NEARLY)
    if foreign.any():
        line = _line(pd.Series(foreign))
        raise UserError(f"{path}: line {line} has a face that {run.folder} does not have; give the labels of this run")
    return places


def _line(wrong: pd.Series) -> int:
    """The first line of a file with a wrong row: after the header, from 1."""
    return int(np.flatnonzero(wrong)[0]) + 2
