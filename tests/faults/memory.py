"""Allocations that fail: functions that need memory for a batch, a picture or a step raise what they do without it."""

from __future__ import annotations

from typing import Any

from tests.faults.machine import State

ERRORS = ("allocator", "MemoryError", "OutOfMemoryError")


def install(state: State, error: str) -> None:
    """Count the calls in this process and its forks; the one that the state names raises.

    Args:
        state: shared.
        error: `allocator`: what torch raises on a CPU; `OutOfMemoryError`: on a GPU; `MemoryError`: numpy and Python.
    """
    import torch
    from PIL import Image

    def raise_it() -> None:
        if error == "OutOfMemoryError":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if error == "MemoryError":
            raise MemoryError("Unable to allocate 2.00 GiB for an array with shape (1024, 524288)")
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 2147483648 bytes. Error code 12 (Cannot allocate memory)"
        )

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if state.armed:
                state.calls += 1
                if state.calls == state.calls_at:
                    state.fired = 1
                    raise_it()
            return function(*arguments, **named)

        return call

    for owner, names in (
        (torch.nn.functional, ("linear", "layer_norm", "conv2d", "adaptive_avg_pool2d", "cross_entropy")),
        (torch, ("stack", "cat")),
        (Image.Image, ("resize", "convert")),
    ):
        for name in names:
            setattr(owner, name, counted(getattr(owner, name)))
