"""A published checkpoint -> the zoo's format: FILE.safetensors, and FILE.json, its card.

The checkpoint is a file that torch.save wrote (or safetensors), its state dict bare or in a wrapper, with any prefix
to its names. Tensors and numbers are read and nothing in it is executed. Of Gaze360's the trunk and the LSTM are kept.

example:
  python bench.py import internlstm_best.pth --as internlstm -o internlstm.safetensors
  python bench.py import gaze360_model.pth.tar --as gaze360 -o gaze360.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument(
        "--as",
        dest="kind",
        required=True,
        choices=("internlstm", "gazelstm", "gazepose", "gaze360"),
        help="the published program that wrote it",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.safetensors")


def run(args: argparse.Namespace) -> int:
    """Import the checkpoint and say what came of it."""
    from zoo.upstream import import_checkpoint

    done = import_checkpoint(args.checkpoint, args.kind, args.output)
    facts = [f"{args.kind}, {done.tensors} tensors of {done.numbers:,} numbers"]
    if done.prefix:
        facts.append(f"prefix '{done.prefix}' stripped")
    facts += [f"{count} converted from {dtype}" for dtype, count in done.converted.items()]
    if done.dropped:
        facts.append(f"left out {', '.join(done.dropped)}")
    print(f"{args.output}: {', '.join(facts)}; card {done.card}")
    return 0
