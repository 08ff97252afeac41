"""A shard of a feature store that is being written, and its journal."""

from __future__ import annotations

import glob
import json
import os
import threading
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypedDict

import numpy as np
import torch
from typing_extensions import NotRequired  # typing has it from Python 3.11 on

from benchmarks.features.shard_files import DTYPE_NAMES, DTYPES, ShardFiles, shard_of
from zoo.files.atomic import cannot_write
from zoo.files.locks import Lock
from zoo.files.untrusted import checked


class _Record(TypedDict):
    """A line of the journal."""

    bytes: int
    fingerprint: str
    rows: NotRequired[dict[str, list[str]]]
    damaged: NotRequired[dict[str, list[str]]]
    dtype: NotRequired[str | None]
    end: NotRequired[bool]


class OpenShard:
    """A shard locked by this process. Features go to a journal; the last of them turns it into shard files.

    The journal is a sequence of records: a line of JSON, the bytes of the features, and the CRC-32 of both. A record
    truncated by a kill is dropped. After a record with `end` the shard files may be incomplete, so they are written
    again.

    Args:
        files: the shard files of the store.
        name: of the shard.
        lock: on the journal.
    """

    def __init__(self, files: ShardFiles, name: str, lock: Lock) -> None:
        self.name = name
        self._damaged: dict[str, set[str]] = defaultdict(set)
        self._files = files
        self._path = lock.path
        self._descriptor = os.open(lock.path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        self._lock = lock
        self._mutex = threading.Lock()
        self._outstanding = 0
        self._dtype: str | None = None
        # view -> image -> start and end of its row in the journal
        self._rows: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        self._end = 0
        for leftover in files.folder.glob(f"*/.{glob.escape(name)}.safetensors.*.part"):
            leftover.unlink(missing_ok=True)
        if self._replay():
            self._finish(keep=True)

    def has(self, view: str, image: str, or_damaged: bool = False) -> bool:
        """Whether the journal has the features of an image; with `or_damaged`, or lists the image as damaged."""
        return image in self._rows[view] or (or_damaged and image in self._damaged[view])

    def expect(self, count: int) -> None:
        """Set the number of features to come; the shard files are written with the last one, or now if it is 0."""
        with self._mutex:
            self._outstanding = count
            if not count:
                self._finish()

    def add(self, features: Mapping[str, tuple[Sequence[str], torch.Tensor]], damaged: Mapping[str, list[str]]) -> None:
        """Append the features of a batch to the journal. Thread-safe.

        Args:
            features: view -> N images and their features (N, D) on the CPU.
            damaged: view -> images that could not be decoded.
        """
        rows = {view: list(images) for view, (images, _) in features.items()}
        tensors = [tensor.contiguous() for _, tensor in features.values()]
        dtype = DTYPE_NAMES[tensors[0].dtype] if tensors else None
        data = b"".join(tensor.view(torch.uint8).numpy().tobytes() for tensor in tensors)
        with self._mutex:
            self._append({"rows": rows, "damaged": damaged, "dtype": dtype, "bytes": len(data)}, data)
            self._outstanding -= sum(map(len, rows.values())) + sum(map(len, damaged.values()))
            if not self._outstanding:
                self._finish()

    def close(self) -> None:
        """Unlock an unfinished shard and keep its journal, unless that is empty."""
        with self._mutex:
            if self._descriptor >= 0:
                self._release(remove=not any(self._rows.values()) and not any(self._damaged.values()))

    def _release(self, *, remove: bool) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        self._lock.release(remove=remove)

    def _finish(self, keep: bool = False) -> None:
        """Write the shard files, then delete the journal, or empty it to continue with the same lock."""
        views = {view for of in (self._rows, self._damaged) for view, found in of.items() if found}
        if views:
            self._append({"end": True, "bytes": 0}, b"")
            journal = np.asarray(np.memmap(self._path, np.uint8, "r"))
            for view in sorted(views):
                old = self._files.read_shard(view, self.name)
                rows = dict(zip(old.keys, old.data, strict=True)) if old else {}
                rows |= {key: journal[start:end] for key, (start, end) in self._rows[view].items()}
                dtype = self._dtype or (old.dtype if old else "F32")
                self._files.write(view, self.name, rows, {*(old.damaged if old else ()), *self._damaged[view]}, dtype)
        self._rows.clear()
        self._damaged.clear()
        if keep:
            os.ftruncate(self._descriptor, 0)
            self._end = 0
        else:
            self._release(remove=True)

    def _append(self, record: dict[str, Any], data: bytes) -> None:
        line = json.dumps({**record, "fingerprint": self._files.digest}, separators=(",", ":")).encode() + b"\n"
        crc = zlib.crc32(data, zlib.crc32(line))
        whole = memoryview(b"".join((line, data, crc.to_bytes(4, "little"))))
        at = self._end
        try:
            while at < self._end + len(whole):
                at += _write_at(self._descriptor, whole[at - self._end :], at)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._end)
            raise cannot_write(self._path, error) from error
        self._remember(record, self._end + len(line))
        self._end += len(whole)

    def _remember(self, record: Mapping[str, Any], start: int) -> None:
        count = sum(map(len, record.get("rows", {}).values()))
        if count:
            self._dtype = record["dtype"]
            row_bytes = record["bytes"] // count
            for view, images in record["rows"].items():
                for image in images:
                    self._rows[view][image] = (start, start + row_bytes)
                    start += row_bytes
        for view, images in record.get("damaged", {}).items():
            self._damaged[view].update(images)

    def _check(self, record: Any) -> None:
        """Check a record from disk: views are plain names, images belong to this shard, rows are complete.

        Raises:
            ValueError: `add` cannot have written it.
        """
        checked(record, _Record)
        rows, damaged = record.get("rows", {}), record.get("damaged", {})
        images = [image for of in (rows, damaged) for group in of.values() for image in group]
        if any(not view.isidentifier() for view in (*rows, *damaged)) or any(
            shard_of(image) != self.name for image in images
        ):
            raise ValueError("a view or an image of another shard")
        count, dtype = sum(map(len, rows.values())), record.get("dtype")
        row_bytes = 0 if dtype is None else (self._files.feature_dim or 0) * DTYPES[dtype].itemsize
        if record["bytes"] != count * row_bytes:
            raise ValueError("its number of bytes does not match its rows")

    def _replay(self) -> bool:
        """Read the journal of a killed process up to its first incomplete record; True if the shard was complete."""
        ended = False
        with os.fdopen(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            while line := file.readline():
                try:
                    record = json.loads(line)
                    self._check(record)
                    data = file.read(record["bytes"])
                    sound = file.read(4) == zlib.crc32(data, zlib.crc32(line)).to_bytes(4, "little")
                    if not sound or record["fingerprint"] != self._files.digest:
                        break
                    self._remember(record, self._end + len(line))
                except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                    break
                ended = ended or "end" in record
                self._end = file.tell()
        os.ftruncate(self._descriptor, self._end)
        return ended


def _write_at(descriptor: int, data: memoryview, at: int) -> int:
    """Write at a place of a file that no other thread writes meanwhile; returns the number of bytes written."""
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, at)
    os.lseek(descriptor, at, os.SEEK_SET)  # Windows
    return os.write(descriptor, data)
