"""Smooth the scores of a prediction file along each track, by frame number.

Each score becomes the median (or Gaussian mean) of the scores of its track within the window. Absent frames are
ignored, so predictions at a stride of the window or more do not change. Test predictions have no frame numbers;
--test-root finds them in the file names of the crops.

example:
  python bench.py smooth val_pred.csv -o val_smooth.csv --filter median --window 5
  python bench.py smooth test_pred.csv -o test_smooth.csv --test-root /data/ego4d
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("predictions", type=Path, metavar="PRED.csv", help="prediction file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.csv", help="file to write")
    parser.add_argument("--filter", default="median", choices=("median", "gaussian"), help="default: median")
    parser.add_argument("--window", type=int, default=5, metavar="N", help="odd number of frames (default: 5)")
    parser.add_argument(
        "--test-root", type=Path, metavar="DIR", help="folder with videos_challenge/, for test predictions"
    )


def run(args: argparse.Namespace) -> int:
    """Smooth the file."""
    import numpy as np

    from benchmarks.config.recipe import SmoothingWindow
    from benchmarks.config.values import typed
    from benchmarks.scoring.files import is_test, read_prediction_file, write_predictions
    from benchmarks.scoring.smooth import smooth_scores
    from benchmarks.scoring.submission import with_frames
    from registry import UserError

    typed(args.window, SmoothingWindow, "--window")
    table = read_prediction_file(args.predictions)
    frames = table
    if is_test(table):
        if args.test_root is None:
            raise UserError(f"{args.predictions}: test predictions have no frame numbers; add --test-root DIR")
        frames = with_frames(table, args.test_root, str(args.predictions))
    scores = smooth_scores(frames, table["score"].to_numpy(), args.filter, args.window)
    write_predictions(args.output, table.assign(score=scores), "test" if is_test(table) else "val")
    changed = np.count_nonzero(scores != table["score"].to_numpy())
    print(f"{args.output}: {len(table)} rows, {args.filter} over {args.window} frames, {changed} scores changed")
    return 0
