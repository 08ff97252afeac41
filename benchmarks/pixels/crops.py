"""Decoded crops, kept in memory where they fit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backbones.base import Preprocessing
from benchmarks.data.pictures import DamagedImageError, read_crop
from benchmarks.system.progress import Progress

if TYPE_CHECKING:
    pass


_CHUNK = 5000  # crops that are waited for together
BUDGET = 4_000_000_000  # bytes of pixels that are kept; of more, crops are decoded when they are asked for


class Crops:
    """Pixels of N crops as a backbone wants them, decoded once where they fit into memory.

    What another process is sent are the paths: it decodes anew.

    Args:
        root: what the paths are relative to.
        images: N paths.
        preprocessing: the backbone's.
        budget: bytes of pixels to keep.
    """

    def __init__(self, root: Path, images: Sequence[str], preprocessing: Preprocessing, budget: int = BUDGET) -> None:
        self.root = root
        self.images = list(images)
        self.preprocessing = preprocessing
        self.kept = len(self.images) * preprocessing.size**2 * 3 <= budget
        self._array: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_array": None}

    def read(self, skip_damaged: bool, progress: Progress | None = None) -> list[str]:
        """Decode what is to be kept, and leave damaged crops out for good; returns their paths.

        Crops that are not kept are looked at beforehand only where damaged ones are to be skipped: which frames are
        absent has to be known before any window is.

        Raises:
            DamagedImageError: a crop cannot be decoded and `skip_damaged` is off.
            UserError: a crop does not exist.
        """
        if not self.kept and not skip_damaged:
            return []
        size = self.preprocessing.size
        array = np.empty((len(self) if self.kept else 0, size, size, 3), dtype=np.uint8)
        sound = np.ones(len(self), dtype=bool)

        def work(number: int) -> None:
            try:
                pixels = self._decode(number)
            except DamagedImageError:
                if not skip_damaged:
                    raise
                sound[number] = False
            else:
                if self.kept:
                    array[number] = pixels

        with _decoders() as pool:
            try:
                for start in range(0, len(self), _CHUNK):
                    for _ in pool.map(work, range(start, min(start + _CHUNK, len(self)))):
                        if progress is not None:
                            progress.advance()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        damaged = [image for image, ok in zip(self.images, sound, strict=True) if not ok]
        self.images = [image for image, ok in zip(self.images, sound, strict=True) if ok]
        if self.kept:
            self._array = array if sound.all() else array[sound]
        return damaged

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Return the pixels of crops by number, ``(U, size, size, 3)`` uint8; from ``len(self)`` on, mirrored."""
        flipped, of = np.divmod(numbers, max(1, len(self)))
        if self.kept:
            if self._array is None:
                self.read(skip_damaged=False)
            assert self._array is not None
            pixels = self._array[of]
        else:
            with _decoders() as pool:
                decoded = list(pool.map(self._decode, of))
            pixels = np.stack(decoded) if decoded else np.empty((0, *[self.preprocessing.size] * 2, 3), np.uint8)
        pixels[flipped == 1] = pixels[flipped == 1, :, ::-1]
        return pixels

    def _decode(self, number: int) -> np.ndarray:
        return read_crop(self.root, self.images[number], preprocessing=self.preprocessing)


def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1))


def read_pixels(
    root: Path,
    tables: Mapping[str, pd.DataFrame],
    touched: Mapping[str, np.ndarray],
    preprocessing: Preprocessing,
    *,
    skip_damaged: bool,
    budget: int = BUDGET,
) -> tuple[dict[str, Crops], dict[str, np.ndarray], list[str]]:
    """Decode the crops of the rows that windows touch.

    Args:
        root: the data set's root.
        tables: split -> frame table.
        touched: split -> rows.
        preprocessing: the backbone's.
        skip_damaged: leave damaged crops out.
        budget: bytes of pixels to keep, of all splits together.

    Returns:
        Crops and positions a split, and damaged paths.
    """
    total = sum(map(len, touched.values()))
    all_crops, positions, damaged = {}, {}, []
    with Progress("crops", total, "crop") as progress:
        for split, rows in touched.items():
            images = tables[split]["image"].to_numpy()[rows].tolist()
            crops = Crops(root, images, preprocessing, budget if total * preprocessing.size**2 * 3 <= budget else 0)
            lost = set(crops.read(skip_damaged, progress))
            usable = rows[[image not in lost for image in images]] if lost else rows
            positions[split] = np.full(len(tables[split]), -1)
            positions[split][usable] = np.arange(len(usable))
            all_crops[split] = crops
            damaged += sorted(lost)
    return all_crops, positions, damaged
