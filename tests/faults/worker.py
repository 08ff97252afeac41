"""Worker of `python -m tests.faults`: reads cases as lines of JSON and answers each with its outcome.

Importing torch and the commands takes seconds, so this process does it once. Each run is a fork that starts where
`python bench.py` starts, with its own session, streams, signal handlers and `__main__`. This process has no threads
when it forks. Every eighth signal, and all runs of torchrun and Ray, use new processes instead.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path

from tests.faults.cases import Case
from tests.faults.injection import Injection
from tests.faults.machine import Machine

WARM = (
    *("av", "cv2", "scipy.signal", "sklearn.metrics", "PIL.JpegImagePlugin", "PIL.PngImagePlugin"),
    *(f"benchmarks.commands.{name}" for name in ("extract", "run", "prepare", "predict")),
    "benchmarks.config.ensemble",
    "benchmarks.data.crops",
    "benchmarks.evaluation.calibration",
    "benchmarks.features.extract",
    "benchmarks.pipeline.run",
    "benchmarks.table.table",
    "benchmarks.training.seeds",
    "benchmarks.video.pipeline",
    "zoo.models",
)


def warm_up() -> None:
    """Import everything that the commands import."""
    for name in WARM:
        importlib.import_module(name)
    from registry import BACKBONES, DATASETS, DETECTORS, HEADS, PRIORS

    for each in (BACKBONES, DATASETS, DETECTORS, HEADS, PRIORS):
        each.names()


def main(keep: Path) -> None:
    """Answer the cases on stdin."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # stdout is for answers only
    machine = Machine.of_this_process()
    warm_up()
    for line in sys.stdin:
        case = Case(**json.loads(line))
        try:
            outcome = Injection(keep, case, machine).run()
        except Exception:
            outcome = {**case.as_dict(), "verdict": "harness: " + traceback.format_exc().strip()[-600:]}
        finally:
            machine.disarm()
        answers.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
