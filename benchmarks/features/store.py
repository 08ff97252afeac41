"""The feature store: features by view and image path, in files that are whole, checked, or not there.

A store is a folder with `manifest.json` (fingerprint, feature width, views, damaged crops) and one file a clip and
view, `<view>/<clip>.safetensors`: tensor `features` (N, D), rows sorted by key, and in its metadata `keys`, a JSON list
of the N image paths relative to the images' root. The first folder of a path names the shard, so trees of another depth
work too. `docs/features.md` says what holds when a process is killed, a disk forgets, or two processes meet.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.features.shard import DTYPES, DamagedShardError, OpenShard, Shard, by_shard, shard_of
from benchmarks.system.locks import NAME, locked
from registry import UserError
from zoo.files.atomic import cannot_write, replacing, write_text
from zoo.files.locks import take_lock
from zoo.files.untrusted import below, open_input

FORMAT = 2

_NO_CRC = "0" * 8  # keeps its place in the header until the data has been written


class FeatureStore:
    """Features by view and image path.

    Args:
        folder: where the store is or will be; nothing is written before `create`.
        fingerprint: the backbone's `fingerprint()`. A store made under another one is refused.

    Raises:
        UserError: the folder holds features of another fingerprint, or something that is no store.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self.folder = folder
        self.fingerprint = json.loads(json.dumps(fingerprint))
        text = json.dumps(self.fingerprint, sort_keys=True)
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.feature_dim: int | None = None
        # What was checked against its checksum, by path: nothing is read twice for that.
        self._checked: dict[Path, tuple[int, int, int]] = {}
        self._unsound: dict[Path, tuple[int, int, int]] = {}
        self._check_manifest()

    @property
    def damaged(self) -> list[str]:
        """Images that could not be decoded, of all runs that left such images out."""
        manifest = self._check_manifest()
        return manifest["damaged"] if manifest else []

    @property
    def log_path(self) -> Path:
        """What each run took, a line each: beside the folder, since no two runs take the same."""
        folder = self.folder.resolve()  # `.` has no name
        return folder.with_name(f"{folder.name}.log.jsonl")

    @property
    def seconds(self) -> float:
        """What making the store took, over all runs and processes."""
        try:
            lines = self.log_path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return 0.0
        seconds = 0.0
        for line in lines:
            with suppress(ValueError, KeyError):  # a line cut short by a kill
                seconds += json.loads(line)["seconds"]
        return seconds

    def path(self, view: str, shard: str) -> Path:
        """The file of one shard."""
        return below(self.folder, f"{view}/{shard}.safetensors", "a feature file")

    def keys(self, view: str, shard: str) -> list[str]:
        """Image paths whose features the shard holds, sorted; none when there is no such shard, or a damaged one."""
        try:
            loaded = self._load(self.path(view, shard), check=False)
        except DamagedShardError:
            return []
        return loaded.keys if loaded else []

    def missing(self, view: str, images: Iterable[str]) -> list[str]:
        """Those of `images` that the view lacks, in order, each once."""
        lacking = []
        for shard, group in by_shard(images).items():
            have = set(self.keys(view, shard))
            lacking += [image for image in dict.fromkeys(group) if image not in have]
        return lacking

    def read(self, view: str, images: Sequence[str]) -> torch.Tensor:
        """Features (N, D) of N images, in their order and the dtype they were stored in.

        Raises:
            UserError: one of them was never encoded, or lies in a damaged file. Absence is not silent.
        """
        positions = defaultdict(list)
        for position, image in enumerate(images):
            positions[shard_of(image)].append(position)
        rows = None
        dtype = torch.float32
        for shard, group in positions.items():
            loaded = self._load(self.path(view, shard), check=True)
            row_of = {key: row for row, key in enumerate(loaded.keys)} if loaded else {}
            found = [row_of.get(images[position], -1) for position in group]
            if loaded is None or -1 in found:
                absent = images[group[found.index(-1)]]
                more = f" (and {found.count(-1) - 1} more of {shard})" if found.count(-1) > 1 else ""
                raise UserError(f"{self.folder} has no {view} features of {absent}{more}; extract them")
            if rows is None:
                rows = np.empty((len(images), loaded.data.shape[1]), np.uint8)
                dtype = DTYPES[loaded.dtype]
            first, last = group[0], group[-1] + 1
            if last - first == len(group):  # one after the other, as a rule: no copy between
                np.take(loaded.data, found, axis=0, out=rows[first:last], mode="clip")
            else:
                rows[group] = loaded.data[found]
        return torch.empty(0, 0) if rows is None else torch.from_numpy(rows).view(dtype)

    def create(self, feature_dim: int) -> None:
        """Make the folder and write the manifest, before any feature: what the folder holds is never in doubt.

        Raises:
            UserError: there are features of another fingerprint, or such that nothing says where they come from.
        """
        if self._check_manifest() is None:
            with self._locked():
                if self._check_manifest() is None:
                    for path in self.folder.glob("*/*.safetensors"):
                        try:
                            self._load(path, check=True)
                        except DamagedShardError as error:
                            raise UserError(
                                f"{self.folder} has {path.name} but no manifest.json, and the file does not say what it"
                                " is from; use another folder"
                            ) from error
                    self.feature_dim = feature_dim
                    self._write_manifest()
        self.feature_dim = feature_dim

    def open(self, shard: str) -> OpenShard | None:
        """Take a shard to work on; None while another process works on it. The lock ends with the process."""
        path = self._journal(shard)
        try:
            lock = take_lock(path)
            return None if lock is None else OpenShard(self, shard, lock)
        except OSError as error:
            raise cannot_write(path, error) from error

    def is_open(self, shard: str) -> bool:
        """Whether a journal of the shard is there: somebody works on it, or was killed at it."""
        return self._journal(shard).exists()

    def _journal(self, shard: str) -> Path:
        return below(self.folder, f".{shard}.part", "a feature file")

    def held(self, view: str, shard: str, *, check: bool = True) -> Shard | None:
        """The shard, compared with its checksum unless told otherwise; None where there is none or a damaged one."""
        try:
            return self._load(self.path(view, shard), check=check)
        except DamagedShardError:
            return None

    def finish(self) -> None:
        """Bring the manifest, if there is one, up to date: how many features of each view, and the damaged crops."""
        path = self.folder / "manifest.json"
        if not self._check_manifest():
            return
        left = (self.folder / NAME).exists()  # by a process that was killed; taking the lock takes the file away
        if left or path.read_bytes() != self._manifest().encode():
            with self._locked():
                self._write_manifest()

    def log(self, **entry: Any) -> None:
        """Add what a run took to the log."""
        line = json.dumps(entry) + "\n"
        try:
            with self.log_path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise cannot_write(self.log_path, error) from error

    def write(self, view: str, shard: str, rows: Mapping[str, np.ndarray], damaged: Iterable[str], dtype: str) -> None:
        """Write a shard anew, atomically: equal rows give equal bytes, in whatever order they were computed."""
        path = self.path(view, shard)
        width = self.feature_dim
        assert width is not None
        keys = sorted(rows)
        row_bytes = width * DTYPES[dtype].itemsize
        header: dict[str, Any] = {
            "__metadata__": {
                "crc32": _NO_CRC,
                "damaged": json.dumps(sorted(set(damaged) - set(keys)), separators=(",", ":")),
                "fingerprint": self.digest,
                "keys": json.dumps(keys, separators=(",", ":")),
            },
            "features": {"data_offsets": [0, len(keys) * row_bytes], "dtype": dtype, "shape": [len(keys), width]},
        }
        encoded = _encode_header(header)
        crc = zlib.crc32(encoded)
        with replacing(path) as temporary:
            with temporary.open("wb") as file:
                file.write(encoded)
                for key in keys:
                    row = rows[key].tobytes()
                    crc = zlib.crc32(row, crc)
                    file.write(row)
                header["__metadata__"]["crc32"] = f"{crc:08x}"
                file.seek(0)
                file.write(_encode_header(header))
            signature = _signature(temporary.stat())
        self._checked[path] = signature

    def _load(self, path: Path, *, check: bool) -> Shard | None:
        """Open a shard; None when there is none.

        Args:
            path: of the shard.
            check: compare the bytes with the checksum too, once in this object's life.

        Raises:
            DamagedShardError: the file is not as it was written.
            UserError: the file is sound, and of another fingerprint.
        """
        try:
            with open_input(path) as file:
                status = os.fstat(file.fileno())
                length = int.from_bytes(file.read(8), "little")
                if not 0 < length <= status.st_size - 8:
                    raise DamagedShardError(path, "cut short")
                try:
                    header = json.loads(file.read(length))
                    metadata, tensor = header["__metadata__"], header["features"]
                    keys, damaged = json.loads(metadata["keys"]), json.loads(metadata["damaged"])
                    (count, width), dtype = tensor["shape"], tensor["dtype"]
                    row_bytes = width * DTYPES[dtype].itemsize
                    whole = len(keys) == count and status.st_size == 8 + length + count * row_bytes
                    crc32, fingerprint = metadata["crc32"], metadata["fingerprint"]
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise DamagedShardError(path, "its header makes no sense") from error
                if not whole:
                    raise DamagedShardError(path, "its size is not what its header says")
                data = np.empty((0, row_bytes), np.uint8)
                if count:
                    data = np.asarray(np.memmap(file, np.uint8, "r", 8 + length, (count, row_bytes)))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        signature = _signature(status)
        if self._unsound.get(path) == signature:
            raise DamagedShardError(path, "its checksum differs")
        if check and self._checked.get(path) != signature:
            metadata["crc32"] = _NO_CRC
            crc = zlib.crc32(_encode_header(header))
            for start in range(0, count, 4096):
                crc = zlib.crc32(data[start : start + 4096].data, crc)
            if f"{crc:08x}" != crc32:
                self._unsound[path] = signature
                raise DamagedShardError(path, "its checksum differs")
            if fingerprint != self.digest:
                raise _another(path)
            self._checked[path] = signature
        return Shard(keys, damaged, dtype, data)

    def _check_manifest(self) -> dict[str, Any] | None:
        path = self.folder / "manifest.json"
        try:
            with open_input(path) as file:
                manifest = json.load(file)
            found = manifest["format"]
            if found == FORMAT:
                fingerprint = manifest["fingerprint"]
                manifest["damaged"], self.feature_dim = list(manifest["damaged"]), int(manifest["feature_dim"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(
                f"{path} is no feature store's manifest ({error}); delete {self.folder} to make it anew"
            ) from error
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        if found != FORMAT:
            raise UserError(
                f"{self.folder} is a feature store of format {found}, not {FORMAT}; delete it to make it anew"
            )
        if fingerprint != self.fingerprint:
            raise _another(self.folder)
        return manifest

    def _write_manifest(self) -> None:
        """Write the manifest anew; call it under the lock."""
        write_text(self.folder / "manifest.json", self._manifest())

    def _manifest(self) -> str:
        """The manifest that fits what is in the folder."""
        views: dict[str, dict[str, int]] = {}
        damaged: set[str] = set()
        for path in sorted(self.folder.glob("*/*.safetensors")):
            shard = self.held(path.parent.name, path.stem, check=False)
            if shard:
                view = views.setdefault(path.parent.name, {"shards": 0, "images": 0})
                view["shards"] += 1
                view["images"] += len(shard.keys)
                damaged.update(shard.damaged)
        manifest = dict(
            format=FORMAT,
            fingerprint=self.fingerprint,
            feature_dim=self.feature_dim,
            views=views,
            damaged=sorted(damaged),
        )
        return json.dumps(manifest, indent=2, allow_nan=False) + "\n"

    def _locked(self) -> AbstractContextManager[bool]:
        """The manifest's lock. It has a file of its own, since the manifest is replaced."""
        return locked(self.folder / NAME, str(self.folder / "manifest.json"), wait=True)


def _encode_header(header: Mapping[str, Any]) -> bytes:
    """The head of a safetensors file: length, and JSON padded to eight bytes. safetensors' own has no fixed order."""
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _signature(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _another(place: Path) -> UserError:
    return UserError(f"{place} holds features of another backbone, weights, preprocessing or dtype; use another folder")
