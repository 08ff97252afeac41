"""A cache of frame tables, stored by column, so that reading a split again takes milliseconds.

A cached table is used only if its `signature` shows the same code and unchanged inputs, and if its checksum is right;
otherwise the table is rebuilt. The file holds numbers, text and a JSON header, and nothing in it is executed. Without
a writable cache folder, tables are not cached.
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
import platformdirs

from backbones.opening import open_regular
from benchmarks.data.frames import BOX, COLUMNS, TEXT, repeated
from registry import UserError
from zoo.files.atomic import replacing

NUMBERS = {"frame": "i8", **dict.fromkeys(BOX, "f8"), "label": "i8"}

# Smaller tables are read from the annotations about as fast as from the cache.
MIN_ROWS = 10_000

MAGIC = b"lamzoo frame table 1\n".ljust(32)
_START = len(MAGIC) + 32  # of the bytes that the checksum covers
_ALIGNED = 64  # bytes; alignment of columns, so that they are used without a copy
_PAGE = 4096  # bytes per sum of the checksum


def cache_folder() -> Path:
    """Returns the folder for unpacked data: `LAMZOO_CACHE`, else the platform's cache folder."""
    named = os.environ.get("LAMZOO_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(platformdirs.user_cache_dir("lamzoo"))


def load_table(asked: Sequence[str], signature: str) -> pd.DataFrame | None:
    """Returns the cached table for a key and signature, or None.

    Args:
        asked: the key, such as the root and the split.
        signature: digest of everything that the table depends on.
    """
    try:
        with open_regular(_path(asked), "rb", buffering=0) as file:
            data = np.fromfile(file, dtype=np.uint8)
        return _decoded(data, signature)
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, RuntimeError, MemoryError):
        return None


def store_table(asked: Sequence[str], signature: str, table: pd.DataFrame) -> None:
    """Caches a table of `frames.frame_table` with the columns of `COLUMNS`, if it is large enough."""
    if len(table) < MIN_ROWS or tuple(table.columns) != COLUMNS:
        return
    with suppress(OSError, UserError, ValueError, RuntimeError), replacing(_path(asked)) as temporary:
        temporary.write_bytes(_encoded(table, signature))


def _path(asked: Sequence[str]) -> Path:
    name = hashlib.sha256("\0".join(asked).encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / "frames" / f"{name[:32]}.bin"


def _encoded(table: pd.DataFrame, signature: str) -> bytes:
    """Encodes a file: magic line, checksum of the rest, length of the header, header, columns."""
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
        # Run-length encoding: a clip, track or person fills about a thousand consecutive rows.
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
    return MAGIC + page_checksum(np.frombuffer(content, dtype=np.uint8)) + content


def page_checksum(content: np.ndarray) -> bytes:
    """Returns the sha256 of the sums of all pages: six times as fast as a CRC, as good against accidental damage."""
    whole = len(content) // _PAGE * _PAGE
    sums = content[:whole].view(np.uint64).reshape(-1, _PAGE // 8).sum(axis=1)
    return hashlib.sha256(sums.tobytes() + content[whole:].tobytes()).digest()


def _decoded(data: np.ndarray, signature: str) -> pd.DataFrame | None:
    """Decodes a file; returns None or raises an error that `load_table` catches if it is damaged or out of date."""
    content = data[_START:]
    if data[: len(MAGIC)].tobytes() != MAGIC or data[len(MAGIC) : _START].tobytes() != page_checksum(content):
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
    # One block for all text: allocating each column page by page would take longer than the rest. pandas has no public
    # constructor that skips validating each string; without the private one, as for Arrow, columns are built singly.
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
