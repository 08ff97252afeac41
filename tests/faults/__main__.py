"""Inject faults into extract, run, prepare and predict, run again, and compare every byte with an undisturbed run.

example:
  python -m tests.faults --count 30
  python -m tests.faults --only run,predict --kinds kill,"flipped bit" --seed 7 --count 20
  python -m tests.faults --cases "run-features/flipped bit/3" --keep /tmp/faults
  python -m tests.faults --count 240 --jobs 2 --keep /tmp/faults --record
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.conftest import HOME
from tests.faults.cases import KINDS, Case, cases, draw
from tests.faults.machine import Machine
from tests.faults.scenarios import COMMANDS, SCENARIOS, make_inputs

RECORD = HOME / "benchmarks" / "records" / "reliability" / "faults.json"


def inject(
    wanted: Sequence[Case], keep: Path, jobs: int = 1, tell: Callable[[dict[str, Any]], None] = lambda outcome: None
) -> list[dict[str, Any]]:
    """Inject cases; those with an outcome in `keep` are skipped.

    Args:
        wanted: cases.
        keep: folder for inputs, undisturbed runs and `outcomes.jsonl`.
        jobs: number of workers.
        tell: called with each new outcome.

    Returns:
        One outcome per case, in order.
    """
    keep.mkdir(parents=True, exist_ok=True)
    if not (keep / "inputs" / "boxes.csv").exists():
        make_inputs(keep / "inputs")
    pool = Pool(keep, wanted, tell)
    threads = [threading.Thread(target=pool.serve) for _ in range(min(jobs, len(pool.queue)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    missing = [case.id for case in wanted if (case.id, case.seed) not in pool.done]
    if missing:
        raise RuntimeError(f"a worker died; not injected: {', '.join(missing[:5])}")
    return [pool.done[case.id, case.seed] for case in wanted]


class Pool:
    """Workers that share a queue of cases and a journal of outcomes."""

    def __init__(self, keep: Path, wanted: Sequence[Case], tell: Callable[[dict[str, Any]], None]) -> None:
        self.keep = keep
        self.tell = tell
        self.journal = keep / "outcomes.jsonl"
        self.done: dict[tuple[str, int], dict[str, Any]] = {}
        if self.journal.exists():
            for line in self.journal.read_text(encoding="utf-8").splitlines():
                outcome = json.loads(line)
                self.done[outcome["id"], outcome["seed"]] = outcome
        self.queue = [case for case in reversed(wanted) if (case.id, case.seed) not in self.done]
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Start a worker and give it cases until the queue is empty or it dies."""
        worker = self._start()
        assert worker.stdin is not None and worker.stdout is not None
        while True:
            with self._lock:
                if not self.queue:
                    break
                case = self.queue.pop()
            worker.stdin.write(json.dumps(case.as_dict()) + "\n")
            worker.stdin.flush()
            answer = worker.stdout.readline()
            if not answer:
                break
            self._keep(case, json.loads(answer))
        worker.stdin.close()
        worker.wait()

    def _start(self) -> subprocess.Popen[str]:
        machine = Machine(self.keep / f"machine{threading.get_ident()}")
        environment = {
            **os.environ,
            **machine.environment,
            "LAMZOO_CACHE": str(self.keep / "cache"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.worker", self.keep],
            cwd=HOME,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches this process only; workers end with their input
        )

    def _keep(self, case: Case, outcome: dict[str, Any]) -> None:
        with self._lock:
            self.done[case.id, case.seed] = outcome
            if "status" in outcome:  # otherwise the harness failed
                with self.journal.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(outcome) + "\n")
            self.tell(outcome)


def as_line(outcome: dict[str, Any]) -> str:
    """Format an outcome as one line."""
    cells = [f"seed {outcome['seed']}", f"{outcome['id']:<32}", f"{outcome.get('moment', ''):<40.90}"]
    if "status" in outcome:
        cells += [f"exit {outcome['status']:>4}", f"{outcome['recovery']:5.1f} s of {outcome['undisturbed']:.1f} s"]
    return " | ".join([*cells, outcome["verdict"], outcome.get("said", "")[-110:]])


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", metavar="C[,C]", help=f"any of {', '.join(COMMANDS)}, {', '.join(SCENARIOS)}"
    )
    parser.add_argument("--kinds", default="", metavar="K[,K]", help=f"any of {', '.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the moments (default 0)")
    parser.add_argument(
        "--count", type=int, default=len(KINDS), metavar="N", help="number of cases (default: one per kind)"
    )
    parser.add_argument("--cases", default="", metavar="ID[,ID]", help="only these cases, named as in the output")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="number of workers (default 1)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep inputs and outcomes there, and resume from them")
    parser.add_argument(
        "--record",
        type=Path,
        nargs="?",
        const=RECORD,
        metavar="FILE",
        help="write a record (default: the committed one)",
    )
    options = parser.parse_args()
    only, kinds = (list(filter(None, text.split(","))) for text in (options.only, options.kinds))
    for given, known in ((only, [*COMMANDS, *SCENARIOS]), (kinds, [*KINDS])):
        for word in given:
            if word not in known:
                parser.error(f"'{word}' is not one of {', '.join(known)}")
    wanted = cases(options.count, options.seed, only, kinds)
    if options.cases:
        split = [name.strip().split("/") for name in options.cases.split(",")]
        wanted = [draw(scenario, kind, int(number), options.seed) for scenario, kind, number in split]
    with tempfile.TemporaryDirectory() as scratch:
        started = time.monotonic()
        keep = (options.keep or Path(scratch)).resolve()
        tell = lambda outcome: print(as_line(outcome), flush=True)  # noqa: E731
        outcomes = inject(wanted, keep, options.jobs, tell)
    bad = [outcome for outcome in outcomes if outcome["verdict"] != "same"]
    print(f"{len(outcomes)} injected in {time.monotonic() - started:.0f} s, {len(bad)} with a wrong result")
    for outcome in bad:
        print(as_line(outcome))
    if options.record:
        from benchmarks.rows.provenance import environment
        from zoo.files.atomic import write_json

        text = (
            json.dumps(outcomes).replace(f"{keep}/", "").replace(sys.executable, "python")
        )  # no paths of this machine
        outcomes = json.loads(text)
        record = {"date": time.strftime("%Y-%m-%d"), "environment": environment("cpu"), "outcomes": outcomes}
        write_json(options.record, record)
        print(options.record)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
