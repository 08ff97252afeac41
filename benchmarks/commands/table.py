"""Print the comparison table: cited figures beside measured ones.

Measured figures come from the committed records. A row in the folder of the runs replaces the record of the same name.
Named rows are shown and compared alone. On a terminal the table is as wide as it; elsewhere it is Markdown with all
columns.

example:
  python bench.py --table
  python bench.py table gazepose internlstm internlstm_flip internlstm_flip_tta
  python bench.py table --sort map --columns method,map,rank,origin
  python bench.py table internlstm other_runs/results/synthlam/internlstm --wide
  python bench.py table --format latex > table.tex
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from registry import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help="name or folder of a finished row, or a record (default: all)"
    )
    parser.add_argument(
        "--format",
        choices=("text", "github", "csv", "json", "latex", "html"),
        help="default: text on a terminal, else github (Markdown); figures of csv and json are fractions",
    )
    parser.add_argument("--wide", action="store_true", help="all columns, also on a terminal")
    parser.add_argument(
        "--columns",
        type=lambda text: [key.strip() for key in text.split(",")],
        default=[],
        metavar="A,B,...",
        help="method, recipe, backbone, head, cited, map, interval, rank, best, accuracy, seeds, parameters, seconds, "
        "origin",
    )
    parser.add_argument("--sort", metavar="COLUMN", help="best first; default: order of the published table")
    parser.add_argument("--dataset", metavar="NAME", help="rows of one dataset (default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs (default: runs)")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from benchmarks.system.terminal import columns, tell
    from benchmarks.table.render import ALL, TableView, table_text

    width = None if args.wide else columns(sys.stdout)
    form = args.format or ("text" if sys.stdout.isatty() else "github")
    if args.wide and args.columns:
        raise UserError("--wide shows all columns; leave --columns out")
    view = TableView(form, ALL if args.wide else args.columns, width, args.sort, args.dataset)
    text = table_text(args.out, view, args.rows)
    if form == "text" and not args.wide:
        tell(text)
    else:
        print(text)
    return 0
