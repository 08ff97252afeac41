"""Frame tables kept in the cache folder, column by column, so that reading a split again takes milliseconds.

A kept table is used only where it was made by this very code from inputs that have not changed since, which its
`signature` says, and where its bytes are the ones that were written. Anything else is as if it were not there. Nothing
in it is executed: it holds numbers, text, and a JSON header. Without a cache folder that can be written, nothing is
kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data.frames import BOX, COLUMNS, TEXT, repeated
from registry import UserError
from zoo.files.atomic import replacing

NUMBERS = {"frame": "i8", **dict.fromkeys(BOX, "f8"), "label": "i8"}

# Below this a table is read about as fast as it is looked up.
MIN_ROWS = 10_000

_MAGIC = b"lamzoo frame table 1\n".ljust(32)
_START = len(_MAGIC) + 32  # of what the checksum covers
_ALIGNED = 64  # bytes; where columns start, so that they are used where they were read
_PAGE = 4096  # bytes that are summed for the checksum


def cache_folder() -> Path:
    """The folder that holds unpacked data: `LAMZOO_CACHE`, else the platform's cache folder."""
    named = os.environ.get("LAMZOO_CACHE")
    if named:
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("lamzoo"))


def load(asked: Sequence[str], signature: str) -> pd.DataFrame | None:
    """The table that was kept for this question with this signature, or None.

    Args:
        asked: what was asked for, in words, such as the root and the split.
        signature: a digest of everything that the answer depends on.
    """
    try:
        with _path(asked).open("rb", buffering=0) as file:
            data = np.fromfile(file, dtype=np.uint8)
        return _decoded(data, signature)
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, RuntimeError, MemoryError):
        return None


def store(asked: Sequence[str], signature: str, table: pd.DataFrame) -> None:
    """Keep a table of `frames.frame_table` with the columns of `COLUMNS`, if it is large enough and can be kept."""
    if len(table) < MIN_ROWS or tuple(table.columns) != COLUMNS:
        return
    with suppress(OSError, UserError, ValueError, RuntimeError), replacing(_path(asked)) as temporary:
        temporary.write_bytes(_encoded(table, signature))


def _path(asked: Sequence[str]) -> Path:
    name = hashlib.sha256("\0".join(asked).encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / "frames" / f"{name[:32]}.bin"


def _encoded(table: pd.DataFrame, signature: str) -> bytes:
    """The file: the magic line, the checksum of what follows, the header's length, the header, the columns."""
    parts: list[bytes] = []
    columns: dict[str, list[int]] = {}
    start = 0

    def place(values: np.ndarray | bytes) -> list[int]:
        nonlocal start
        data = values if isinstance(values, bytes) else np.ascontiguousarray(values).tobytes()
        begin, length = start, len(data)
        parts.append(data + bytes(-length % _ALIGNED))
        start += len(parts[-1])
        return [begin, length]

    for name in NUMBERS:
        columns[name] = place(table[name].to_numpy())
    for name in TEXT:
        # A value and how often it comes in a row: clips, tracks and people fill a thousand rows each.
        text = table[name].to_numpy(dtype=object)
        first = np.flatnonzero(np.concatenate([[True], text[1:] != text[:-1]]))
        joined = "\0".join(text[first])
        if joined.count("\0") != len(first) - 1:
            raise ValueError(f"{name}: text with a null character")
        counts = np.diff(np.append(first, len(text)))
        columns[name] = place(joined.encode("utf-8", "surrogateescape")) + place(counts)
    header = json.dumps({"signature": signature, "rows": len(table), "columns": columns}).encode()
    header += b" " * (-(_START + 8 + len(header)) % _ALIGNED)
    content = len(header).to_bytes(8, "little") + header + b"".join(parts)
    return _MAGIC + _checksum(np.frombuffer(content, dtype=np.uint8)) + content


def _checksum(content: np.ndarray) -> bytes:
    """The sha256 of the sums of all pages: six times as fast as a CRC of all bytes, and as good against accidents."""
    whole = len(content) // _PAGE * _PAGE
    sums = content[:whole].view(np.uint64).reshape(-1, _PAGE // 8).sum(axis=1)
    return hashlib.sha256(sums.tobytes() + content[whole:].tobytes()).digest()


def _decoded(data: np.ndarray, signature: str) -> pd.DataFrame | None:
    """The table of a file, or None or any of `load`'s errors where it is another's, damaged, or out of date."""
    content = data[_START:]
    if data[: len(_MAGIC)].tobytes() != _MAGIC or data[len(_MAGIC) : _START].tobytes() != _checksum(content):
        return None
    body = _START + 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(data[_START + 8 : body].tobytes())
    if header["signature"] != signature:
        return None
    rows = header["rows"]

    def taken(name: str, kind: str, place: int = 0) -> np.ndarray:
        begin, length = header["columns"][name][place : place + 2]
        return data[body + begin : body + begin + length].view(kind)

    columns: dict[str, Any] = {name: taken(name, kind) for name, kind in NUMBERS.items()}
    if any(len(column) != rows for column in columns.values()):
        return None
    # One block for all text: memory in pieces of a column's size comes a page at a time, which takes longer than all
    # else here. pandas has no public way to take text without looking at each string again; where the private one is
    # missing, as for Arrow's strings, the columns are made one by one.
    unchecked = getattr(repeated([""], [1]), "_from_backing_data", None)
    block = np.empty((len(TEXT), rows if unchecked else 0), dtype=object)
    for name, filled in zip(TEXT, block, strict=True):
        text = taken(name, "u1").tobytes().decode("utf-8", "surrogateescape").split("\0")
        counts = taken(name, "i8", 2)
        if counts.sum() != rows or counts.min() < 1 or len(text) != len(counts):
            return None
        if unchecked is None:
            columns[name] = repeated(text, counts)
            continue
        if len(text) == rows:
            filled[:] = text
        else:
            ends = np.cumsum(counts)
            for value, begin, end in zip(text, (ends - counts).tolist(), ends.tolist(), strict=True):
                filled[begin:end] = value
        columns[name] = unchecked(filled)
    return pd.DataFrame({name: columns[name] for name in COLUMNS}, copy=False)
