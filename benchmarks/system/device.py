"""torch devices: the default, their names, and what is reproducible on them."""

from __future__ import annotations

import os
from typing import Any

import torch

from registry import UserError


def default_device(name: str | None) -> str:
    """The torch device of `--device`: cuda if there is one, else cpu, unless named.

    Raises:
        UserError: the device cannot be used here.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name} cannot be used here: {reason}; leave it out, or try cpu") from error
    return name


def device_name(device: str) -> str:
    """The model of a GPU; of other devices, the device itself."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def deterministic(device: str) -> dict[str, Any]:
    """What of a row has the same bytes when it is computed again, on this machine with as many threads.

    On a CPU everything has. On a GPU features depend on the batch size, which is chosen by timing; and the summation
    order in kernels of cuDNN and cuBLAS may vary, unless torch is set to deterministic algorithms.

    Returns:
        `features`, `training`, `scores`: whether that is guaranteed. On CUDA also `settings`: torch's flags.
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
