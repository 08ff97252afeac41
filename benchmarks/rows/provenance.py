"""Where a row comes from: code version, packages and hardware."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.rows.schema import Deterministic
from benchmarks.system.cores import cores

# The folder of the code, not the one the command was typed in.
HOME = Path(__file__).resolve().parents[2]

_PACKAGES = ("torch", "timm", "transformers", "mmengine", "numpy", "pandas", "scikit-learn", "safetensors", "pillow")


def environment(device: str) -> dict[str, Any]:
    """Versions and hardware, for the record. Never raises."""
    import torch

    on_gpu = device.startswith("cuda")
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores(),
        "device": torch.cuda.get_device_name(device) if on_gpu else device,
        "code": code_version(),
    }


def deterministic(device: str) -> Deterministic:
    """What of a row comes to the same bytes when it is run again, on this machine and with as many threads.

    On a CPU all of it does. On a GPU a batch has as many images as were fastest when tried, and features depend on that
    number. The order in which the kernels of cuDNN and cuBLAS add up is theirs, unless torch was told to use
    deterministic ones alone.

    Returns:
        `features`, `training`, `scores`: whether that is promised. On CUDA also `settings`: what torch was told.
    """
    import torch

    if device == "cpu":
        return {"features": True, "training": True, "scores": True}
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    promised: Deterministic = {"features": False, "training": strict, "scores": strict}
    if device.startswith("cuda"):
        promised["settings"] = {
            "deterministic algorithms": strict,
            "cudnn.deterministic": torch.backends.cudnn.deterministic,
            "cudnn.benchmark": torch.backends.cudnn.benchmark,
            "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        }
    return promised


def code_version() -> dict[str, Any]:
    """Commit of the code's own folder and whether tracked files differ from it; None where there is no git."""
    commit = _git("rev-parse", "HEAD")
    changed = None if commit is None else bool(_git("status", "--porcelain", "--untracked-files=no"))
    return {"commit": commit, "dirty": changed}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=HOME, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
