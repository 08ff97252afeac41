"""Windows of pixels for backbones that train: each crop is decoded once, and each frame of a batch encoded once."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from mmengine.dist import get_dist_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from backbones.base import Backbone, Preprocessing
from benchmarks.data.frames import image_windows, tracks
from benchmarks.features import DamagedImageError, decode
from benchmarks.priors.base import Prior, Priors
from benchmarks.progress import Progress
from benchmarks.sharpness import drop_mask
from heads.gazepose import angle_bins
from registry import BACKBONES
from zoo.model import PixelWindow

if TYPE_CHECKING:
    from benchmarks.rows import Plan

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
        return decode(self.root, self.images[number], preprocessing=self.preprocessing)


def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1))


class PixelData(Dataset):
    """Windows over crops; a batch holds each frame that its windows share once.

    Absent frames are filled from present ones by the published rule, `image_windows`.

    Args:
        crops: N of them.
        rows: (M, T) int64, crops by number, plus N for the mirrored ones; -1 where the frame is absent.
        labels: (M,) int64; 1 looking, 0 not, -1 unknown.
        tracks: (M,) int64, equal for windows of one track and view; windows stand in their order.
        priors: by name, (M, ...) each.
        sharpness: (M, T) p of `cumulative_normal`, for Gaussian Temporal Dropout: blurred neighbours count as absent.
            Which ones is fixed (those with p < 0.2) until `start_epoch` draws.
    """

    metainfo: dict = {}  # mmengine warns about data sets that have none
    score_batch = 256  # windows; where they overlap, about as many frames

    def __init__(
        self,
        crops: Crops,
        rows: np.ndarray,
        labels: np.ndarray,
        tracks: np.ndarray,
        priors: Mapping[str, Tensor] | None = None,
        sharpness: np.ndarray | None = None,
    ) -> None:
        self.crops = crops
        self.labels = torch.from_numpy(np.ascontiguousarray(labels))
        self.tracks = tracks
        self._priors = dict(priors) if priors is not None else None
        self._rows = rows
        self._sharpness = sharpness
        self._fill(np.random.default_rng(), training=False)

    def start_epoch(self, seed: int, epoch: int) -> None:
        """Draw which blurred neighbours this epoch of a training drops; it depends on seed and epoch alone."""
        if self._sharpness is not None:
            self._fill(np.random.default_rng([seed, epoch]), training=True)

    def _fill(self, generator: np.random.Generator, training: bool) -> None:
        rows = self._rows
        if self._sharpness is not None:
            rows = np.where(drop_mask(self._sharpness, rows >= 0, training, generator), -1, rows)
        self.rows = image_windows(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[PixelWindow, Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> tuple[PixelWindow, Tensor]:
        """A whole batch at once: B windows, labels (B,). torch's DataLoader asks for batches this way."""
        at = np.asarray(indices, dtype=np.int64)
        numbers, places = np.unique(self.rows[at], return_inverse=True)
        places = places.reshape(len(at), -1)
        if len(numbers) and numbers[0] < 0:  # a window without any frame
            numbers, places = numbers[1:], places - 1
        priors = None if self._priors is None else {name: values[at] for name, values in self._priors.items()}
        window = PixelWindow(torch.from_numpy(self.crops.take(numbers)), torch.from_numpy(places), priors)
        return window, self.labels[at]


class BlockSampler(Sampler):
    """Shuffle blocks of consecutive windows of one track, each window once an epoch.

    Of several processes each takes every n-th block, cut or repeated to a length that is equal for all.

    Args:
        tracks: (M,) equal for windows of one track.
        block: windows a block, less at a track's end.
        seed: with the epoch, of the order.
    """

    def __init__(self, tracks: np.ndarray, block: int, seed: int) -> None:
        self._blocks = blocks(tracks, block)
        self._seed = seed
        self._epoch = 0
        self._rank, self._processes = get_dist_info()
        self._windows = -(-len(tracks) // self._processes)

    def __len__(self) -> int:
        return self._windows

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(len(self._blocks))
        own = np.concatenate([self._blocks[number] for number in np.roll(order, -self._rank)[:: self._processes]])
        return iter(np.resize(own, self._windows).tolist())

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes; mmengine's loop does."""
        self._epoch = epoch


def blocks(tracks: np.ndarray, block: int) -> list[np.ndarray]:
    """Cut windows into blocks of so many consecutive ones of a track.

    Example:
        >>> [part.tolist() for part in blocks(np.array([0, 0, 0, 7]), 2)]
        [[0, 1], [2], [3]]
    """
    parts = np.split(np.arange(len(tracks)), np.flatnonzero(np.diff(tracks)) + 1)
    return [part[start : start + block] for part in parts for start in range(0, len(part), block)]


class AheadLoader(DataLoader):
    """Prepares a batch while the one before it is computed with."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(next, batches, None)
            while (batch := coming.result()) is not None:
                coming = pool.submit(next, batches, None)
                yield batch


@dataclass
class Pixels:
    """Pixels of every frame that some window of a group of recipes touches; the part `Features` has otherwise.

    Attributes:
        crops: split -> its crops.
        positions: split -> (rows of the frame table,) int64, crops by number, -1 where there is none.
        tables: split -> frame table.
        backbone: the record's section of that name.
        seconds: what decoding all of it took.
        damaged: image paths left out.
        sharpness: split -> (rows,) p of `cumulative_normal`, where blurred frames are to be dropped.
        provider: of priors, where the head needs any.
    """

    crops: dict[str, Crops]
    positions: dict[str, np.ndarray]
    tables: Mapping[str, pd.DataFrame]
    backbone: dict[str, Any]
    seconds: float
    damaged: list[str]
    sharpness: dict[str, np.ndarray] | None = None
    provider: Prior | None = None

    def window_data(self, plan: Plan, split: str, views: Sequence[str]) -> PixelData:
        """The windows over the pixels of one or several views; each window comes once a view."""
        rows = np.where(plan.rows >= 0, self.positions[split][plan.rows], -1)
        shift = [len(self.crops[split]) if view == "flipped" else 0 for view in views]
        of_track = tracks(self.tables[split])[plan.centres]
        p = None if self.sharpness is None else np.where(rows >= 0, self.sharpness[split][plan.rows], 0.0)
        return PixelData(
            self.crops[split],
            np.concatenate([np.where(rows >= 0, rows + more, -1) for more in shift]),
            np.tile(plan.labels, len(views)),
            # A view's last track and the next one's first must not be one.
            np.concatenate([of_track + number * (int(of_track.max(initial=0)) + 1) for number in range(len(views))]),
            self._priors_of(plan, split, views),
            None if p is None else np.tile(p, (len(views), 1)),
        )

    def _priors_of(self, plan: Plan, split: str, views: Sequence[str]) -> dict[str, Tensor] | None:
        if self.provider is None:
            return None
        found = self.provider.read(self.tables[split].iloc[plan.centres])
        by_view = [found.mirrored() if view == "flipped" else found for view in views]
        return as_tensors(Priors(*(np.concatenate(parts) for parts in zip(*by_view, strict=True))))


def as_tensors(priors: Priors) -> dict[str, Tensor]:
    """Priors as heads take them: `head_pose_bins` (N, 3) and `landmarks` (N, 15), five x, five y, five confidences."""
    landmarks = torch.from_numpy(np.ascontiguousarray(priors.landmarks.transpose(0, 2, 1), dtype=np.float32))
    return {"head_pose_bins": angle_bins(torch.from_numpy(priors.head_pose)), "landmarks": landmarks.flatten(1)}


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


def build_backbone(config: Mapping[str, Any], seed: int) -> Backbone:
    """Build a backbone that trains. Where its weights are random and no seed is named, the training's draws them."""
    backbone: Backbone = BACKBONES.build(config)
    takes_seed = "seed" in inspect.signature(BACKBONES.get(config["type"])).parameters
    if backbone.weights_info.random_init and takes_seed and "seed" not in config:
        backbone = BACKBONES.build({**config, "seed": seed})
    return backbone
