"""Check a machine with a GPU: each kernel against the CPU, extraction to the byte, memory, torchrun, and speed.

example:
  python -m tools.check_gpu                      everything, the short benchmark last
  python -m tools.check_gpu --only kernels graph
  python -m tools.check_gpu --device cpu         a rehearsal of what does not need CUDA
  python -m tools.check_gpu --record && python -m tools.update_docs --reliability-only
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timezone

import torch

from benchmarks.rows.provenance import HOME, environment
from benchmarks.system.device import device_name
from tools.check_gpu import extraction, kernels, machine
from tools.check_gpu.steps import FAILED, Step, run_steps
from zoo.files.atomic import write_json

RECORD = HOME / "benchmarks" / "records" / "reliability" / "gpu.json"

STEPS = (
    Step("environment", "gcc and Python.h; on a GPU a driver and Triton", machine.environment),
    Step("kernels", "nothing else", kernels.kernels),
    Step("convolution", "nothing else", kernels.convolution),
    Step("compile", "gcc and Python.h; on a CPU g++", kernels.compilation),
    Step("graph", "on a GPU CUDA graphs; on a CPU it runs without them", kernels.encoder),
    Step("lstm", "on a GPU cuDNN", kernels.lstm_step),
    Step("extraction", "a few MB of disk", extraction.extraction),
    Step("memory", "a GPU that no other program uses; on a CPU its end is pretended", extraction.memory),
    Step("torchrun", "a free port; one process per GPU, on a CPU two", extraction.torchrun),
    Step("benchmark", "40 GB of GPU memory and transformers; on a CPU its small sizes run", machine.benchmark),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps; the number of those that failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.check_gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [step.name for step in STEPS]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="STEP", help=f"of {', '.join(names)}"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu for a rehearsal (default: cuda)")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.relative_to(HOME)}")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU; --device cpu rehearses what does not need one")
    if options.record and (options.device != "cuda" or options.only != names):
        parser.error("only all steps on a GPU are recorded")
    outcomes = run_steps([step for step in STEPS if step.name in options.only], torch.device(options.device))
    failed = [each["step"] for each in outcomes if each["outcome"] == FAILED]
    if options.record:
        where = environment(device_name(options.device))
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_json(RECORD, {"date": date, "environment": where, "steps": outcomes})
        print(RECORD.relative_to(HOME))
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
