"""A backbone's encoder, with a batch size that is measured, and halved when memory runs out."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from backbones.base import Backbone
from backbones.encoding import Encoder
from benchmarks.system.progress import say
from benchmarks.system.shortage import is_out_of_memory
from registry import UserError

CPU_BATCH = 16  # images, a multiple of the size of an encoder's passes on a CPU
_FIRST_GUESS, _LARGEST = 16, 512  # images per pass on a GPU
_MIN_GAIN = 1.01  # in images/s, for a batch of twice the size


class Encoding:
    """A backbone's encoder with a batch size that shrinks when memory runs out.

    Several extractions can use one: on a GPU it takes a minute to compile, and to measure the batch size.

    Attributes:
        backbone: frozen, on `device`.
        device: CPU or GPU.
        size: images per batch. None on a GPU until `prepare` has measured the fastest size.

    Args:
        backbone: see above.
        device: see above.
        dtype: of the computation; None for the dtype of the weights.
        size: images per batch; None for `CPU_BATCH` on a CPU, and for the fastest size on a GPU.
    """

    def __init__(self, backbone: Backbone, device: torch.device, dtype: str | None, size: int | None) -> None:
        self.backbone = backbone
        self.device = device
        self._dtype = dtype
        self._on_gpu = device.type == "cuda"
        self.size = size if size is not None or self._on_gpu else CPU_BATCH
        self._encoder: Encoder | None = None
        self._work: tuple[float, float] | None = None  # FLOP per image, and the device's peak FLOP/s

    def prepare(self) -> int:
        """Build the encoder, and measure the batch size if none is given; returns the batch size."""
        if self.size is None:
            self.size = find_batch_size(self.backbone, self.device, self._dtype)
        if self._encoder is None:
            self._encoder = self.backbone.encoder(self.device, self._dtype)
            self._work = _work_of(self.backbone, self.device) if self._on_gpu else None
        return self.size

    def __call__(self, crops: Sequence[np.ndarray]) -> Tensor:
        """Encode crops, each (size, size, 3) uint8, to features (B, D), in batches that fit into memory.

        Raises:
            UserError: the device has too little memory for one image.
        """
        while True:
            size = self.prepare()
            try:
                parts = (crops[start : start + size] for start in range(0, len(crops), size))
                return torch.cat([self.of_pixels(_upload(part, self.device), size) for part in parts])
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise UserError("the device has too little memory for one image; use a smaller backbone") from error
            if self._on_gpu:
                torch.cuda.empty_cache()
            failed = min(size, len(crops))
            self.size = max(1, failed // 2)
            say(f"out of memory with a batch of {failed} images; continuing with {self.size}")

    def note(self, rate: float | None) -> str:
        """A progress note for a rate in images/s: its share of the GPU's peak."""
        return f"{self._work[0] * rate / self._work[1]:.0%} of peak" if self._work and rate else ""

    def of_pixels(self, pixels: Tensor, size: int) -> Tensor:
        """Encode at most `size` images (B, S, S, 3) uint8 on the device.

        A GPU's results depend on the batch size, so its batches are padded.
        """
        assert self._encoder is not None
        count = len(pixels)
        if self._on_gpu and count < size:
            pixels = torch.cat([pixels, pixels.new_zeros(size - count, *pixels.shape[1:])])
        return self._encoder(pixels)[:count]


def _upload(crops: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Crops as one tensor on the device, (N, size, size, 3) uint8."""
    pixels = torch.from_numpy(np.stack(crops))
    if device.type == "cuda":
        pixels = pixels.pin_memory()
    return pixels.to(device, non_blocking=device.type == "cuda")


def _work_of(backbone: Backbone, device: torch.device) -> tuple[float, float] | None:
    """FLOP per image and peak FLOP/s, for the progress; None if there is no memory to measure them."""
    try:
        return flops_of(backbone), measured_flops(device)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None


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
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
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
