"""How torchrun started this process, read from the environment variables that it sets."""

from __future__ import annotations

import os
from dataclasses import dataclass

from benchmarks.system.cores import cores
from registry import UserError

_REMEDY = "unset RANK, LOCAL_RANK and WORLD_SIZE, or start all processes with torchrun"


@dataclass(frozen=True)
class Launch:
    """A process among those of torchrun; without torchrun, a single one.

    Attributes:
        rank: of this process.
        count: number of processes.
        local_rank: rank on this machine; None if not set.
        local_count: number of processes on this machine; all of them if not set.
    """

    rank: int = 0
    count: int = 1
    local_rank: int | None = None
    local_count: int = 1


def launch() -> Launch:
    """Read the environment variables; without WORLD_SIZE the others do not count.

    Raises:
        UserError: a variable is not a whole number, is missing, or contradicts another.

    Example:
        >>> os.environ.update(WORLD_SIZE="2", RANK="2", LOCAL_RANK="0")
        >>> launch()
        Traceback (most recent call last):
        registry.UserError: RANK is 2, but WORLD_SIZE is 2; unset RANK, LOCAL_RANK and WORLD_SIZE, or start all \
processes with torchrun
        >>> for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        ...     del os.environ[name]
        >>> launch()
        Launch(rank=0, count=1, local_rank=None, local_count=1)
    """
    count = _number("WORLD_SIZE")
    if count is None:
        return Launch()
    rank, local_rank, local_count = _number("RANK"), _number("LOCAL_RANK"), _number("LOCAL_WORLD_SIZE")
    if count == 0:
        raise UserError(f"WORLD_SIZE is 0; {_REMEDY}")
    if rank is None and count > 1:
        raise UserError(f"WORLD_SIZE is {count}, but RANK is not set; {_REMEDY}")
    for name, number, total_name, total in (
        ("RANK", rank, "WORLD_SIZE", count),
        ("LOCAL_RANK", local_rank, "LOCAL_WORLD_SIZE", local_count),
        ("LOCAL_RANK", local_rank, "WORLD_SIZE", count),
    ):
        if number is not None and total is not None and number >= total:
            raise UserError(f"{name} is {number}, but {total_name} is {total}; {_REMEDY}")
    return Launch(rank or 0, count, local_rank, local_count or count)


def own_cores() -> int:
    """This process's share of the CPU cores of the machine: those that it may use, among torchrun's processes."""
    return max(1, cores() // launch().local_count)


def rendezvous_address() -> str:
    """Where the processes find each other, `host:port`.

    Raises:
        UserError: MASTER_ADDR or MASTER_PORT is not set, or the port is not one.
    """
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise UserError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {name} is not set; {_REMEDY}")
    port = _number("MASTER_PORT")
    if not port or port > 65535:
        raise UserError(f"MASTER_PORT is {port}; a port is from 1 to 65535; {_REMEDY}")
    return f"{os.environ['MASTER_ADDR']}:{port}"


def own_gpu(started: Launch, gpus: int) -> str:
    """The torch device of this process: each on a machine has its own GPU.

    Args:
        started: by torchrun.
        gpus: number of GPUs of this machine.

    Raises:
        UserError: LOCAL_RANK is not set, or there are fewer GPUs.
    """
    if started.local_rank is None:
        raise UserError(f"WORLD_SIZE is {started.count}, but LOCAL_RANK is not set; {_REMEDY}")
    if started.local_rank >= gpus:
        raise UserError(
            f"LOCAL_RANK is {started.local_rank}, but this machine has {gpus} GPU{'s' * (gpus != 1)}; start at most "
            "one process per GPU, or use --device cpu"
        )
    return f"cuda:{started.local_rank}"


def _number(name: str) -> int | None:
    """An environment variable as a number; None if it is not set."""
    value = os.environ.get(name, "")
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise UserError(f"{name} is {value!r:.40}, not a whole number from 0; {_REMEDY}")
    return int(value)
