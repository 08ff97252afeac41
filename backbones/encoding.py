"""What the encoders of all backbones are made of: dtypes by name, passes of one size, and CUDA graphs.

Matrix products and convolutions add up in another order where the batch has another size, not where an image stands
elsewhere in it. So every pass has the same number of images, and a vector the same bits whatever else is in its batch.
"""

import copy
import ctypes
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from registry import UserError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class Encoder:
    """Pixels ``(B, size, size, 3)`` uint8 -> features ``(B, D)``, both on the encoder's device, without gradients.

    Attributes:
        encode: does it.
        flops: floating point operations an image, where they are known.
    """

    encode: Callable[[Tensor], Tensor]
    flops: float | None = None

    def __call__(self, pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.encode(pixels)


def dtype_named(name: str) -> torch.dtype:
    """Return torch's dtype of that name.

    Raises:
        UserError: features are not computed in it.
    """
    if name not in DTYPES:
        raise UserError(f"dtype '{name}' is unknown here; there are {', '.join(DTYPES)}")
    return DTYPES[name]


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return what a module computes in: the dtype of its weights, float32 where it has none."""
    return next((parameter.dtype for parameter in module.parameters()), torch.float32)


def moved(module: _Module, device: torch.device, dtype: torch.dtype) -> _Module:
    """Return ``module`` if it is on ``device`` in ``dtype`` already, else a copy that is; ``module`` stays as it is."""
    tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
    there: dict[int, Tensor] = {}
    for tensor in tensors:
        new = tensor.detach().to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        there[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
    if all(tensor.data_ptr() == there[id(tensor)].data_ptr() for tensor in tensors):
        return module
    return copy.deepcopy(module, there)  # copies everything but those: what the memo holds is taken from there


def in_passes(encode: Callable[[Tensor], Tensor], size: int) -> Callable[[Tensor], Tensor]:
    """Return a function that calls ``encode`` with ``size`` images each time, the last pass filled up with black ones.

    For CPUs, where small passes are fast: what a layer leaves is in the cache when the next one reads it.
    """
    _keep_freed_memory()

    def encode_in_passes(pixels: Tensor) -> Tensor:
        count = len(pixels)
        filled = functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, -count % size))
        return torch.cat([encode(images) for images in filled.split(size)])[:count]

    return encode_in_passes


@functools.cache
def _keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next buffer of that size.

    Else it hands buffers of some MB back to the system, and asks for them again page by page, zeroed: a tenth to a
    fifth of the time of a small network's forward pass.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # other C libraries have none
        mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)


class Graphed:
    """A function whose kernels are recorded once, as a CUDA graph, and then launched all at a time.

    The graph is recorded at the size of the first batch. A smaller one is filled up with what was there before; a
    larger one, or another image size, records anew. To be called by one thread at a time.

    Args:
        encode: never waits for the device, and makes the same launches whatever the pixels are.
    """

    def __init__(self, encode: Callable[[Tensor], Tensor]) -> None:
        self._encode = encode
        self._recorded: tuple[torch.cuda.CUDAGraph, Tensor, Tensor] | None = None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the features of ``pixels``; a tensor of its own, which the next call leaves alone.

        Raises:
            torch.cuda.OutOfMemoryError: the batch is too large. It can be called with a smaller one.
        """
        count = len(pixels)
        if self._recorded is not None:
            recorded = self._recorded[1]
            if count > len(recorded) or pixels.shape[1:] != recorded.shape[1:]:
                self._recorded = None  # its memory first
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
                for _ in range(2):  # compiles, and lets libraries choose kernels and take their workspaces
                    self._encode(inputs)
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                outputs = self._encode(inputs)
            return graph, inputs, outputs
