"""Extraction, JPEG to features on disk, against transformers' processor and model on one image at a time.

example:
  python -m tools.speed.extract              a small ViT on the CPU, or the full-size 6B on a GPU
  python -m tools.speed.extract --quick      small sizes; says nothing about the large ones
"""

from __future__ import annotations

import argparse
import sys

import torch

from tools.speed.extract_cpu import on_cpu
from tools.speed.extract_gpu import on_gpu
from tools.speed.harness import add_options, check_options, measure_all


def main() -> int:
    """Measure on the GPU if there is one, else on the CPU; 1 if a goal is missed or results differ."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.speed.extract",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("--only", metavar="NAME", help="only this row")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if available")
    options = parser.parse_args()
    check_options(parser, options)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    with (on_gpu if device == "cuda" else on_cpu)(options.quick) as works:
        chosen = [work for work in works if options.only in (None, work.name)]
        return 1 if measure_all(chosen, options, device) else 0


if __name__ == "__main__":
    sys.exit(main())
