"""Byte-by-byte comparison of the folders that two runs left, without times and versions."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

SUMS = "SHA256SUMS"
LARGEST = 1 << 30  # bytes; no scenario writes as much

# Durations of the runs that filled a store, and unheld locks of killed runs, which the next writer removes.
IGNORED = re.compile(r"\.(log\.jsonl|lock)$")


def contents(folder: Path) -> dict[str, bytes]:
    """Return path -> content without times of all files below a folder, hidden and partial files included."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not path.is_symlink() and not IGNORED.search(name):
            found[name] = timeless(path)
    return found


def timeless(path: Path) -> bytes:
    """Return the content of a file without dates and durations; unchanged if it cannot be parsed."""
    if path.stat().st_size > LARGEST:
        return b"endless"
    data = path.read_bytes()
    try:
        if path.name == "result.json":
            result = json.loads(data)
            del result["date"], result["seconds"], result["environment"]
            for training in result["training"]:
                del training["seconds"]
            return _dumped(result)
        if path.name == "training.json":
            report = json.loads(data)
            del report["seconds"]
            return _dumped(report)
        if path.name == "config.py":
            return re.sub(rb", as it was run on [^\n]*", b"", data, count=1)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return b"".join(name.encode() + arrays[name].tobytes() for name in sorted(arrays))
        if path.name == SUMS:
            return _checked(path, data)
    except Exception:  # damaged
        return data
    return data


def _dumped(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _checked(path: Path, data: bytes) -> bytes:
    """Replace each checksum in a file of sums by `right` or `wrong`: checksums depend on times."""
    lines = []
    for line in data.decode().splitlines():
        sum_, name = line.split("  ", 1)
        file = path.parent / name
        right = file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sum_
        lines.append(f"{name} {'right' if right else 'wrong'}")
    return "\n".join(lines).encode()


def difference(found: dict[str, bytes], wanted: dict[str, bytes]) -> dict[str, list[str]]:
    """Return the names of files that are `missing`, `left over` or `differ`; empty if the folders agree."""
    out = {
        "missing": sorted(wanted.keys() - found.keys()),
        "left over": sorted(found.keys() - wanted.keys()),
        "differ": sorted(name for name in wanted.keys() & found.keys() if found[name] != wanted[name]),
    }
    return {what: names for what, names in out.items() if names}
