"""The shard files of a feature store: their format, and the check of their bytes.

A shard is `<view>/<shard>.safetensors`: tensor `features` (N, D), rows sorted by key. Its metadata holds `keys`, a JSON
list of N image paths, `damaged`, a JSON list of images that could not be decoded, the store's `fingerprint`, and
`crc32` of the whole file with zeros in place of the checksum.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch

from backbones.opening import open_regular
from registry import UserError
from zoo.files.atomic import replacing
from zoo.files.untrusted import below

# safetensors' name of a dtype -> torch's
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_NO_CRC = "0" * 8  # reserves the checksum's place in the header until the data is written
_LARGEST_HEADER = 1 << 30  # bytes

_Signature = tuple[int, int, int]


class DamagedShardError(UserError):
    """A shard file whose bytes are not the bytes that were written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"damaged feature file {path} ({reason}); extract again to rebuild it")


class Shard(NamedTuple):
    """An open shard file; `data` is (N, bytes per row) uint8, memory-mapped."""

    keys: list[str]
    damaged: list[str]
    dtype: str
    data: np.ndarray


class _OpenFile(NamedTuple):
    """A shard with its header and its file's signature, for the checksum."""

    shard: Shard
    header: dict[str, Any]
    signature: _Signature


def shard_of(image: str) -> str:
    """Name of the shard of an image path: its first folder, `_` for an image at the root."""
    first, slash, _ = image.partition("/")
    return first if slash else "_"


def by_shard(images: Iterable[str]) -> dict[str, list[str]]:
    """Group image paths by shard."""
    groups: dict[str, list[str]] = defaultdict(list)
    for image in images:
        groups[shard_of(image)].append(image)
    return dict(groups)


class ShardFiles:
    """Reads and writes the shard files of one store.

    Args:
        folder: of the store.
        digest: of the backbone's fingerprint; every file carries it.

    Attributes:
        feature_dim: width of the features; None until the store is created.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = folder
        self.digest = digest
        self.feature_dim: int | None = None
        # Checksums are compared once per file and object.
        self._checked: dict[Path, _Signature] = {}
        self._unsound: dict[Path, _Signature] = {}

    def path(self, view: str, shard: str) -> Path:
        """The file of one shard."""
        return below(self.folder, f"{view}/{shard}.safetensors", "a feature file")

    def load(self, path: Path, *, check: bool = True) -> Shard | None:
        """Open a shard file; None if there is none.

        Args:
            path: of the file.
            check: compare its bytes with the checksum and its fingerprint with the store's.

        Raises:
            DamagedShardError: the file has changed since it was written.
            UserError: the file is sound but has another fingerprint.
        """
        try:
            with open_regular(path) as file:
                opened = _parse(path, file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        if self._unsound.get(path) == opened.signature:
            raise DamagedShardError(path, "its checksum differs")
        if check and self._checked.get(path) != opened.signature:
            self._check(path, opened)
        return opened.shard

    def read_shard(self, view: str, shard: str, *, check: bool = True) -> Shard | None:
        """Like `load`, by name; None for a damaged file too."""
        try:
            return self.load(self.path(view, shard), check=check)
        except DamagedShardError:
            return None

    def write(self, view: str, shard: str, rows: Mapping[str, np.ndarray], damaged: Iterable[str], dtype: str) -> None:
        """Replace a shard file atomically. Equal rows give equal bytes, whatever their order.

        Args:
            view: of the features.
            shard: its name.
            rows: image -> its features, as bytes.
            damaged: images that could not be decoded.
            dtype: of the features, safetensors' name.
        """
        path = below(self.folder, f"{view}/{shard}.safetensors", "a feature file", written=True)
        width = self.feature_dim
        assert width is not None
        keys = sorted(rows)
        header: dict[str, Any] = {
            "__metadata__": {
                "crc32": _NO_CRC,
                "damaged": json.dumps(sorted(set(damaged) - set(keys)), separators=(",", ":")),
                "fingerprint": self.digest,
                "keys": json.dumps(keys, separators=(",", ":")),
            },
            "features": {
                "data_offsets": [0, len(keys) * width * DTYPES[dtype].itemsize],
                "dtype": dtype,
                "shape": [len(keys), width],
            },
        }
        encoded = encode_header(header)
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
                file.write(encode_header(header))
            signature = _signature(temporary.stat())
        self._checked[path] = signature

    def _check(self, path: Path, opened: _OpenFile) -> None:
        metadata, data = opened.header["__metadata__"], opened.shard.data
        unsigned = {**opened.header, "__metadata__": {**metadata, "crc32": _NO_CRC}}
        crc = zlib.crc32(encode_header(unsigned))
        for start in range(0, len(data), 4096):
            crc = zlib.crc32(data[start : start + 4096].data, crc)
        if f"{crc:08x}" != metadata["crc32"]:
            self._unsound[path] = opened.signature
            raise DamagedShardError(path, "its checksum differs")
        if metadata["fingerprint"] != self.digest:
            raise other_fingerprint(path)
        self._checked[path] = opened.signature


def other_fingerprint(place: Path) -> UserError:
    """The error for features of another fingerprint."""
    return UserError(f"{place} holds features of another backbone, weights, preprocessing or dtype; use another folder")


def encode_header(header: Mapping[str, Any]) -> bytes:
    """Encode a safetensors header: its length, then JSON padded to eight bytes.

    The keys are sorted, since safetensors' own writer does not fix their order.
    """
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _parse(path: Path, file: IO[bytes]) -> _OpenFile:
    """Read the header of a shard file and map its data.

    Raises:
        DamagedShardError: the header is invalid, or does not match the size of the file.
    """
    status = os.fstat(file.fileno())
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= min(status.st_size - 8, _LARGEST_HEADER):
        raise DamagedShardError(path, "truncated")
    try:
        header = json.loads(file.read(length))
        metadata, tensor = header["__metadata__"], header["features"]
        keys, damaged = json.loads(metadata["keys"]), json.loads(metadata["damaged"])
        (count, width), dtype = tensor["shape"], tensor["dtype"]
        row_bytes = width * DTYPES[dtype].itemsize
        whole = len(keys) == count and status.st_size == 8 + length + count * row_bytes
        _ = metadata["crc32"], metadata["fingerprint"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedShardError(path, "invalid header") from error
    if not whole:
        raise DamagedShardError(path, "its size does not match its header")
    data = np.empty((0, row_bytes), np.uint8)
    if count:
        data = np.asarray(np.memmap(file, np.uint8, "r", 8 + length, (count, row_bytes)))
    return _OpenFile(Shard(keys, damaged, dtype, data), header, _signature(status))


def _signature(status: os.stat_result) -> _Signature:
    return status.st_mtime_ns, status.st_size, status.st_ino
