"""Failing allocations: functions that need memory for a batch, a picture or a step raise out-of-memory errors."""

from __future__ import annotations

from typing import Any

from tests.faults.machine import State


def install(state: State, error: str) -> None:
    """Count the calls in this process and its forks; call number `state.calls_at` raises.

    Args:
        state: shared with the forks.
        error: `allocator` for torch's error on a CPU, `OutOfMemoryError` for that on a GPU, `MemoryError` for that of
            numpy and Python.
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
