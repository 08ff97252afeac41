"""Feed bad input to every reader and print a table of the outcomes: `python -m tests.fuzz`.

Each kind of input runs in its own process. The exit status is 1 unless every case was accepted or refused in one line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[2]
RECORD = HOME / "benchmarks" / "records" / "reliability" / "bad_input.json"
COLUMNS = {"kind": "input", "cases": "cases", "accepted": "accepted", "refused": "refused in one line",
           "traceback": "tracebacks", "hang": "hangs", "memory": "too much memory", "escape": "escapes from the folder",
           "message": "poor messages", "seconds": "slowest, s", "megabytes": "most memory, MB"}  # fmt: skip


def _one(module: str, name: str, cases: int, seed: int) -> None:
    """Run one kind and print its report as JSON."""
    from tests.fuzz import kinds
    from tests.fuzz.harness import run

    kind = kinds(module)[name]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LAMZOO_CACHE"] = f"{folder}/cache"
        report = run(kind, cases, seed, Path(folder))
    for fault in report.faults[:5]:
        print(fault, file=sys.stderr)
    print(json.dumps(report.as_dict()))


def _in_child(module: str, name: str, cases: int, seed: int, limit: float) -> dict[str, Any]:
    arguments = [sys.executable, "-m", "tests.fuzz", "--one", module, name, "--cases", str(cases), "--seed", str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            arguments, cwd=HOME, env=environment, stdout=subprocess.PIPE, text=True, check=False, timeout=limit
        )
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        fault = {"traceback": 1}  # killed or crashed
    except subprocess.TimeoutExpired:
        fault = {"hang": 1}
    return {**dict.fromkeys(COLUMNS, 0), "kind": name, **fault}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=200, metavar="N", help="cases per kind (default 200)")
    parser.add_argument("--kind", action="append", metavar="NAME", help="only this kind; may be repeated")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the draws (default 0)")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.relative_to(HOME)}")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        _one(*args.one, args.cases, args.seed)
        return 0

    from tabulate import tabulate

    from tests.fuzz import kinds, modules
    from tests.fuzz.harness import FAULTS

    there = [(module, kind) for module in modules() for kind in kinds(module).values()]
    chosen = [(module, kind) for module, kind in there if not args.kind or kind.name in args.kind]
    if not chosen:
        parser.error(f"no such kind; choose from: {', '.join(kind.name for _, kind in there)}")
    rows = []
    for module, kind in chosen:
        limit = 60 + args.cases * max(1.0, kind.seconds / 4)
        rows.append(_in_child(module, kind.name, args.cases, args.seed, limit))
        print(f"{kind.name}: {rows[-1]['cases']} cases", file=sys.stderr)
    total = {"kind": "all", **{key: sum(row[key] for row in rows) for key in list(COLUMNS)[1:-2]}}
    total |= {key: max(row[key] for row in rows) for key in list(COLUMNS)[-2:]}
    print(tabulate([[row[key] for key in COLUMNS] for row in [*rows, total]], list(COLUMNS.values())))
    if args.record:
        import hypothesis

        from zoo.files.atomic import write_json

        write_json(RECORD, {"seed": args.seed, "hypothesis": hypothesis.__version__, "kinds": rows, "all": total})
    return 1 if any(total[name] for name in FAULTS) else 0


if __name__ == "__main__":
    sys.exit(main())
