"""Random crops of pixel windows: torchvision's RandomResizedCrop, drawn for a whole epoch at once.

The boxes are drawn with numpy, so that they depend on seed and epoch only. A crop is resized by the same kernel as in
torchvision's `v2.functional.resized_crop` on uint8 tensors, with equal results.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn.functional import interpolate

from benchmarks.data.pictures import in_threads

RATIO = (3 / 4, 4 / 3)  # of width to height; torchvision's default
_TRIES = 10  # until a box fits, as in torchvision; after that the whole picture


def draw_boxes(shape: tuple[int, ...], side: int, smallest: float, generator: np.random.Generator) -> np.ndarray:
    """Draw boxes within square pictures: the area uniform, the logarithm of the ratio uniform, the place uniform.

    Args:
        shape: of the array of boxes.
        side: of the pictures, in pixels.
        smallest: share of the area, from which the box's share is drawn up to 1.
        generator: source of randomness.

    Returns:
        int16 (*shape, 4): top, left, height and width in pixels.
    """
    count = math.prod(shape)
    boxes = np.full((count, 4), side, dtype=np.int16)
    top, left, height, width = boxes.T
    waiting = np.arange(count)
    lowest, highest = np.log(RATIO)
    for _ in range(_TRIES):
        area = side * side * generator.uniform(smallest, 1, len(waiting))
        ratio = np.exp(generator.uniform(lowest, highest, len(waiting)))
        tall, wide = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
        fits = (tall >= 1) & (wide >= 1) & (tall <= side) & (wide <= side)
        height[waiting[fits]], width[waiting[fits]] = tall[fits], wide[fits]
        waiting = waiting[~fits]
    top[:] = generator.integers(0, side - height + 1)
    left[:] = generator.integers(0, side - width + 1)
    return boxes.reshape(*shape, 4)


def resized_crops(pictures: np.ndarray, which: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Cut boxes out of pictures and resize them to the pictures' size, bilinear with antialiasing.

    Args:
        pictures: uint8 (U, side, side, 3).
        which: (N,) the picture of each box; a picture may have several boxes.
        boxes: (N, 4) of `draw_boxes`.

    Returns:
        uint8 (N, side, side, 3).
    """
    cut = np.empty((len(which), *pictures.shape[1:]), dtype=np.uint8)

    def work(number: int) -> None:
        top, left, height, width = boxes[number].tolist()
        part = torch.from_numpy(pictures[which[number], top : top + height, left : left + width]).permute(2, 0, 1)
        resized = interpolate(part[None], size=pictures.shape[1:3], mode="bilinear", antialias=True)
        cut[number] = resized[0].permute(1, 2, 0).numpy()

    for _ in in_threads(work, len(which)):
        pass
    return cut
