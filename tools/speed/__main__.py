"""Time what is done often against the plain way of doing it.

example:
  python -m tools.speed                    everything, in an hour and a half
  python -m tools.speed --quick            everything small, in seconds
  python -m tools.speed map map_csv --record
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module

from tools.speed import commands, index, metrics
from tools.speed.harness import PAIRS, Disagree, Work, line, measure, reached, write_record

Works = Callable[[bool], AbstractContextManager[list[Work]]]  # given whether they are to be small ones


def _with_torch(module: str, name: str) -> Works:
    """Rows of a module that imports torch, which is imported for them alone."""
    return lambda quick: getattr(import_module(f"tools.speed.{module}"), name)(quick)


WORKS: dict[str, Works] = {
    "test_index": index.test_index,
    "train_index": index.train_index,
    "map": metrics.map_from_arrays,
    "map_csv": metrics.map_from_files,
    "small_commands": commands.small_commands,
    "extract": _with_torch("extract", "on_cpu"),
    "host": _with_torch("extract", "host"),
    "windows": _with_torch("heads", "windows"),
    "head_step": _with_torch("heads", "head_step"),
    "scoring": _with_torch("heads", "scoring"),
}


def main() -> int:
    """Measure what is asked for and print a line each; 1 where a figure was not reached or results differ."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(WORKS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, which say nothing of the large ones")
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help=f"timings of each way, default {PAIRS}")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/speed/cpu/<name>.json")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in WORKS]
    if unknown:
        parser.error(f"no speed benchmark {', '.join(unknown)}; there are {', '.join(WORKS)}")
    if options.record and options.quick:
        parser.error("--quick sizes are not for the record")
    failed = 0
    for name in options.names or WORKS:
        with WORKS[name](options.quick) as works:
            for work in works:
                try:
                    record = measure(work, options.pairs)
                except Disagree as error:
                    print(error, file=sys.stderr)
                    failed += 1
                    continue
                print(line(record), flush=True)
                failed += not (options.quick or reached(record))
                if options.record:
                    print(write_record(record, "cpu"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
