"""Windows of pixels for backbones that train: each crop is decoded once, and each frame of a batch encoded once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from benchmarks.data.windows import image_windows
from benchmarks.pixels.crops import Crops
from benchmarks.pixels.sharpness import drop_mask
from benchmarks.priors.base import Priors
from heads.gazepose import angle_bins
from zoo.model import PixelWindow

if TYPE_CHECKING:
    pass


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


def as_tensors(priors: Priors) -> dict[str, Tensor]:
    """Priors as heads take them: `head_pose_bins` (N, 3) and `landmarks` (N, 15), five x, five y, five confidences."""
    landmarks = torch.from_numpy(np.ascontiguousarray(priors.landmarks.transpose(0, 2, 1), dtype=np.float32))
    return {"head_pose_bins": angle_bins(torch.from_numpy(priors.head_pose)), "landmarks": landmarks.flatten(1)}
