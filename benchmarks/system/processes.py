"""Several processes that train one model, a GPU each, as `torchrun` starts them; without it nothing here does anything.

What is not training the first of them does alone.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed

# The first process scores while the others wait for its next training.
_PATIENCE = datetime.timedelta(days=7)


def join(device: str) -> str:
    """Meet the other processes that torchrun started; returns this one's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        if device.startswith("cuda"):
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=_PATIENCE)
    return device


def rank() -> int:
    """This process's number; 0 is the first."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """How many there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def meet() -> None:
    """Wait until all have come here."""
    if count() > 1:
        distributed.barrier()


@contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process work before the others do the same: what it computed they find in its files."""
    if rank() > 0:
        meet()
    yield
    if rank() == 0:
        meet()
