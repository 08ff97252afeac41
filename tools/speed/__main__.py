"""Time frequent work against the plain way of doing it.

example:
  python -m tools.speed                    everything, in an hour and a half
  python -m tools.speed --quick            everything at small sizes, in seconds
  python -m tools.speed map map_csv --record
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module

from tools.speed import commands, index, metrics
from tools.speed.harness import Work, add_options, check_options, measure_all

Works = Callable[[bool], AbstractContextManager[list[Work]]]  # argument: whether to make small works


def _with_torch(module: str, name: str) -> Works:
    """Return the works of a module that imports torch, imported only when needed."""
    return lambda quick: getattr(import_module(f"tools.speed.{module}"), name)(quick)


WORKS: dict[str, Works] = {
    "test_index": index.test_index,
    "train_index": index.train_index,
    "map": metrics.map_from_arrays,
    "map_csv": metrics.map_from_files,
    "small_commands": commands.small_commands,
    "extract": _with_torch("extract_cpu", "on_cpu"),
    "host": _with_torch("host", "host"),
    "windows": _with_torch("heads", "windows"),
    "head_step": _with_torch("heads", "head_step"),
    "scoring": _with_torch("heads", "scoring"),
    "video": _with_torch("video", "video"),
}


def main() -> int:
    """Measure the named benchmarks; 1 if a goal is missed or results differ."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(WORKS)} (default: all)")
    add_options(parser)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in WORKS]
    if unknown:
        parser.error(f"no speed benchmark {', '.join(unknown)}; there are {', '.join(WORKS)}")
    check_options(parser, options)
    failed = 0
    for name in options.names or WORKS:
        with WORKS[name](options.quick) as works:
            failed += measure_all(works, options)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
