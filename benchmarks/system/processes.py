"""Distributed training: processes started by `torchrun`, one per GPU, or a single process without it.

The first process does everything except training alone.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import distributed

# While the first process scores, the others wait for the next training.
_PATIENCE = datetime.timedelta(days=7)

_T = TypeVar("_T")


def join(device: str) -> str:
    """Connect to the other processes of torchrun; returns the device of this process."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        if device.startswith("cuda"):
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=_PATIENCE)
    return device


def rank() -> int:
    """Rank of this process; the first is 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def barrier() -> None:
    """Wait until all processes get here."""
    if count() > 1:
        distributed.barrier()


def gather(value: _T) -> list[_T]:
    """The values of all processes, ordered by rank."""
    if count() == 1:
        return [value]
    values: list[_T | None] = [None] * count()
    distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]


@contextmanager
def first_alone() -> Iterator[None]:
    """Run the block in the first process, then in the others, which read the files that it wrote."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()
