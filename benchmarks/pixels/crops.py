"""Decoded crops, kept in memory if they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backbones.base import Preprocessing
from benchmarks.data.pictures import DamagedImageError, in_threads, read_crop
from benchmarks.system.progress import Progress

BUDGET = 4_000_000_000  # bytes; a data set with more pixels is decoded batch by batch instead of kept in memory


class Crops:
    """Preprocessed pixels of N crops, decoded once if they fit into memory.

    Pickling drops the pixels: another process receives the paths and decodes again.

    Args:
        root: folder that the paths are relative to.
        images: N paths.
        preprocessing: of the backbone.
        budget: bytes of pixels that may be kept.
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
        """Decodes the crops that are kept, drops damaged crops, and returns their paths.

        If the crops do not fit into memory, they are decoded here only to find damaged ones, because windows need to
        know which frames are absent.

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

        for _ in in_threads(work, len(self)):
            if progress is not None:
                progress.advance()
        damaged = [image for image, ok in zip(self.images, sound, strict=True) if not ok]
        self.images = [image for image, ok in zip(self.images, sound, strict=True) if ok]
        if self.kept:
            self._array = array if sound.all() else array[sound]
        return damaged

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Returns uint8 ``(U, size, size, 3)`` pixels by crop number.

        Numbers from N = ``len(self)`` on are the mirrored crops, and 2 N is a black one.
        """
        flipped, of = np.divmod(numbers, max(1, len(self)))
        if self.kept:
            if self._array is None:
                self.read(skip_damaged=False)
            assert self._array is not None
            pixels = self._array[of]
        else:
            decoded = list(in_threads(lambda at: self._decode(of[at]), len(of)))
            pixels = np.stack(decoded) if decoded else np.empty((0, *[self.preprocessing.size] * 2, 3), np.uint8)
        pixels[flipped == 1] = pixels[flipped == 1, :, ::-1]
        pixels[flipped == 2] = 0
        return pixels

    def _decode(self, number: int) -> np.ndarray:
        return read_crop(self.root, self.images[number], preprocessing=self.preprocessing)


def read_pixels(
    root: Path,
    tables: Mapping[str, pd.DataFrame],
    touched: Mapping[str, np.ndarray],
    preprocessing: Preprocessing,
    *,
    skip_damaged: bool,
) -> tuple[dict[str, Crops], dict[str, np.ndarray], list[str]]:
    """Decodes the crops of the rows that windows use; all splits together keep at most `BUDGET` bytes.

    Args:
        root: of the data set.
        tables: split -> frame table.
        touched: split -> row numbers.
        preprocessing: of the backbone.
        skip_damaged: leave damaged crops out instead of raising.

    Returns:
        split -> crops; split -> (rows,) int64, the number of each row's crop or -1; and the paths of damaged crops.

    Raises:
        UserError: a crop is missing, or damaged and `skip_damaged` is off.
    """
    total = sum(map(len, touched.values()))
    budget = BUDGET if total * preprocessing.size**2 * 3 <= BUDGET else 0
    all_crops, positions, damaged = {}, {}, []
    with Progress("crops", total, "crop") as progress:
        for split, rows in touched.items():
            images = tables[split]["image"].to_numpy()[rows].tolist()
            crops = Crops(root, images, preprocessing, budget)
            lost = set(crops.read(skip_damaged, progress))
            usable = rows[[image not in lost for image in images]] if lost else rows
            positions[split] = np.full(len(tables[split]), -1)
            positions[split][usable] = np.arange(len(usable))
            all_crops[split] = crops
            damaged += sorted(lost)
    return all_crops, positions, damaged
