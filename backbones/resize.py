"""Pillow's resize as two matrix products, to the bit, on any device.

Pillow resizes 8 bit images in fixed point: horizontally, then vertically, each output a weighted sum of inputs with
weights rounded to 22 binary places, and a rounded and clipped byte between the two. Such sums are whole numbers below
2^53, which float64 holds exactly: the order of summing, and with it the device, does not matter. Since version 13,
Pillow begins vertically where an image loses more than twice as many rows as columns.
"""

import functools
import math

import numpy as np
import PIL
import torch
from torch import Tensor

PILLOW = int(PIL.__version__.partition(".")[0])
PRECISION = 22  # binary places of a weight: Pillow's 32 - 8 - 2

Box = tuple[int, int, int, int]


def resize(batch: Tensor, width: int, height: int, box: Box, interpolation: str) -> Tensor:
    """Resize images as ``PIL.Image.resize`` does, and cut a box out of them; what lies outside is not computed.

    Args:
        batch: ``(B, H, W, C)`` uint8.
        width: what ``W`` becomes.
        height: what ``H`` becomes.
        box: left, upper, right and lower edge of what is returned, in the resized image and inside it.
        interpolation: ``bicubic``, ``bilinear`` or ``nearest``.

    Returns:
        ``(B, lower - upper, right - left, C)`` uint8, on the device of ``batch``.
    """
    left, upper, right, lower = box
    columns, rows = batch.shape[2], batch.shape[1]
    planes = batch.permute(0, 3, 1, 2)  # (B, C, H, W)

    def horizontal(planes: Tensor) -> Tensor:
        if width == columns:
            return planes[..., left:right]
        return _pass(planes, _weights(columns, width, left, right, interpolation, batch.device))

    def vertical(planes: Tensor) -> Tensor:
        if height == rows:
            return planes[:, :, upper:lower]
        weights = _weights(rows, height, upper, lower, interpolation, batch.device)
        return _pass(planes.transpose(2, 3), weights).transpose(2, 3)

    vertical_first = PILLOW >= 13 and rows - height > max(0, 2 * (columns - width))
    planes = horizontal(vertical(planes)) if vertical_first else vertical(horizontal(planes))
    return planes.permute(0, 2, 3, 1).contiguous()


def _pass(planes: Tensor, weights: Tensor) -> Tensor:
    """Resize the last dimension of uint8 ``planes (..., N)`` by ``weights (N, M)``: ``(..., M)`` uint8."""
    sums = planes.to(torch.float64, memory_format=torch.contiguous_format) @ weights
    return sums.add_(1 << (PRECISION - 1)).div_(1 << PRECISION).floor_().clamp_(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=32)
def _weights(size: int, resized: int, start: int, stop: int, interpolation: str, device: torch.device) -> Tensor:
    """The weights ``(size, stop - start)``, whole numbers in float64, of outputs ``start`` to ``stop``."""
    if interpolation == "nearest":
        weights = _nearest(size, resized)
    else:
        weights = _weighted(size, resized, interpolation)
    with torch.inference_mode(False):
        return torch.from_numpy(np.ascontiguousarray(weights[start:stop].T)).to(device)


def _weighted(size: int, resized: int, interpolation: str) -> np.ndarray:
    """Pillow's weights ``(resized, size)`` for a filter that is stretched where an image is made smaller."""
    scale = size / resized
    stretch = max(scale, 1.0)
    support = (2.0 if interpolation == "bicubic" else 1.0) * stretch
    curve = _bicubic if interpolation == "bicubic" else _bilinear
    weights = np.zeros((resized, size))
    for output in range(resized):
        centre = (output + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), size)
        taps = [curve((place - centre + 0.5) * (1.0 / stretch)) for place in range(first, last)]
        total = 0.0
        for tap in taps:  # one after another, as Pillow does: numpy and sum() round otherwise
            total += tap
        for place, tap in enumerate(taps, first):
            fixed = tap / total * (1 << PRECISION)
            weights[output, place] = math.trunc(fixed + math.copysign(0.5, fixed))
    return weights


def _bicubic(x: float) -> float:
    a, x = -0.5, abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def _bilinear(x: float) -> float:
    return max(1 - abs(x), 0.0)


def _nearest(size: int, resized: int) -> np.ndarray:
    """One input for each output; the place is added up step by step, as Pillow does."""
    scale = size / resized
    places = np.add.accumulate(np.array([scale * 0.5] + [scale] * (resized - 1)))
    weights = np.zeros((resized, size))
    weights[np.arange(resized), places.astype(int)] = 1 << PRECISION
    return weights
