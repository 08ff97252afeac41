"""The machine's compilers and driver, and the short benchmark."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import torch

from tools.check_gpu.extraction import run
from tools.check_gpu.steps import require
from tools.speed.harness import RECORDS

SHARE = 0.67  # of the peak on 8192 x 8192 matrices


def environment(device: torch.device) -> dict[str, Any]:
    """Find what torch.compile needs, and name GPU and driver."""
    facts: dict[str, Any] = {"torch": torch.__version__}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        free, total = torch.cuda.mem_get_info(device)
        facts["GPU"] = f"{torch.cuda.device_count()} x {properties.name}"
        facts["memory"] = f"{free / 1e9:.0f} of {total / 1e9:.0f} GB free"
        facts["capability"] = f"{properties.major}.{properties.minor}"
        facts["CUDA"] = torch.version.cuda
        facts["driver"] = _driver()
        require(importlib.util.find_spec("triton") is not None, "Triton is not installed: pip install triton")
    compiler = next(filter(None, map(shutil.which, ("gcc", "cc", "clang"))), None)
    require(compiler is not None, "there is no C compiler: apt install gcc")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    require(header.is_file(), f"there is no {header}: apt install python3-dev")
    return {**facts, "compiler": compiler, "Python.h": str(header)}


def benchmark(device: torch.device) -> dict[str, Any]:
    """Run the short benchmark of extraction; on a CPU its small sizes, which only show that it runs."""
    if device.type != "cuda":
        run(["-m", "tools.speed.extract", "--quick", "--pairs", "1", "--only", "extract_cpu", "--device", "cpu"])
        return {"sizes": "quick"}
    run(["-m", "tools.speed.extract", "--record", "--only", "extract_bf16", "--device", "cuda"], limit=1800)
    record = json.loads((RECORDS / "gpu" / "extract_bf16.json").read_text(encoding="utf-8"))
    share = record["facts"]["share_of_8192"]
    require(share >= SHARE, f"extraction reaches {share:.0%} of the peak, not {SHARE:.0%}")
    return {"ratio": f"{record['ratio']:.2f}", "of peak": f"{share:.0%}"}


def _driver() -> str:
    path = Path("/proc/driver/nvidia/version")
    words = path.read_text(encoding="utf-8").split() if path.exists() else []
    return next((word for word in words if word.count(".") >= 1 and word.replace(".", "").isdigit()), "unknown")
