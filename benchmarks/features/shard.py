"""One shard of a feature store: its file, and the journal it is built from."""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np
import torch
from typing_extensions import NotRequired  # typing has it from Python 3.11 on

from benchmarks.system import schema
from registry import UserError
from zoo.files.atomic import cannot_write
from zoo.files.locks import Lock

if TYPE_CHECKING:
    from benchmarks.features.store import FeatureStore

# safetensors' name of a dtype -> torch's
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class DamagedShardError(UserError):
    """A feature file whose bytes are not those that were written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"damaged feature file {path} ({reason}); extract again, which makes it anew")


class Shard(NamedTuple):
    """One feature file, open: `data` is (N, bytes a row) uint8, memory-mapped."""

    keys: list[str]
    damaged: list[str]
    dtype: str
    data: np.ndarray


def shard_of(image: str) -> str:
    """Name of the shard that an image path belongs to: its first folder, `_` for a file at the root itself."""
    first, slash, _ = image.partition("/")
    return first if slash else "_"


class _Record(TypedDict):
    """A line of the journal."""

    bytes: int
    fingerprint: str
    rows: NotRequired[dict[str, list[str]]]
    damaged: NotRequired[dict[str, list[str]]]
    dtype: NotRequired[str | None]
    end: NotRequired[bool]


class OpenShard:
    """A shard that this process alone works on. What is computed goes to a journal; the last of it makes the files.

    The journal is a row of records: a line of JSON, the features' bytes, and the CRC-32 of both. A record that a kill
    cut short is dropped; one that says `end` means that the files may be being written, and are written again.
    """

    def __init__(self, store: FeatureStore, name: str, lock: Lock) -> None:
        self.name = name
        self.damaged: dict[str, set[str]] = defaultdict(set)
        self._store = store
        self._path = lock.path
        self._descriptor = os.open(lock.path, os.O_RDWR)
        self._lock = lock
        self._mutex = threading.Lock()
        self._outstanding = 0
        self._dtype: str | None = None
        # view -> image -> place of its row in the journal
        self._rows: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        self._end = 0
        for left_over in store.folder.glob(f"*/.{escape_glob(name)}.safetensors.*.part"):
            left_over.unlink(missing_ok=True)
        if self._replay():
            self._finish(keep=True)

    def has(self, view: str, image: str, or_damaged: bool = False) -> bool:
        """Whether the journal has the features, or says that the image is damaged, where that will do."""
        return image in self._rows[view] or (or_damaged and image in self.damaged[view])

    def expect(self, count: int) -> None:
        """Say how many features `add` will bring; the files are made with the last of them, at once where none is."""
        with self._mutex:
            self._outstanding = count
            if not count:
                self._finish()

    def add(self, features: Mapping[str, tuple[Sequence[str], torch.Tensor]], damaged: Mapping[str, list[str]]) -> None:
        """Keep what a batch brought; from any thread.

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
        """Let go of an unfinished shard; its journal stays."""
        with self._mutex:
            if self._descriptor >= 0:
                self._release(remove=not any(self._rows.values()) and not any(self.damaged.values()))

    def _release(self, *, remove: bool) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        self._lock.release(remove=remove)

    def _finish(self, keep: bool = False) -> None:
        """Make the files, then take the journal away, or empty it where work goes on."""
        views = {view for of in (self._rows, self.damaged) for view, found in of.items() if found}
        if views:
            self._append({"end": True, "bytes": 0}, b"")
            journal = np.asarray(np.memmap(self._path, np.uint8, "r"))
            for view in sorted(views):
                old = self._store.held(view, self.name)
                rows = dict(zip(old.keys, old.data, strict=True)) if old else {}
                rows |= {key: journal[start:end] for key, (start, end) in self._rows[view].items()}
                dtype = self._dtype or (old.dtype if old else "F32")
                self._store.write(view, self.name, rows, {*(old.damaged if old else ()), *self.damaged[view]}, dtype)
        self._rows.clear()
        self.damaged.clear()
        if keep:
            os.ftruncate(self._descriptor, 0)
            self._end = 0
        else:
            self._release(remove=True)

    def _append(self, record: dict[str, Any], data: bytes) -> None:
        line = json.dumps({**record, "fingerprint": self._store.digest}, separators=(",", ":")).encode() + b"\n"
        crc = zlib.crc32(data, zlib.crc32(line))
        whole = memoryview(b"".join((line, data, crc.to_bytes(4, "little"))))
        at = self._end
        try:
            while at < self._end + len(whole):
                at += os.pwrite(self._descriptor, whole[at - self._end :], at)
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
            self.damaged[view].update(images)

    def _check(self, record: Any) -> None:
        """Check a record that was read: views that name a folder of the store, images of this shard, whole rows.

        Raises:
            ValueError: it is none that `add` has written.
        """
        schema.check(record, _Record)
        rows, damaged = record.get("rows", {}), record.get("damaged", {})
        images = [image for of in (rows, damaged) for group in of.values() for image in group]
        if any(not view.isidentifier() for view in (*rows, *damaged)) or any(
            shard_of(image) != self.name for image in images
        ):
            raise ValueError("a view or an image that cannot be this shard's")
        count, dtype = sum(map(len, rows.values())), record.get("dtype")
        row_bytes = 0 if dtype is None else (self._store.feature_dim or 0) * DTYPES[dtype].itemsize
        if record["bytes"] != count * row_bytes:
            raise ValueError("another number of bytes than its rows have")

    def _replay(self) -> bool:
        """Read the journal that a killed process left, up to the record that it did not finish; True if it was done."""
        ended = False
        with os.fdopen(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            while line := file.readline():
                try:
                    record = json.loads(line)
                    self._check(record)
                    data = file.read(record["bytes"])
                    sound = file.read(4) == zlib.crc32(data, zlib.crc32(line)).to_bytes(4, "little")
                    if not sound or record["fingerprint"] != self._store.digest:
                        break
                    self._remember(record, self._end + len(line))
                except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                    break
                ended = ended or "end" in record
                self._end = file.tell()
        os.ftruncate(self._descriptor, self._end)
        return ended


def by_shard(images: Iterable[str]) -> dict[str, list[str]]:
    """Image paths by the name of their shard."""
    groups: dict[str, list[str]] = defaultdict(list)
    for image in images:
        groups[shard_of(image)].append(image)
    return dict(groups)


def escape_glob(name: str) -> str:
    """A name as a pattern of `glob` that matches it alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
