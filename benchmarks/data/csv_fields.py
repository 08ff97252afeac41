"""CSV files in which every row has one field per column.

pandas alone takes the first field of longer rows as an index, drops fields, or fills shorter rows up.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import pandas as pd


def csv_text(file: BinaryIO) -> io.TextIOWrapper:
    """The text of a file as `csv_rows` takes it: with its line ends, which may be part of a quoted field."""
    return io.TextIOWrapper(file, "utf-8-sig", newline="")


def csv_rows(lines: Iterable[str], spaced: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Parse rows as pandas does, without the blank ones; each with its line number, from 1.

    Args:
        lines: with their line ends.
        spaced: ignore blanks after commas, as pandas' `skipinitialspace`.

    Raises:
        ValueError: the csv module cannot parse a line.
    """
    reader = csv.reader(lines, skipinitialspace=spaced)
    try:
        for row in reader:
            if len(row) > 1 or "".join(row).strip():
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None


def check_widths(file: BinaryIO, width: int, spaced: bool = True) -> None:
    r"""Check that all rows of a file have the same number of fields.

    Raises:
        ValueError: names the first line with another number.

    Example:
        >>> check_widths(io.BytesIO(b'a,b\n1,"2,5"\n3,4,5\n'), 2)
        Traceback (most recent call last):
        ValueError: line 3 has 3 fields instead of 2
    """
    for line, row in csv_rows(csv_text(file), spaced):
        if len(row) != width:
            raise ValueError(f"line {line} has {len(row)} field{'s' * (len(row) != 1)} instead of {width}")


def read_csv(data: bytes, **options: Any) -> pd.DataFrame:
    """Read a CSV file with a header. From bytes, pandas never unpacks an archive.

    Args:
        data: content of the file.
        options: of `pandas.read_csv`.

    Raises:
        ValueError: a row has more or fewer fields than the header, a column appears twice, or pandas cannot read it.
    """
    spaced = options.get("skipinitialspace", False)
    _, header = next(csv_rows(csv_text(io.BytesIO(data)), spaced), (0, []))
    names = [name.strip() for name in header if name.strip()]
    if len(set(names)) < len(names):
        raise ValueError(f"the header names {next(name for name in names if names.count(name) > 1)} twice")
    # Counting commas is several times faster than the csv module.
    if b'"' in data or {line.count(b",") for line in io.BytesIO(data)} != {len(header) - 1}:
        check_widths(io.BytesIO(data), len(header), spaced)
    table: pd.DataFrame = pd.read_csv(io.BytesIO(data), index_col=False, **options)
    return table
