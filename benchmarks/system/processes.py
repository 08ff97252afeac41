"""Distributed training: processes started by `torchrun`, one per GPU, or a single process without it.

The first process does everything except training alone.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from benchmarks.system import interrupts
from benchmarks.system.launch import launch, rendezvous_address
from registry import UserError

_JOINING = datetime.timedelta(minutes=10)  # until all processes have started

# Between two exchanges of gradients lie a batch and sometimes a checkpoint. NCCL does not notice a process that ended.
_STEP = datetime.timedelta(minutes=30)

# While the first process scores, the others wait for the next training. gloo does notice one that ended, at once.
_PATIENCE = datetime.timedelta(days=7)

_T = TypeVar("_T")

_patient: Any = None  # the group of all exchanges but those of gradients


def join(device: str) -> None:
    """Connect to the other processes of torchrun.

    Args:
        device: of this process; its own GPU, if the processes use GPUs.

    Raises:
        UserError: torchrun's environment variables are wrong, or the others cannot be reached.
    """
    global _patient
    started = launch()
    if started.count == 1 or distributed.is_initialized():
        return
    address = rendezvous_address()
    on_gpu = device.startswith("cuda")
    try:
        with interrupts.ended_by_signals():
            store, rank, count = next(rendezvous("env://", started.rank, started.count, timeout=_JOINING))
            distributed.init_process_group(
                "nccl" if on_gpu else "gloo",
                store=distributed.PrefixStore("lamzoo", store),
                rank=rank,
                world_size=count,
                timeout=_STEP,
                device_id=torch.device(device) if on_gpu else None,  # otherwise NCCL guesses it from the rank
            )
            _patient = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"process {started.rank} of {started.count} cannot reach the others at {address}; one of them may have "
            "stopped with a message"
        ) from error


def leave() -> None:
    """Part from the other processes once all have come this far. After an error, the end of the process does it."""
    barrier()
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """Rank of this process; the first is 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def barrier() -> None:
    """Wait until all processes get here."""
    if count() > 1:
        distributed.barrier(group=_patient)


def gather(value: _T) -> list[_T]:
    """The values of all processes, ordered by rank."""
    if count() == 1:
        return [value]
    values: list[_T | None] = [None] * count()
    distributed.all_gather_object(values, value, group=_patient)
    return values  # type: ignore[return-value]


@contextmanager
def first_alone() -> Iterator[None]:
    """Run the block in the first process, then in the others, which read the files that it wrote."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()
