"""Building blocks of encoders: dtypes by name, passes of a fixed size, CUDA graphs.

Matrix products and convolutions sum in an order that depends on the size of the batch, but not on the position of an
image in it. With the same number of images in each pass, an image has the same features, to the bit, in any batch.
"""

import copy
import ctypes
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from registry import UserError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class Encoder:
    """Pixels ``(B, size, size, 3)`` uint8 -> features ``(B, D)``, both on the encoder's device, without gradients.

    Attributes:
        encode: the computation.
        flops: floating point operations per image, if known.
    """

    encode: Callable[[Tensor], Tensor]
    flops: float | None = None

    def __call__(self, pixels: Tensor) -> Tensor:
        with inference() if pixels.is_cuda else torch.inference_mode():
            return self.encode(pixels)


@contextmanager
def inference() -> Iterator[None]:
    """Compute without gradients on a GPU, and float32 as float32.

    By default its convolutions round float32 to TF32, whose 10 bits of mantissa are close to bfloat16's 7. Features
    whose fingerprint says float32 must not depend on that.
    """
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        with torch.inference_mode():
            yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def dtype_named(name: str) -> torch.dtype:
    """Return a torch dtype.

    Raises:
        UserError: features cannot be computed in it.
    """
    if name not in DTYPES:
        raise UserError(f"unknown dtype '{name}' (known: {', '.join(DTYPES)})")
    return DTYPES[name]


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the dtype of a module's weights, float32 if it has none."""
    return next((parameter.dtype for parameter in module.parameters()), torch.float32)


def moved(module: _Module, device: torch.device, dtype: torch.dtype) -> _Module:
    """Return ``module`` if it is on ``device`` in ``dtype`` already, otherwise a copy that is."""
    tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
    there: dict[int, Tensor] = {}
    for tensor in tensors:
        new = tensor.detach().to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        there[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
    if all(tensor.data_ptr() == there[id(tensor)].data_ptr() for tensor in tensors):
        return module
    return copy.deepcopy(module, there)  # the memo replaces the tensors


def in_passes(encode: Callable[[Tensor], Tensor], size: int) -> Callable[[Tensor], Tensor]:
    """Return a function that calls ``encode`` on ``size`` images at a time and pads the last pass with black ones.

    On a CPU, with few images, the output of a layer is still in the cache when the next layer reads it. On a GPU, every
    batch has the size that the kernels were recorded for.
    """
    _keep_freed_memory()

    def encode_in_passes(pixels: Tensor) -> Tensor:
        count = len(pixels)
        filled = functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, -count % size))
        return torch.cat([encode(images) for images in filled.split(size)])[:count]

    return encode_in_passes


@functools.cache
def _keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next buffers.

    By default it returns buffers of a few MB to the system and gets them back page by page, zeroed. That takes 10 to
    20 % of a small network's forward pass.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # musl has no mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)


class Graphed:
    """Runs a function as a CUDA graph: its kernels are recorded once, then launched together.

    The graph is recorded at the size of the first batch. Smaller batches are padded with old pixels. A larger batch or
    another image size records a new graph. Not thread-safe.

    Args:
        encode: must not wait for the device, and must launch the same kernels for any pixels.
    """

    def __init__(self, encode: Callable[[Tensor], Tensor]) -> None:
        self._encode = encode
        self._recorded: tuple[torch.cuda.CUDAGraph, Tensor, Tensor] | None = None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the features of ``pixels`` in a new tensor.

        Raises:
            torch.cuda.OutOfMemoryError: the batch is too large; a smaller one may follow.
        """
        count = len(pixels)
        if self._recorded is not None:
            recorded = self._recorded[1]
            if count > len(recorded) or pixels.shape[1:] != recorded.shape[1:]:
                self._recorded = None  # frees its memory before the next recording
        if self._recorded is None:
            self._recorded = self._record(pixels)
        graph, inputs, outputs = self._recorded
        inputs[:count].copy_(pixels)
        graph.replay()
        return outputs[:count].clone()

    def _record(self, pixels: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        with torch.cuda.device(pixels.device):
            inputs = pixels.clone()
            current, side = torch.cuda.current_stream(), torch.cuda.Stream()
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(2):  # before recording: compilation, choice of kernels, workspaces of libraries
                    self._encode(inputs)
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            try:
                # On the stream of the warm-up, whose workspaces are there. Thread-local, because another thread may
                # wait for an event or pin memory meanwhile, which would break a global recording.
                with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                    outputs = self._encode(inputs)
            except RuntimeError as error:
                # The end of a broken recording fails too, and would hide that memory ran out.
                raise (error.__context__ if isinstance(error.__context__, RuntimeError) else error) from None
            return graph, inputs, outputs
