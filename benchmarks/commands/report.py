"""Write one HTML file about finished rows: table, curves, calibration, timelines, mistakes, provenance.

A committed record has no scores: its row has figures, calibration and groups, but no curves, timelines or mistakes.
The page needs no network and no scripts. It contains crops of the dataset, so the dataset's licence applies to it.

example:
  python bench.py report -o report.html
  python bench.py report internlstm_flip_tta probe -o two.html
  python bench.py report --dataset ego4d --root /data/ego4d -o ego4d.html
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.commands import add_plugin_option

if TYPE_CHECKING:
    from benchmarks.data.dataset import Dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="name or folder of a finished row, or a record (default: all finished rows)",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.html", help="file to write")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs (default: runs)")
    parser.add_argument(
        "--dataset",
        default="synthlam",
        metavar="NAME",
        help="synthlam (default), ego4d, a plug-in's, or a .py file",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the dataset; not needed for synthlam")
    add_plugin_option(parser)


def run(args: argparse.Namespace) -> int:
    """Write the report."""
    from functools import cache

    from benchmarks.config.files import load_dataset
    from benchmarks.report.page import render_page
    from benchmarks.report.rows import read_record, read_row
    from benchmarks.rows.find import FoundRow, find_record
    from benchmarks.system.progress import Progress
    from registry import DATASETS, UserError, load_plugins
    from zoo.files.atomic import check_writable, write_text

    load_plugins(args.plugin)
    if args.output.is_dir():
        raise UserError(f"{args.output} is a folder; name a file: -o {args.output / 'report.html'}")
    name = load_dataset(args.dataset)["type"]
    if args.runs:
        found = [find_record(of_row, args.out, name) for of_row in args.runs]
    else:
        found = [FoundRow(path, path.parent) for path in sorted(args.out.glob(f"results/{name}/*/result.json"))]
    if not found:
        raise UserError(
            f"no finished rows in {args.out / 'results' / name}; run some, such as python bench.py --recipe probe "
            f"--dataset {args.dataset}, or name another folder with --out DIR"
        )
    check_writable(args.output.parent)
    dataset: Dataset = DATASETS.get(name)(args.root)
    found = list({row.record.resolve(): row for row in found}.values())
    frames_of = cache(dataset.frames)
    with Progress("report", 2 * len(found), "step") as progress:
        rows = []
        for row in found:
            rows.append(read_record(row.record, name) if row.folder is None else read_row(row.folder, name, frames_of))
            progress.advance()
        text = render_page(rows, dataset.root, bool(args.runs), progress.advance)
    write_text(args.output, text)
    print(f"{args.output}: {len(rows)} row{'s'[: len(rows) > 1]}, {args.output.stat().st_size / 1e6:.2f} MB")
    return 0
