"""Compare two rows: difference of their mean mAP, its 95 % interval, p, and what they mean.

A row is one of your own, by name or folder, a committed record by name, or a record file. Key frames are joined by
clip, track and frame, so clips that are easy or hard for both rows cancel out. Seeds are paired only if the rows share
trainings or initial weights. Interval and p take the variance over clips and over seeds into account.

p swaps the rows in random clips and adds Student's t over seeds. It needs the scores of both rows, which committed
records lack; their interval comes from the mAP without each clip.

example:
  python bench.py compare internlstm_flip_tta internlstm
  python bench.py compare internlstm_flip_tta other_runs/results/synthlam/internlstm_flip_tta --split val --json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.evaluation.compare import Scored
    from benchmarks.rows.find import FoundRow
    from benchmarks.rows.schema import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("a", metavar="A", help="name or folder of a finished row, or a record")
    parser.add_argument("b", metavar="B", help="name or folder of another, or a record")
    parser.add_argument("--dataset", default="synthlam", metavar="NAME", help="dataset of the rows (default: synthlam)")
    parser.add_argument("--split", default="test", choices=("test", "val"), help="default: test")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs (default: runs)")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON, in fractions")


def run(args: argparse.Namespace) -> int:
    """Print the comparison."""
    from benchmarks.table.comparison import compare_rows

    compared = compare_rows(args.a, args.b, args.out, args.split, args.dataset)
    found, (a, b), names, lines = compared.found, compared.figures, compared.names, list(compared.lines)
    cluster, shared = compared.cluster, compared.pairing
    if args.json:
        import json

        values = {
            **{
                side: _side(result, row, figures)
                for side, result, row, figures in zip("ab", compared.results, compared.rows, (a, b), strict=True)
            },
            "split": args.split,
            "frames": compared.frames,
            "positives": compared.positives,
            "clips": compared.clips,
            "cluster": cluster,
            "clusters": len(a.clips),
            "paired_seeds": list(found.paired),
            "pairing": shared,
            "difference": found.value,
            "interval": None if found.too_few else [found.low, found.high],
            "p": compared.p,
            "p_test": None if compared.p is None else f"{cluster}s swapped between the rows, Student's t over seeds",
            "told_apart": not (found.too_few or found.includes_zero),
            "summary": " ".join(lines),
        }
        print(json.dumps(values, indent=2, ensure_ascii=False))
        return 0

    from tabulate import tabulate

    from benchmarks.system.terminal import tell

    body = [
        [name, f"{100 * side.map.mean():.2f}", f"{100 * side.map.std(ddof=1):.2f}" if len(side.seeds) > 1 else "",
         str(len(side.seeds))]
        for name, side in zip(names, (a, b), strict=True)
    ]  # fmt: skip
    body.append(["difference", f"{100 * found.value:+.2f}", "", f"{len(found.paired)} paired"])
    head = [f"{compared.results[0]['dataset']['name']} {args.split}", "mAP", "std", "seeds"]
    tell(tabulate(body, head, disable_numparse=True, colalign=("left", "right", "right", "right")))
    interval = "" if found.too_few else f"95 % interval {100 * found.low:+.2f} to {100 * found.high:+.2f}"
    test = "" if compared.p is None else f", p = {compared.p:.2g} ({cluster}s swapped, t over seeds)"
    tell(f"\n{interval}{test}{', ' * bool(interval)}{compared.frames:,} key frames of {len(a.clips)} {cluster}s")
    tell(f"seeds {'paired' if found.paired else 'not paired'}: {shared}\n")
    if compared.p is None and not found.too_few:
        lines.append("No p: it needs the scores of both rows, and a record has none.")
    tell("\n".join(lines))
    return 0


def _side(result: Result, row: FoundRow, figures: Scored) -> dict[str, Any]:
    """One of the two rows, for JSON."""
    return {
        "name": result["name"],
        "folder": None if row.folder is None else str(row.folder),
        "record": str(row.record),
        "seeds": list(figures.seeds),
        "mAP": float(figures.map.mean()),
        "std": float(figures.map.std(ddof=1)) if len(figures.seeds) > 1 else 0.0,
        "per_seed": figures.map.tolist(),
    }
