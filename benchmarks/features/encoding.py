"""Batch sizes of an encoder: found by timing, halved when memory runs out."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from backbones.base import Backbone
from benchmarks.system.progress import say
from benchmarks.system.shortage import is_out_of_memory
from registry import UserError

CPU_BATCH = 16  # images; the passes that encoders make on a CPU divide it
_FIRST_GUESS, _LARGEST = 16, 512  # images a pass on a GPU
_WORTH = 1.01  # what a batch of twice the size has to bring


class Encoding:
    """A backbone's encoder that knows how many images it takes at once, and takes fewer when memory runs out.

    Args:
        backbone: whose.
        device: where.
        dtype: what it computes in; None for the dtype of the weights.
        size: images at once; None to find out.
    """

    def __init__(self, backbone: Backbone, device: torch.device, dtype: str | None, size: int | None) -> None:
        self._full = device.type == "cuda"
        if size is None:
            size = find_batch_size(backbone, device, dtype) if self._full else CPU_BATCH
        self.size = size
        self._encode = backbone.encoder(device, dtype)
        # What one image takes, and what the device does a second at most.
        self._work = (flops_of(backbone), measured_flops(device)) if self._full else None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Features (B, D) of uint8 (B, size, size, 3), in as many steps as memory asks for.

        Raises:
            UserError: not even one image fits.
        """
        while True:
            size = self.size
            try:
                return torch.cat([self._of_part(part, size) for part in pixels.split(size)])
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise UserError("the device has too little memory for one image; use a smaller backbone") from error
            if self._full:
                torch.cuda.empty_cache()
            self.size = max(1, min(size, len(pixels)) // 2)
            say(f"out of memory with {min(size, len(pixels))} images at once; going on with {self.size}")

    def note(self, rate: float | None) -> str:
        """What the progress says of the rate (images/s): its share of what the GPU can do."""
        return f"{self._work[0] * rate / self._work[1]:.0%} of peak" if self._work and rate else ""

    def _of_part(self, pixels: Tensor, size: int) -> Tensor:
        """A GPU is given batches of one size only: its results depend on it."""
        count = len(pixels)
        if self._full and count < size:
            pixels = torch.cat([pixels, pixels.new_zeros(size - count, *pixels.shape[1:])])
        return self._encode(pixels)[:count]


def find_batch_size(backbone: Backbone, device: torch.device, dtype: str | None) -> int:
    """Double the batch while that brings more images a second and memory lasts, or halve it until it fits."""
    # An encoder of its own: what that keeps of the largest batch goes with it.
    rate = functools.partial(_rate, backbone.encoder(device, dtype), backbone.preprocessing.size, device)
    size, best = _FIRST_GUESS, rate(_FIRST_GUESS)
    while not best and size > 1:
        size //= 2
        best = rate(size)
    while _FIRST_GUESS <= size < _LARGEST:
        doubled = rate(2 * size)
        if doubled < _WORTH * best:
            break
        size, best = 2 * size, doubled
    del rate
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return size


def _rate(encode: Callable[[Tensor], Tensor], side: int, device: torch.device, size: int) -> float:
    """Images a second in batches of `size`; 0 where memory runs out."""
    try:
        pixels = torch.zeros(size, side, side, 3, dtype=torch.uint8, device=device)
        encode(pixels)  # compiles, records, allocates
        _synchronize(device)
        started = time.perf_counter()
        encode(pixels)
        _synchronize(device)
        return size / (time.perf_counter() - started)
    except torch.OutOfMemoryError:
        return 0.0


def flops_of(backbone: Backbone) -> int:
    """Operations that a backbone takes for one image: two for each multiplication of its matrix products."""
    side = backbone.preprocessing.size
    first = next(backbone.parameters())
    pixels = torch.zeros(1, 3, side, side, dtype=first.dtype, device=first.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(pixels)
    return counter.get_total_flops()


def measured_flops(device: torch.device) -> float:
    """Operations a second of a bfloat16 product of 8192 x 8192 matrices: what the device can do at most."""
    a = torch.randn(8192, 8192, dtype=torch.bfloat16, device=device)
    a @ a
    _synchronize(device)
    started = time.perf_counter()
    for _ in range(10):
        a @ a
    _synchronize(device)
    return 10 * 2 * 8192**3 / (time.perf_counter() - started)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
