"""Prediction and ground truth files of the published programs: read, write, join by key, fuse and smooth.

The files have no header. Validation predictions are `clip,frame,x1,y1,x2,y2,track,1,score`, their ground truth
`clip,frame,x1,y1,x2,y2,track,label`; test predictions are `video,unique_id,track,1,score`, their ground truth
`video,unique_id,track,label`. The constant 1 is the class that the score is for. Ids stay the strings they are
("007", "10e5"), scores keep every digit, and rows are found by key (clip, track and frame, or unique id), never by
their order.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data.frames import BOX, numbered
from registry import UserError
from zoo.files.atomic import replacing
from zoo.files.untrusted import open_input

VALIDATION = ("clip", "frame", *BOX, "track")
TEST = ("clip", "unique_id", "track")
TEXT = {"clip", "unique_id", "track"}

# Boxes of two files are the same when no edge differs by more: files round to six decimals, detections to three.
BOX_TOLERANCE = 1e-3

# pandas reads floats to the last digit from 3.1 on, where asking for it is deprecated.
_EXACT: dict[str, Any] = (
    {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
)


def read_prediction_file(path: str | Path) -> pd.DataFrame:
    """Read a prediction file of either format, told apart by the number of columns.

    Returns:
        One row a prediction, in file order: clip, frame, x1, y1, x2, y2, track (validation) or clip, unique_id, track
        (test), and score, float64. clip, track and unique_id are text.

    Raises:
        UserError: no such file, another number of columns, a field that is no number, a class other than 1, a score
            that is NaN or outside [0, 1], or a key that comes twice.
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
        raise UserError(f"{path}: {_rows(outside)}: score {value}, but scores lie in [0, 1]")
    return table.drop(columns="class")


def read_groundtruth(path: str | Path) -> pd.DataFrame:
    """Read a ground truth file of either format: the columns of `read_predictions`, with label 0 or 1 for score.

    Raises:
        UserError: as `read_predictions`, and for a label that is neither 0 nor 1.
    """
    path = Path(path)
    table = _read(path, {8: (*VALIDATION, "label"), 4: (*TEST, "label")}, "ground truth")
    label = table["label"].to_numpy()
    wrong = (label != 0) & (label != 1)
    if wrong.any():
        value = label[wrong][0]
        raise UserError(f"{path}: {_rows(wrong)}: label {value:g}, but labels are 1 (looking) or 0 (not looking)")
    return table.astype({"label": np.int64})


def write_predictions(path: str | Path, table: pd.DataFrame, split: str) -> None:
    """Write a prediction file, atomically and with every digit of the scores.

    Args:
        path: where to.
        table: the columns of the format (those of a FrameTable will do) and score.
        split: "test" for the test format, any other for the validation format.
    """
    columns = TEST if split == "test" else VALIDATION
    _write(Path(path), table[list(columns)].assign(one=1, score=table["score"].astype(np.float64)))


def write_groundtruth(path: str | Path, table: pd.DataFrame, split: str) -> None:
    """Write a ground truth file; arguments as for `write_predictions`, with label for score."""
    columns = TEST if split == "test" else VALIDATION
    _write(Path(path), table[[*columns, "label"]])


def is_test(table: pd.DataFrame) -> bool:
    """Tell whether a table that was read here has the test format."""
    return "frame" not in table


def match(reference: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str]) -> np.ndarray:
    """Find each row of one table in another that must have the same rows, in whatever order.

    Args:
        reference: N rows, from `read_predictions` or `read_groundtruth`.
        other: the table to look in.
        names: what the two are called in messages.

    Returns:
        int64 (N,): row numbers of `other` in the order of `reference`.

    Raises:
        UserError: formats differ, rows are missing or too many (how many, and the first), or boxes differ.
    """
    if is_test(reference) != is_test(other):
        kind = {False: "validation", True: "test"}
        raise UserError(
            f"{names[0]} is in {kind[is_test(reference)]} format and {names[1]} in {kind[is_test(other)]} format"
        )
    if all(reference[name].equals(other[name]) for name in _key(reference)):  # as one program writes them
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
                f"{names[0]} and {names[1]} have other boxes in {differ.sum()} of {len(apart)} rows, by up to "
                f"{apart.max():.3g} pixels{_named(reference, differ)}; they are of different detections or clean-up"
            )
    return found


def _looked_up(reference: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str]) -> np.ndarray:
    """Find each key of one table in another, for `match`."""
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
            faults.append(f"{names[1]} has {extra.sum()} rows that {names[0]} has not{_named(other, extra)}")
        raise UserError("; ".join(faults) or f"{names[0]} or {names[1]} has a row twice")
    found = np.empty(len(mine), dtype=np.int64)
    found[my_order] = their_order
    return found


def _read(path: Path, formats: dict[int, tuple[str, ...]], what: str) -> pd.DataFrame:
    """Read a file without header whose format follows from its number of columns; text and float64, keys unique."""
    try:
        source, first, spaced = _opened(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error} ({what} file)") from None
    expected = " or ".join(f"{count} ({_header(columns)})" for count, columns in formats.items())
    if not first:
        raise UserError(f"{path}: empty; a {what} file has {expected} columns")
    width = first.count(b",") + 1
    if width not in formats:
        raise UserError(f"{path}: {width} columns; a {what} file has {expected} columns and no header")
    columns = formats[width]
    types: dict[str, type] = {name: object if name in TEXT else np.float64 for name in columns}
    try:
        table = _parse(source, columns, types, spaced)
    except (ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{path}: {_fault(source, columns, error)}") from None
    if "frame" in table:
        with np.errstate(invalid="ignore"):  # of infinity
            whole = table["frame"].to_numpy().astype(np.int64)
        fraction = table["frame"].to_numpy() != whole
        if fraction.any():
            raise UserError(f"{path}: {_rows(fraction)}: frame {table['frame'][fraction].iloc[0]} is no whole number")
        table["frame"] = whole
    number = _combined([_codes(table[name].to_numpy()) for name in _key(table)])
    for name in TEXT.intersection(columns):
        table[name] = table[name].astype(str)
    ordered = np.sort(number)
    if (ordered[1:] == ordered[:-1]).any():
        order = np.argsort(number, kind="stable")
        again = np.zeros(len(number), dtype=bool)
        again[order[1:]] = np.diff(number[order]) == 0
        raise UserError(f"{path}: {again.sum()} rows come twice{_named(table, again)}")
    return table


def _opened(path: Path) -> tuple[Path | bytes, bytes, bool]:
    """What pandas can read from, as often as needed; the first line that is not blank; whether there is any blank.

    A file is left to pandas, which reads large ones in parallel; anything else, such as a pipe, is read here.
    """
    with open_input(path) as file:
        if not path.is_file():
            data = file.read()
            return data, data.lstrip().split(b"\n", 1)[0], b" " in data
        first = next((line.strip() for line in file if line.strip()), b"")
        file.seek(0)
        return path, first, any(b" " in block for block in iter(lambda: file.read(1 << 20), b""))


def _parse(source: Path | bytes, columns: Sequence[str], types: Mapping[str, type], spaced: bool) -> pd.DataFrame:
    options: dict[str, Any] = {"header": None, "names": list(columns), "dtype": types, "compression": None, **_EXACT}
    # Looking for blanks after commas takes a quarter of the time, and hardly any file has one.
    return pd.read_csv(
        io.BytesIO(source) if isinstance(source, bytes) else source,
        index_col=False,
        na_filter=False,
        skipinitialspace=spaced,
        **options,
    )


def _fault(source: Path | bytes, columns: Sequence[str], error: Exception) -> str:
    """Say which field of a file could not be read; the parser itself only says that one could not."""
    try:
        text = _parse(source, columns, dict.fromkeys(columns, str), spaced=True)
    except (ValueError, pd.errors.ParserError) as again:
        return " ".join(str(again).replace("Error tokenizing data. C error: ", "").split())
    for name in columns:
        if name not in TEXT:
            bad = pd.to_numeric(text[name], errors="coerce").isna()
            if bad.any():
                value = text[name][bad].iloc[0]
                said = f"{value!r} is no number" if value else "nothing there"
                hint = "; these files have no header" if bad.iloc[0] and not bad.iloc[1:].any() else ""
                return f"{_rows(bad)}, column {name}: {said}{hint}"
    return str(error)


def _write(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, header=False, index=False, lineterminator="\n")


def _header(columns: Sequence[str]) -> str:
    names = {"class": "1"} | ({"clip": "video"} if "unique_id" in columns else {})
    return ",".join(names.get(name, name) for name in columns)


def _key(table: pd.DataFrame) -> tuple[str, ...]:
    """The columns that tell rows apart."""
    return ("clip", "track", "frame") if "frame" in table else ("clip", "track", "unique_id")


def _numbers(tables: Sequence[pd.DataFrame]) -> list[np.ndarray]:
    """Number the keys of some tables of one format: int64 arrays, equal where the keys are."""
    codes = [_codes(np.concatenate([table[name].to_numpy() for table in tables])) for name in _key(tables[0])]
    return np.split(_combined(codes), np.cumsum([len(table) for table in tables])[:-1])


def _codes(values: np.ndarray) -> np.ndarray:
    """Number the values of a column: int64 from 0 on, equal where they are."""
    if values.dtype == np.int64 and len(values) and int(values.max()) - int(values.min()) < 2**40:
        return values - values.min()
    return numbered(values)[0]


def _combined(codes: Sequence[np.ndarray]) -> np.ndarray:
    """One number for each row's codes: int64, equal where all of them are."""
    number, largest = codes[0], int(codes[0].max(initial=0))
    for code in codes[1:]:
        count = int(code.max(initial=0)) + 1
        largest = (largest + 1) * count - 1
        if largest >= 2**63:  # numbered anew, so that the products stay small
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
    where = f"unique id {row['unique_id']}" if is_test(table) else f"frame {row['frame']}"
    kind = "video" if is_test(table) else "clip"
    return f", the first: {kind} {row['clip']}, track {row['track']}, {where}" if mask.sum() > 1 else (
        f": {kind} {row['clip']}, track {row['track']}, {where}"
    )  # fmt: skip
