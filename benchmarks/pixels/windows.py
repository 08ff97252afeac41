"""Windows of pixels for backbones that train.

A batch holds each frame of its windows once, unless training cuts another random crop for each frame of each window.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.config.recipe import Augment
from benchmarks.data.windows import image_windows
from benchmarks.pixels.augment import draw_boxes, resized_crops
from benchmarks.pixels.crops import Crops
from benchmarks.pixels.sharpness import SLACK, drop_mask
from benchmarks.priors.base import Priors
from benchmarks.system import processes
from heads.gazepose import angle_bins
from zoo.model import PixelWindow


class CropRows(NamedTuple):
    """Which crops make up which windows.

    Attributes:
        rows: (M, T) int64 crop numbers, plus N for mirrored crops; -1 where the frame is absent.
        labels: (M,) int64; 1 looking, 0 not, -1 unknown.
    """

    rows: np.ndarray
    labels: np.ndarray


class PixelData:
    """Windows over crops. Absent frames are filled from present ones by the published rule, `image_windows`.

    Args:
        crops: N of them.
        windows: M windows of T crops.
        priors: of the M key frames, as seen in their windows.
        sharpness: (M, T) p of `cumulative_normal`, for Gaussian Temporal Dropout: blurred neighbours count as absent.
            Fixed (p < 0.2) until `start_epoch` draws.
        black: show blurred key frames as black until `start_epoch` draws; see `Recipe.published_faults`.
    """

    score_batch = 256  # windows per batch when scoring; they overlap, so this is about as many frames

    def __init__(
        self,
        crops: Crops,
        windows: CropRows,
        priors: Priors | None = None,
        sharpness: np.ndarray | None = None,
        black: bool = False,
    ) -> None:
        self.crops = crops
        self.labels = torch.from_numpy(np.ascontiguousarray(windows.labels))
        self._priors = priors
        self._rows = windows.rows
        self._sharpness = sharpness
        self._boxes: np.ndarray | None = None
        self._mirrored = np.zeros(len(windows.rows), dtype=bool)
        self.rows = self._filled(np.random.default_rng(), training=False)
        if black and sharpness is not None:
            self._blacken(sharpness)

    def start_epoch(self, seed: int, epoch: int, augment: Augment) -> None:
        """Draw what an epoch of training drops, mirrors and cuts. It depends on seed and epoch only."""
        generator = np.random.default_rng([seed, epoch])
        rows = self._filled(generator, training=True)
        if augment.flip > 0:
            self._mirrored = generator.random(len(rows)) < augment.flip
            other = (rows + len(self.crops)) % (2 * len(self.crops))
            rows = np.where(self._mirrored[:, None] & (rows >= 0), other, rows)
        self.rows = rows
        if augment.crop is not None:
            self._boxes = draw_boxes(rows.shape, self.crops.preprocessing.size, augment.crop, generator)

    def _filled(self, generator: np.random.Generator, training: bool) -> np.ndarray:
        """Crop numbers of all windows with blurred neighbours dropped and gaps filled."""
        rows = self._rows
        if self._sharpness is not None:
            rows = np.where(drop_mask(self._sharpness, rows >= 0, training, generator), -1, rows)
        return image_windows(rows)

    def _blacken(self, sharpness: np.ndarray) -> None:
        """Show blurred key frames as black, also where they fill other places."""
        centre = self._rows[:, self._rows.shape[1] // 2]
        blurred = (centre >= 0) & (sharpness[:, self._rows.shape[1] // 2] < SLACK)
        self.rows[blurred[:, None] & (self.rows == centre[:, None])] = 2 * len(self.crops)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: Sequence[int] | np.ndarray | range) -> tuple[PixelWindow, Tensor]:
        """A batch: PixelWindow of B windows, labels (B,)."""
        at = np.asarray(places, dtype=np.int64)
        numbers, of_window = np.unique(self.rows[at], return_inverse=True)
        of_window = of_window.reshape(len(at), -1)
        if len(numbers) and numbers[0] < 0:  # a window without any frame
            numbers, of_window = numbers[1:], of_window - 1
        pixels = self.crops.take(numbers)
        if self._boxes is not None:
            present = of_window >= 0
            pixels = resized_crops(pixels, of_window[present], self._boxes[at][present])
            of_window[present] = np.arange(len(pixels))
        window = PixelWindow(torch.from_numpy(pixels), torch.from_numpy(of_window), self._priors_of(at))
        return window, self.labels[at]

    def _priors_of(self, at: np.ndarray) -> dict[str, Tensor] | None:
        if self._priors is None:
            return None
        plain = Priors(*(values[at] for values in self._priors))
        chosen = self._mirrored[at, None]
        pose, landmarks = plain.mirrored()
        return as_tensors(
            Priors(np.where(chosen, pose, plain.head_pose), np.where(chosen[..., None], landmarks, plain.landmarks))
        )

    def part(self, places: np.ndarray) -> PixelData:
        """Some of the windows, over the same crops."""
        part = copy.copy(self)
        part.rows, part.labels = self.rows[places], self.labels[places]
        part._mirrored = self._mirrored[places]
        part._boxes = None if self._boxes is None else self._boxes[places]
        if self._priors is not None:
            part._priors = Priors(*(values[places] for values in self._priors))
        return part


def shuffled(count: int, seed: Sequence[int]) -> np.ndarray:
    """Numbers of windows for one epoch, in random order.

    With several processes, each takes every n-th one, and all get equally many: lists are cut, or repeated.

    Args:
        count: of the windows, M.
        seed: of the random order.

    Returns:
        (ceil(M / processes),) int64.
    """
    order = np.random.default_rng(seed).permutation(count)
    own = np.roll(order, -processes.rank())[:: processes.count()]
    return np.resize(own, -(-count // processes.count()))


def as_tensors(priors: Priors) -> dict[str, Tensor]:
    """Priors as heads take them: `head_pose_bins` (N, 3) and `landmarks` (N, 15): five x, five y, five confidences."""
    landmarks = torch.from_numpy(np.ascontiguousarray(priors.landmarks.transpose(0, 2, 1), dtype=np.float32))
    return {"head_pose_bins": angle_bins(torch.from_numpy(priors.head_pose)), "landmarks": landmarks.flatten(1)}
