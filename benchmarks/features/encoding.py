"""A backbone's encoder, with a batch size that is measured, and halved when memory runs out."""

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

CPU_BATCH = 16  # images, a multiple of the size of an encoder's passes on a CPU
_FIRST_GUESS, _LARGEST = 16, 512  # images per pass on a GPU
_MIN_GAIN = 1.01  # in images/s, for a batch of twice the size


class Encoding:
    """A backbone's encoder with a batch size that shrinks when memory runs out.

    Args:
        backbone: frozen, on `device`.
        device: CPU or GPU.
        dtype: of the computation; None for the dtype of the weights.
        size: images per batch; None for `CPU_BATCH` on a CPU, and for the fastest size on a GPU.
    """

    def __init__(self, backbone: Backbone, device: torch.device, dtype: str | None, size: int | None) -> None:
        self.device = device
        self.preprocessing = backbone.preprocessing
        self._on_gpu = device.type == "cuda"
        if size is None:
            size = find_batch_size(backbone, device, dtype) if self._on_gpu else CPU_BATCH
        self.size = size
        self._encode = backbone.encoder(device, dtype)
        # FLOP per image, and the device's peak FLOP/s.
        self._work = (flops_of(backbone), measured_flops(device)) if self._on_gpu else None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Encode uint8 (B, size, size, 3) to features (B, D), in batches that fit into memory.

        Raises:
            UserError: the device has too little memory for one image.
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
            if self._on_gpu:
                torch.cuda.empty_cache()
            failed = min(size, len(pixels))
            self.size = max(1, failed // 2)
            say(f"out of memory with a batch of {failed} images; continuing with {self.size}")

    def note(self, rate: float | None) -> str:
        """A progress note for a rate in images/s: its share of the GPU's peak."""
        return f"{self._work[0] * rate / self._work[1]:.0%} of peak" if self._work and rate else ""

    def _of_part(self, pixels: Tensor, size: int) -> Tensor:
        """Encode at most `size` images. A GPU's results depend on the batch size, so its batches are padded."""
        count = len(pixels)
        if self._on_gpu and count < size:
            pixels = torch.cat([pixels, pixels.new_zeros(size - count, *pixels.shape[1:])])
        return self._encode(pixels)[:count]


def find_batch_size(backbone: Backbone, device: torch.device, dtype: str | None) -> int:
    """Find the fastest batch size: double it while that raises images/s and fits, or halve it until it fits."""
    # A separate encoder, so that its buffers for the largest batch are freed with it.
    rate = functools.partial(_rate, backbone.encoder(device, dtype), backbone.preprocessing.size, device)
    size, best = _FIRST_GUESS, rate(_FIRST_GUESS)
    while not best and size > 1:
        size //= 2
        best = rate(size)
    while _FIRST_GUESS <= size < _LARGEST:
        doubled = rate(2 * size)
        if doubled < _MIN_GAIN * best:
            break
        size, best = 2 * size, doubled
    del rate
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return size


def _rate(encode: Callable[[Tensor], Tensor], side: int, device: torch.device, size: int) -> float:
    """Images/s in batches of `size`; 0 if memory runs out."""
    try:
        pixels = torch.zeros(size, side, side, 3, dtype=torch.uint8, device=device)
        encode(pixels)  # warm-up: compiles, captures graphs, allocates
        _synchronize(device)
        started = time.perf_counter()
        encode(pixels)
        _synchronize(device)
        return size / (time.perf_counter() - started)
    except torch.OutOfMemoryError:
        return 0.0


def flops_of(backbone: Backbone) -> int:
    """FLOP of a backbone for one image: two per multiplication in its matrix products."""
    side = backbone.preprocessing.size
    first = next(backbone.parameters())
    pixels = torch.zeros(1, 3, side, side, dtype=first.dtype, device=first.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(pixels)
    return counter.get_total_flops()


def measured_flops(device: torch.device) -> float:
    """Peak FLOP/s of a device, measured on bfloat16 products of 8192 x 8192 matrices."""
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
