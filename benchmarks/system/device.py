"""torch devices: the default, their names, and which results they reproduce exactly."""

from __future__ import annotations

import os
import re
from typing import Any

import torch

from benchmarks.system.launch import Launch, own_gpu
from registry import UserError


def default_device(name: str | None) -> str:
    """The torch device for `--device`; without a name cuda if available, else cpu.

    Raises:
        UserError: this machine cannot use the device.
    """
    count = gpus()
    if name is None:
        return "cuda" if count else "cpu"
    named = re.fullmatch(r"cpu|mps|cuda(?::(\d{1,4}))?", name)
    if named is None:
        raise UserError(f"--device {name}: must be cpu, cuda, cuda:N or mps")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: torch finds no Apple GPU; leave it out to use the CPU")
    if name.startswith("cuda") and int(named[1] or 0) >= count:
        found = f"torch finds {count} GPUs, numbered from 0" if count else "torch finds no NVIDIA or AMD GPU"
        raise UserError(f"--device {name}: {found}; leave it out to use the {'first one' if count else 'CPU'}")
    return name


def take_device(name: str | None, started: Launch | None = None) -> str:
    """The device of this process for `--device`. A GPU becomes torch's current one, before anything else touches CUDA.

    Otherwise pinned memory, streams and libraries would take memory on the first GPU too, in each process.

    Args:
        name: as for `default_device`.
        started: by torchrun; each process on a machine takes its own GPU. None for commands that run in one process.

    Raises:
        UserError: this machine cannot use the device, or torchrun's processes would share a GPU.
    """
    device = default_device(name)
    if not device.startswith("cuda"):
        return device
    if started is not None and started.count > 1:
        if device != "cuda":
            raise UserError(f"--device {name}: torchrun's processes take one GPU each; use --device cuda")
        device = own_gpu(started, gpus())
    if device != "cuda":
        torch.cuda.set_device(device)
    return device


def gpus() -> int:
    """Number of GPUs that torch can use."""
    return torch.cuda.device_count()


def device_name(device: str) -> str:
    """The model name of a GPU; for any other device its torch name."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def deterministic(device: str) -> dict[str, Any]:
    """Which results are byte-identical when computed again on this machine with the same number of threads.

    On a CPU all of them are. On a GPU features depend on the batch size, which is chosen by timing, and the summation
    order of cuDNN and cuBLAS kernels may vary unless torch's deterministic algorithms are on.

    Returns:
        `features`, `training` and `scores`, each a bool. On CUDA also `settings`: torch's flags.
    """
    if device == "cpu":
        return {"features": True, "training": True, "scores": True}
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    guaranteed: dict[str, Any] = {"features": False, "training": strict, "scores": strict}
    if device.startswith("cuda"):
        guaranteed["settings"] = {
            "deterministic algorithms": strict,
            "cudnn.deterministic": torch.backends.cudnn.deterministic,
            "cudnn.benchmark": torch.backends.cudnn.benchmark,
            "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        }
    return guaranteed
