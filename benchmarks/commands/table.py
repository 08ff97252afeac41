"""Print the comparison table: cited figures beside measured ones.

Measured figures come from the committed records. A row in the folder of the runs replaces the record of the same name.
Named rows are shown and compared alone.

example:
  python bench.py --table
  python bench.py table internlstm probe other_runs/results/synthlam/probe
  python bench.py table --format csv --out runs > table.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help="name or folder of a finished row, or a record (default: all)"
    )
    parser.add_argument(
        "--format",
        default="github",
        choices=("github", "csv", "json", "latex", "html"),
        help="default: github (Markdown)",
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs (default: runs)")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from benchmarks.table.table import table_text

    print(table_text(args.out, args.format, args.rows))
    return 0
