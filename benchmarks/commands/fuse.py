"""Average the scores of prediction files, joined by key: views of one model, seeds, or different models.

mean averages probabilities, like the published test-time augmentation. logit averages log odds. rank averages ranks
within each file, for models whose scores are not comparable; accuracy at 0.5 is meaningless afterwards.

example:
  python bench.py fuse pred_original.csv pred_flipped.csv -o pred_averaged.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("files", nargs="+", type=Path, metavar="PRED.csv", help="two or more files with the same rows")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.csv", help="file to write")
    parser.add_argument("--how", default="mean", choices=("mean", "logit", "rank"), help="default: mean")


def run(args: argparse.Namespace) -> int:
    """Fuse the files."""
    from benchmarks.scoring.files import is_test, read_prediction_file, write_predictions
    from benchmarks.scoring.fuse import average_tables
    from registry import UserError

    if len(args.files) < 2:
        raise UserError(f"only {args.files[0]} is given; fuse needs two or more prediction files")
    tables = [read_prediction_file(path) for path in args.files]
    fused = average_tables(tables, [str(path) for path in args.files], args.how)
    write_predictions(args.output, fused, "test" if is_test(fused) else "val")
    print(f"{args.output}: {len(fused)} rows, {args.how} of {len(args.files)} files")
    return 0
