"""Prediction and ground truth files of the published programs: read, write, join by key.

The files have no header:

- validation predictions: `clip,frame,x1,y1,x2,y2,track,1,score`
- validation ground truth: `clip,frame,x1,y1,x2,y2,track,label`
- test predictions: `video,unique_id,track,1,score`
- test ground truth: `video,unique_id,track,label`

The constant 1 is the class that is scored. Ids stay strings ("007", "10e5") and scores keep all digits. Rows are
identified by key (clip, track and frame, or clip, track and unique id), never by their order.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from backbones.opening import read_at_most
from benchmarks.data.csv_fields import check_widths, csv_rows, csv_text
from benchmarks.data.frames import BOX, LARGEST, numbered
from registry import UserError
from zoo.files.atomic import replacing
from zoo.files.untrusted import LARGEST_FILE, open_input

VALIDATION = ("clip", "frame", *BOX, "track")
TEST = ("clip", "unique_id", "track")
TEXT = {"clip", "unique_id", "track"}

BOX_TOLERANCE = 1e-3  # pixels, between equal boxes of two files: detections are rounded to three decimals

# From 3.1 on, pandas reads floats exactly by default and deprecates the option.
_EXACT: dict[str, Any] = (
    {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
)


def read_prediction_file(path: str | Path) -> pd.DataFrame:
    """Read a prediction file; the number of columns decides the format.

    Returns:
        One row per prediction, in file order: clip, frame, x1, y1, x2, y2, track (validation) or clip, unique_id, track
        (test), and score, float64. clip, track and unique_id are text.

    Raises:
        UserError: the file cannot be read, a row has the wrong number of fields, or one that is not a number, a frame
            or box of 2^31 or more, a class other than 1, a score that is NaN or outside [0, 1], or a repeated key.
    """
    path = Path(path)
    table = _read(path, {9: (*VALIDATION, "class", "score"), 5: (*TEST, "class", "score")}, "prediction")
    wrong = table["class"] != 1
    if wrong.any():
        raise UserError(f"{path}: {_rows(wrong)}: the column before the score must be 1, the class that is scored")
    score = table["score"].to_numpy()
    outside = ~((score >= 0) & (score <= 1))
    if outside.any():
        value = score[outside][0]
        raise UserError(f"{path}: {_rows(outside)}: score {value} is not in [0, 1]")
    return table.drop(columns="class")


def read_groundtruth(path: str | Path) -> pd.DataFrame:
    """Read a ground truth file: the columns of `read_prediction_file`, with label (0 or 1) instead of score.

    Raises:
        UserError: as `read_prediction_file`, or a label is neither 0 nor 1.
    """
    path = Path(path)
    table = _read(path, {8: (*VALIDATION, "label"), 4: (*TEST, "label")}, "ground truth")
    label = table["label"].to_numpy()
    wrong = (label != 0) & (label != 1)
    if wrong.any():
        value = label[wrong][0]
        raise UserError(f"{path}: {_rows(wrong)}: label {value:g} is neither 1 (looking) nor 0 (not looking)")
    return table.astype({"label": np.int64})


def write_predictions(path: str | Path, table: pd.DataFrame, split: str) -> None:
    """Write a prediction file atomically, with all digits of the scores.

    Args:
        path: of the file.
        table: score and the columns of the format; others are ignored.
        split: `test` for the test format, any other for the validation format.
    """
    columns = TEST if split == "test" else VALIDATION
    _write(Path(path), table[list(columns)].assign(one=1, score=table["score"].astype(np.float64)))


def write_groundtruth(path: str | Path, table: pd.DataFrame, split: str) -> None:
    """Write a ground truth file; arguments as for `write_predictions`, with label instead of score."""
    columns = TEST if split == "test" else VALIDATION
    _write(Path(path), table[[*columns, "label"]])


def is_test(table: pd.DataFrame) -> bool:
    """Whether a table that was read here is in test format."""
    return "frame" not in table


def match(reference: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str]) -> np.ndarray:
    """Find each row of one table in another, which must have the same rows in any order.

    Args:
        reference: N rows, from `read_prediction_file` or `read_groundtruth`.
        other: N rows.
        names: of the two tables, for messages.

    Returns:
        int64 (N,): row numbers of `other` in the order of `reference`.

    Raises:
        UserError: formats or boxes differ, or rows are missing or unknown; the message counts them and shows the first.
    """
    if is_test(reference) != is_test(other):
        kind = {False: "validation", True: "test"}
        raise UserError(
            f"{names[0]} is in {kind[is_test(reference)]} format and {names[1]} in {kind[is_test(other)]} format"
        )
    if all(reference[name].equals(other[name]) for name in _key(reference)):  # in the same order already
        found = np.arange(len(reference))
    else:
        found = _looked_up(reference, other, names)
    if not is_test(reference):
        apart = np.zeros(len(reference))
        for name in BOX:
            np.maximum(apart, np.abs(reference[name].to_numpy() - other[name].to_numpy()[found]), out=apart)
        differ = apart > BOX_TOLERANCE
        if differ.any():
            raise UserError(
                f"{names[0]} and {names[1]} have different boxes in {differ.sum()} of {len(apart)} rows, by up to "
                f"{apart.max():.3g} pixels{_named(reference, differ)}; they come from different detections or clean-up"
            )
    return found


def _looked_up(reference: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str]) -> np.ndarray:
    """`match` for keys in different order."""
    mine, theirs = _numbers([reference, other])
    my_order, their_order = np.argsort(mine), np.argsort(theirs)
    if not np.array_equal(mine[my_order], theirs[their_order]):
        missing, extra = ~np.isin(mine, theirs), ~np.isin(theirs, mine)
        faults = []
        if missing.any():
            faults.append(
                f"{names[1]} lacks {missing.sum()} of the {len(mine)} rows of {names[0]}{_named(reference, missing)}"
            )
        if extra.any():
            faults.append(f"{names[1]} has {extra.sum()} rows that {names[0]} lacks{_named(other, extra)}")
        raise UserError("; ".join(faults) or f"{names[0]} or {names[1]} has repeated rows")
    found = np.empty(len(mine), dtype=np.int64)
    found[my_order] = their_order
    return found


def _read(path: Path, formats: dict[int, tuple[str, ...]], what: str) -> pd.DataFrame:
    """Read a file without a header, in the format given by its number of columns, and check that keys are unique."""
    try:
        source, width, spaced = _opened(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error} ({what} file)") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    expected = " or ".join(f"{count} ({_header(columns)})" for count, columns in formats.items())
    if not width:
        raise UserError(f"{path}: empty; a {what} file has {expected} columns")
    if width not in formats:
        raise UserError(f"{path}: {width} columns; a {what} file has {expected} columns and no header")
    columns = formats[width]
    types: dict[str, type] = {name: object if name in TEXT else np.float64 for name in columns}
    try:
        table = _parse(source, columns, types, spaced)
    except (ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{path}: {_fault(source, columns, error)}") from None
    if "frame" in table:
        for name in ("frame", *BOX):
            large = ~(table[name].abs() < LARGEST)
            if large.any():
                kind = "whole number" if name == "frame" else "number"
                value = table[name][large].iloc[0]
                raise UserError(f"{path}: {_rows(large)}: {name} {value} is not a {kind} below 2^31")
        whole = table["frame"].to_numpy().astype(np.int64)
        fraction = table["frame"].to_numpy() != whole
        if fraction.any():
            value = table["frame"][fraction].iloc[0]
            raise UserError(f"{path}: {_rows(fraction)}: frame {value} is not a whole number")
        table["frame"] = whole
    number = _combined([_codes(table[name].to_numpy()) for name in _key(table)])
    for name in TEXT.intersection(columns):
        table[name] = table[name].astype(str)
    ordered = np.sort(number)
    if (ordered[1:] == ordered[:-1]).any():
        order = np.argsort(number, kind="stable")
        again = np.zeros(len(number), dtype=bool)
        again[order[1:]] = np.diff(number[order]) == 0
        raise UserError(f"{path}: {again.sum()} repeated rows{_named(table, again)}")
    return table


def _opened(path: Path) -> tuple[Path | bytes, int, bool]:
    """Open a file for pandas.

    Returns:
        A source that pandas can read repeatedly: the path of a regular file, else the content (of a pipe, say); the
        number of fields in the first row, 0 if there is none; whether there are any spaces.
    """
    with open_input(path) as file:
        if not path.is_file():
            data = read_at_most(file, LARGEST_FILE)
            return data, _first_width(io.BytesIO(data)), b" " in data
        width = _first_width(file)
        file.seek(0)
        return path, width, any(b" " in block for block in iter(lambda: file.read(1 << 20), b""))


def _first_width(file: BinaryIO) -> int:
    text = csv_text(file)
    width = next((len(row) for _, row in csv_rows(text)), 0)
    text.detach()  # else it closes the file
    return width


def _parse(source: Path | bytes, columns: Sequence[str], types: Mapping[str, type], spaced: bool) -> pd.DataFrame:
    options: dict[str, Any] = {"header": None, "names": list(columns), "dtype": types, "compression": None, **_EXACT}
    # `skipinitialspace` costs a quarter of the time, and hardly any file needs it.
    return pd.read_csv(
        io.BytesIO(source) if isinstance(source, bytes) else source,
        index_col=False,
        na_filter=False,
        skipinitialspace=spaced,
        **options,
    )


def _fault(source: Path | bytes, columns: Sequence[str], error: Exception) -> str:
    """Find the row or field that pandas could not read; its own message does not name it."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            check_widths(file, len(columns))
    except ValueError as odd:
        return str(odd)
    try:
        text = _parse(source, columns, dict.fromkeys(columns, str), spaced=True)
    except (ValueError, pd.errors.ParserError) as again:
        return " ".join(str(again).replace("Error tokenizing data. C error: ", "").split())
    for name in columns:
        if name not in TEXT:
            bad = pd.to_numeric(text[name], errors="coerce").isna()
            if bad.any():
                value = text[name][bad].iloc[0]
                fault = f"{value!r} is not a number" if value else "empty"
                hint = "; these files have no header" if bad.iloc[0] and not bad.iloc[1:].any() else ""
                return f"{_rows(bad)}, column {name}: {fault}{hint}"
    return str(error)


def _write(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, header=False, index=False, lineterminator="\n")


def _header(columns: Sequence[str]) -> str:
    names = {"class": "1"} | ({"clip": "video"} if "unique_id" in columns else {})
    return ",".join(names.get(name, name) for name in columns)


def _key(table: pd.DataFrame) -> tuple[str, ...]:
    """The columns that identify a row."""
    return ("clip", "track", "frame") if "frame" in table else ("clip", "track", "unique_id")


def _numbers(tables: Sequence[pd.DataFrame]) -> list[np.ndarray]:
    """Map the keys of tables of one format to int64 numbers; equal keys have equal numbers."""
    codes = [_codes(np.concatenate([table[name].to_numpy() for table in tables])) for name in _key(tables[0])]
    return np.split(_combined(codes), np.cumsum([len(table) for table in tables])[:-1])


def _codes(values: np.ndarray) -> np.ndarray:
    """Map the values of a column to int64 numbers from 0; equal values have equal numbers."""
    if values.dtype == np.int64 and len(values) and int(values.max()) - int(values.min()) < 2**40:
        return values - values.min()
    return numbered(values)[0]


def _combined(codes: Sequence[np.ndarray]) -> np.ndarray:
    """Combine the codes of each row into one int64 number; equal only if all codes are equal."""
    number, largest = codes[0], int(codes[0].max(initial=0))
    for code in codes[1:]:
        count = int(code.max(initial=0)) + 1
        largest = (largest + 1) * count - 1
        if largest >= 2**63:  # renumber, so that the products do not overflow
            number = numbered(number)[0]
            largest = (int(number.max(initial=0)) + 1) * count - 1
        number = number * count
        number += code
    return number


def _rows(mask: pd.Series | np.ndarray) -> str:
    count = int(mask.sum())
    first = f"row {int(np.argmax(np.asarray(mask))) + 1}"
    return first if count == 1 else f"{first} (and {count - 1} more)"


def _named(table: pd.DataFrame, mask: np.ndarray) -> str:
    row = table.iloc[int(np.argmax(mask))]
    start = ", the first: " if mask.sum() > 1 else ": "
    if is_test(table):
        return f"{start}video {row['clip']}, track {row['track']}, unique id {row['unique_id']}"
    return f"{start}clip {row['clip']}, track {row['track']}, frame {row['frame']}"
