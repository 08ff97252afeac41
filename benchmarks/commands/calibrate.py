"""Fit a model to faces that you marked on the page of `label`, and write it as a folder for `predict --model`.

Fitted are a threshold and a logistic regression on the model's log odds, and on the backbone's features if these are
few. Both are cross-validated over tracks and compared with the model as it was. What is not better by more than its
standard error is left as it was; if nothing is better, no model is written and the exit status is 1.

example:
  python bench.py calibrate walk/ labels.csv -o my_model/
  python bench.py calibrate walk/ walk_labels.csv shop/ shop_labels.csv -o my_model/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.commands import add_plugin_option, new_model_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "marked",
        type=Path,
        nargs="+",
        metavar="OUT LABELS.csv",
        help="output folder of predict, and the labels saved from its page; several pairs if one model scored them",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="new or empty folder")
    parser.add_argument("--device", metavar="D", help="torch device (default: cuda if there is a GPU, else cpu)")
    add_plugin_option(parser)


def run(args: argparse.Namespace) -> int:
    """Calibrate the model."""
    from registry import UserError, load_plugins, printable

    if len(args.marked) % 2:
        raise UserError(f"{args.marked[-1]} has no partner; give pairs of an output folder and its labels")
    load_plugins(args.plugin)

    from benchmarks.calibration.calibrate import calibrate, read_marked_run, write_calibrated
    from benchmarks.system.device import default_device

    with new_model_folder(args.output):
        runs = [read_marked_run(*pair) for pair in zip(args.marked[::2], args.marked[1::2], strict=True)]
        done = calibrate(runs, default_device(args.device))
        print(f"{done.summary()}\n\n{done.gain.table(done.model.name)}\n")
        if done.threshold is None:
            print(
                "nothing is gained: neither a calibration nor another threshold is better by more than its standard "
                f"error; no model is written, keep using {done.model.name}"
            )
            return 1
        write_calibrated(done, args.output)
    name = printable(str(args.output))
    if done.fit is None:
        moved = done.gain.moved.text("+")
        print(f"scores stay as they are: only the threshold moves, with a balanced accuracy of {moved}")
    kept = done.gain.moved.low if done.fit is None else -done.gain.difference[2].high
    if kept <= 0:
        print("the interval of this gain includes 0, so it may be chance; more marks would tell")
    print(f"{name}: threshold {done.threshold:g}; python bench.py predict VIDEO --model {name} -o OUT")
    return 0
