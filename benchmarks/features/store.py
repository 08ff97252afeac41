"""The feature store: features by view and image path, in files that are complete, checksummed, or absent.

A store is a folder with `manifest.json` (see `manifest.py`) and one file per view and clip (see `shard_files.py`). The
first folder of an image path names the shard, so trees of another depth work too. `docs/features.md` covers kills,
damaged files and concurrent processes.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backbones.opening import open_regular, read_small
from benchmarks.features.manifest import NAME as MANIFEST
from benchmarks.features.manifest import Manifest, read_manifest
from benchmarks.features.shard import OpenShard
from benchmarks.features.shard_files import DTYPES, DamagedShardError, Shard, ShardFiles, shard_of
from benchmarks.system.locks import NAME, locked
from registry import UserError
from zoo.files.atomic import cannot_write, write_text
from zoo.files.locks import take_lock
from zoo.files.untrusted import below


class FeatureStore(ShardFiles):
    """Features by view and image path.

    Args:
        folder: of the store; nothing is written before `create`.
        fingerprint: the backbone's `fingerprint()`.

    Raises:
        UserError: the folder holds features of another fingerprint, or an unreadable manifest.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self.fingerprint: dict[str, Any] = json.loads(json.dumps(fingerprint))
        text = json.dumps(self.fingerprint, sort_keys=True)
        super().__init__(folder, hashlib.sha256(text.encode()).hexdigest()[:16])
        self._read_manifest()

    @property
    def damaged(self) -> list[str]:
        """Images that could not be decoded, in all runs that skipped them."""
        manifest = self._read_manifest()
        return manifest.damaged if manifest else []

    @property
    def log_path(self) -> Path:
        """The log of all runs, one line per run. It lies beside the folder, whose bytes do not depend on timing."""
        folder = self.folder.resolve()  # `.` has no name
        return folder.with_name(f"{folder.name}.log.jsonl")

    @property
    def seconds(self) -> float:
        """Time spent on the store by all runs and processes."""
        try:
            lines = read_small(self.log_path).splitlines()
        except OSError:
            return 0.0
        seconds = 0.0
        for line in lines:
            with suppress(ValueError, KeyError):  # a line truncated by a kill
                seconds += json.loads(line)["seconds"]
        return seconds

    def read(self, view: str, images: Sequence[str]) -> torch.Tensor:
        """Read the features of N images.

        Returns:
            (N, D), in the order of the images and the stored dtype.

        Raises:
            UserError: an image has no features, or its file is damaged.
        """
        positions = defaultdict(list)
        for position, image in enumerate(images):
            positions[shard_of(image)].append(position)
        rows = None
        dtype = torch.float32
        for name, group in positions.items():
            shard, found = self._find(view, name, [images[position] for position in group])
            if rows is None:
                rows = np.empty((len(images), shard.data.shape[1]), np.uint8)
                dtype = DTYPES[shard.dtype]
            first, last = group[0], group[-1] + 1
            if last - first == len(group):  # contiguous, the usual case: gather without a temporary copy
                np.take(shard.data, found, axis=0, out=rows[first:last], mode="clip")
            else:
                rows[group] = shard.data[found]
        return torch.empty(0, 0) if rows is None else torch.from_numpy(rows).view(dtype)

    def _find(self, view: str, name: str, images: Sequence[str]) -> tuple[Shard, list[int]]:
        """Open a shard, and find the rows of some of its images."""
        shard = self.load(self.path(view, name))
        row_of = {key: row for row, key in enumerate(shard.keys)} if shard else {}
        rows = [row_of.get(image, -1) for image in images]
        if shard is None or -1 in rows:
            absent = images[rows.index(-1)]
            more = f" (and {rows.count(-1) - 1} more of {name})" if rows.count(-1) > 1 else ""
            raise UserError(f"{self.folder} has no {view} features of {absent}{more}; extract them")
        return shard, rows

    def create(self, feature_dim: int) -> None:
        """Create the folder and its manifest, before the first feature is written.

        Raises:
            UserError: the folder has features of another fingerprint, or of an unknown one.
        """
        if self._read_manifest() is None:
            with self._locked():
                if self._read_manifest() is None:
                    self._check_orphans()
                    self.feature_dim = feature_dim
                    self._write_manifest()
        self.feature_dim = feature_dim

    def _check_orphans(self) -> None:
        """Check the fingerprint of shards in a folder without a manifest."""
        for path in self.folder.glob("*/*.safetensors"):
            try:
                self.load(path)
            except DamagedShardError as error:
                raise UserError(
                    f"{self.folder} has {path.name} but no manifest.json, and the file does not say which backbone it"
                    " is from; use another folder"
                ) from error

    def open(self, shard: str) -> OpenShard | None:
        """Lock a shard for writing; None while another process has it. The lock ends with the process."""
        path = self._journal(shard)
        try:
            lock = take_lock(path)
            return None if lock is None else OpenShard(self, shard, lock)
        except OSError as error:
            raise cannot_write(path, error) from error

    def is_open(self, shard: str) -> bool:
        """Whether a shard has a journal: a process is working on it, or was killed while it did."""
        return self._journal(shard).exists()

    def _journal(self, shard: str) -> Path:
        return below(self.folder, f".{shard}.part", "a feature file")

    def finish(self) -> None:
        """Bring the manifest, if there is one, up to date."""
        if self._read_manifest() is None:
            return
        stale_lock = (self.folder / NAME).exists()  # left by a killed process; taking the lock removes it
        if stale_lock or (self.folder / MANIFEST).read_bytes() != self._current_manifest().text().encode():
            with self._locked():
                self._write_manifest()

    def log(self, **entry: Any) -> None:
        """Append a run to the log."""
        line = json.dumps(entry) + "\n"
        try:
            with open_regular(self.log_path, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise cannot_write(self.log_path, error) from error

    def _read_manifest(self) -> Manifest | None:
        manifest = read_manifest(self.folder, self.fingerprint)
        if manifest:
            self.feature_dim = manifest.feature_dim
        return manifest

    def _write_manifest(self) -> None:
        """Write the manifest; the caller holds its lock."""
        write_text(self.folder / MANIFEST, self._current_manifest().text())

    def _current_manifest(self) -> Manifest:
        """The manifest of the shards in the folder."""
        views: dict[str, dict[str, int]] = {}
        damaged: set[str] = set()
        for path in sorted(self.folder.glob("*/*.safetensors")):
            shard = self.read_shard(path.parent.name, path.stem, check=False)
            if shard:
                counts = views.setdefault(path.parent.name, {"shards": 0, "images": 0})
                counts["shards"] += 1
                counts["images"] += len(shard.keys)
                damaged.update(shard.damaged)
        assert self.feature_dim is not None
        return Manifest(self.fingerprint, self.feature_dim, views, sorted(damaged))

    def _locked(self) -> AbstractContextManager[bool]:
        """Lock the manifest. The lock is a file of its own, since the manifest is replaced."""
        return locked(self.folder / NAME, str(self.folder / MANIFEST), wait=True)
