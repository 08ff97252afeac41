"""Convert a published checkpoint to the zoo's format: FILE.safetensors and its card, FILE.json.

The checkpoint is a file from torch.save, or a safetensors file. Wrappers around the state dict and prefixes of its
names are removed. Nothing in the checkpoint is executed. Of Gaze360, only trunk and LSTM are kept.

example:
  python bench.py import internlstm_best.pth --as internlstm -o internlstm.safetensors
  python bench.py import gaze360_model.pth.tar --as gaze360 -o gaze360.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="file to convert")
    parser.add_argument(
        "--as",
        dest="kind",
        required=True,
        choices=("internlstm", "gazelstm", "gazepose", "gaze360"),
        help="published model that the checkpoint belongs to",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.safetensors", help="file to write")


def run(args: argparse.Namespace) -> int:
    """Import the checkpoint."""
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
