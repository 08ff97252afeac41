"""Compare two finished rows: paired difference of their mean mAP, 95 % interval, p by permutation.

Key frames are joined by clip, track and frame, and equal seeds are paired, so clips that are easy or hard for both rows
cancel out. Interval and p take the variance over clips and over seeds into account.

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
    from benchmarks.rows.predictions import Predictions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("a", metavar="A", help="name or folder of a finished row")
    parser.add_argument("b", metavar="B", help="name or folder of another")
    parser.add_argument("--dataset", default="synthlam", metavar="NAME", help="dataset of the rows (default: synthlam)")
    parser.add_argument("--split", default="test", choices=("test", "val"), help="default: test")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs (default: runs)")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON, in fractions")


def run(args: argparse.Namespace) -> int:
    """Print the comparison."""
    import numpy as np

    from benchmarks.evaluation.compare import difference, permutation_p, scored, sentence, without_each_clip
    from benchmarks.evaluation.metrics import lam_map
    from benchmarks.rows.predictions import common_frames, read_predictions, row_folder
    from registry import UserError

    rows = [read_predictions(row_folder(name, args.out, args.dataset), args.split) for name in (args.a, args.b)]
    frames, places = common_frames(*rows)
    labels, clips = frames["label"].to_numpy(), frames["clip"].to_numpy(dtype=str)
    if labels.min() == labels.max():
        raise UserError(f"the {len(labels)} key frames that both rows score are of one class, so mAP is undefined")
    scores = [
        np.stack([of_seed[place] for of_seed in row.scores.values()]) for row, place in zip(rows, places, strict=True)
    ]
    a, b = (
        scored([*row.scores], [lam_map(each, labels).map or 0.0 for each in own], without_each_clip(own, labels, clips))
        for row, own in zip(rows, scores, strict=True)
    )
    found = difference(a, b)
    if found is None:
        raise UserError(f"one of {len(a.clips)} clips has all frames of a class, so there is no interval over clips")
    p = None if found.too_few else permutation_p(found, scores[0], scores[1], labels, clips)
    paired = sorted({*a.seeds} & {*b.seeds})
    names = [row.name if rows[0].name != rows[1].name else str(row.path.parent) for row in rows]
    lines = [sentence(names[0], names[1], found, p), *_warnings(names, rows, len(labels))]
    if args.json:
        import json

        values = {
            **{side: _side(row, of_row) for side, row, of_row in zip("ab", rows, (a, b), strict=True)},
            "split": args.split,
            "frames": len(labels),
            "positives": int(labels.sum()),
            "clips": len(a.clips),
            "paired_seeds": paired,
            "difference": found.value,
            "interval": None if found.too_few else [found.low, found.high],
            "p": p,
            "told_apart": not (found.too_few or found.includes_zero),
            "summary": " ".join(lines),
        }
        print(json.dumps(values, indent=2, ensure_ascii=False))
        return 0

    from tabulate import tabulate

    body = [
        [name, f"{100 * side.map.mean():.2f}", f"{100 * side.map.std(ddof=1):.2f}" if len(side.seeds) > 1 else "",
         str(len(side.seeds))]
        for name, side in zip(names, (a, b), strict=True)
    ]  # fmt: skip
    body.append(["difference", f"{100 * found.value:+.2f}", "", f"{len(paired)} paired"])
    head = [f"{rows[0].dataset} {args.split}", "mAP", "std", "seeds"]
    print(tabulate(body, head, disable_numparse=True, colalign=("left", "right", "right", "right")))
    interval = f"95 % interval {100 * found.low:+.2f} to {100 * found.high:+.2f}"
    start = "" if p is None else f"{interval}, p = {p:.2g} by permutation, on "
    print(f"\n{start}{len(labels):,} key frames of {len(a.clips)} clips\n")
    print("\n".join(lines))
    return 0


def _side(row: Predictions, figures: Scored) -> dict[str, Any]:
    """One of the two rows, for JSON."""
    return {
        "name": row.name,
        "folder": str(row.path.parent),
        "seeds": list(figures.seeds),
        "mAP": float(figures.map.mean()),
        "std": float(figures.map.std(ddof=1)) if len(figures.seeds) > 1 else 0.0,
        "per_seed": figures.map.tolist(),
    }


def _warnings(names: list[str], rows: list[Predictions], count: int) -> list[str]:
    """Warnings about missing seeds, and about key frames that only one row scores."""
    lines = []
    single = [name for name, row in zip(names, rows, strict=True) if len(row.scores) == 1]
    if len(single) == 2:
        lines.append(
            "Each row has one seed, so the difference may be due to the seeds: run both again with --seeds 5 or more."
        )
    elif single:
        lines.append(f"{single[0]} has one seed, so its spread over seeds is taken from the other row.")
    for name, row in zip(names, rows, strict=True):
        if len(row.frames) > count:
            lines.append(f"Only {count:,} of the {len(row.frames):,} key frames of {name} are also in the other row.")
    return lines
