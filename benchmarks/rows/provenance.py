"""Provenance of a row: code version, packages and hardware."""

from __future__ import annotations

import configparser
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.system.cores import cores

# The checkout, not the working directory.
HOME = Path(__file__).resolve().parents[2]

_PACKAGES = ("torch", "timm", "transformers", "mmengine", "numpy", "pandas", "scikit-learn", "safetensors", "pillow")


def environment(device: str) -> dict[str, Any]:
    """Record section `environment`: versions and hardware. Never raises.

    Args:
        device: name of the GPU, or `cpu`.
    """
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores(),
        "device": device,
        "code": code_version(),
    }


def version_line() -> str:
    """Versions of lamzoo, Python and torch in one line, without importing torch."""
    setup = configparser.ConfigParser()
    setup.read(HOME / "setup.cfg", encoding="utf-8")
    code = code_version()
    commit = f"commit {code['commit'][:7]}{' with changes' * code['dirty']}" if code["commit"] else "no commit"
    torch = _version("torch") or "not installed"
    return f"lamzoo {setup['metadata']['version']} ({commit}), Python {platform.python_version()}, torch {torch}"


def code_version() -> dict[str, Any]:
    """Commit of the checkout, and whether tracked files differ from it; None for both without git."""
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
