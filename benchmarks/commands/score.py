"""Score a prediction file: mAP, AP of both classes, accuracy at 0.5, confusion, 95 % intervals over clips.

Rows are joined by key, in any order. Files have no header. Their columns:

  validation predictions   clip,frame,x1,y1,x2,y2,track,1,score
  validation ground truth  clip,frame,x1,y1,x2,y2,track,label
  test predictions         video,unique_id,track,1,score
  test ground truth        video,unique_id,track,label

example:
  python bench.py score --groundtruth val_gt.csv --predictions val_pred.csv
  python bench.py score --groundtruth val_gt.csv --predictions val_pred.csv --json
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--groundtruth", type=Path, required=True, metavar="GT.csv", help="ground truth")
    parser.add_argument("--predictions", type=Path, required=True, metavar="PRED.csv", help="predictions")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON, in fractions")


def run(args: argparse.Namespace) -> int:
    """Print the figures."""
    import json

    from benchmarks.evaluation.bootstrap import bootstrap_interval
    from benchmarks.evaluation.metrics import NAMES, lam_map
    from benchmarks.scoring.files import match, read_groundtruth, read_prediction_file
    from benchmarks.system.progress import say
    from registry import UserError

    truth, predictions = read_groundtruth(args.groundtruth), read_prediction_file(args.predictions)
    rows = match(truth, predictions, (str(args.groundtruth), str(args.predictions)))
    scores, labels = predictions["score"].to_numpy()[rows], truth["label"].to_numpy()
    figures = lam_map(scores, labels)
    if figures.map is None:
        raise UserError(f"{args.groundtruth}: {figures.note}; with one class only there is no mAP")
    if scores.min() >= 0.5 or scores.max() < 0.5:
        side = "0.5 or above" if scores.min() >= 0.5 else "below 0.5"
        say(f"{args.predictions}: all scores are {side}, so accuracy at 0.5 means nothing; mAP is not affected")
    interval = bootstrap_interval(scores, labels, truth["clip"].to_numpy())
    if interval.note:
        say(interval.note)
    values = figures.to_dict()
    if args.json:
        # The reference scorer nests the two classes under "AP"; print both spellings.
        values["AP"] = {"looking": figures.ap_looking, "not_looking": figures.ap_not_looking}
        print(json.dumps(values | {"interval": interval.to_dict()}, indent=2))
        return 0

    from tabulate import tabulate

    body = []
    for name in NAMES:
        pair = interval.bounds[name]
        body.append([name, f"{100 * values[name]:.2f}", f"{100 * pair[0]:.2f} to {100 * pair[1]:.2f}" if pair else ""])
    head = ["", "%", f"95 % interval ({interval.clips} clips)"]
    print(tabulate(body, head, disable_numparse=True, colalign=("left", "right", "right")))
    confusion = [
        ["looking", figures.true_positives, figures.false_negatives],
        ["not looking", figures.false_positives, figures.true_negatives],
    ]
    print("\n" + tabulate(confusion, ["labelled", "scored 0.5 or above", "below"]))
    return 0
