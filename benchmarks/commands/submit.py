"""Check test predictions and write the challenge's submission file.

Duplicate rows and scores outside [0, 1] are errors, constant scores a warning. With --test-root, the predictions must
have exactly the rows of the test crops.

example:
  python bench.py submit pred_averaged.csv -o submission.json --test-root /data/ego4d
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("predictions", type=Path, metavar="PRED.csv", help="test predictions")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="SUBMISSION.json", help="file to write")
    parser.add_argument(
        "--test-root", type=Path, metavar="DIR", help="folder with videos_challenge/, to check coverage"
    )


def run(args: argparse.Namespace) -> int:
    """Check the predictions and write the file."""
    from benchmarks.scoring.files import read_prediction_file
    from benchmarks.scoring.submission import check_coverage, constant_scores, write_submission
    from benchmarks.system.progress import say

    table = read_prediction_file(args.predictions)
    if args.test_root is not None:
        check_coverage(table, args.test_root, str(args.predictions))
    if explanation := constant_scores(table):
        say(f"{args.predictions}: {explanation}")
    write_submission(args.output, table)
    coverage = (
        "every row of the test crops" if args.test_root is not None else "coverage not checked (--test-root DIR does)"
    )
    print(f"{args.output}: {len(table)} results of {table['clip'].nunique()} videos, {coverage}")
    return 0
