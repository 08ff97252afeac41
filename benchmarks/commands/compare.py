"""Whether two rows that were run differ: paired difference of their mean mAP, 95 % interval, p by permutation.

A and B are names of rows in the folder of the runs, as the table shows them, or paths to their folders. Key frames are
joined by clip, track and frame. Both are scored on the same clips, and seeds of one number are paired, so what is easy
or hard for both falls out; the interval is for other clips and other seeds, and p counts both too.

example:
  python bench.py compare internlstm_flip_tta internlstm
  python bench.py compare internlstm_flip_tta other_runs/results/synthlam/internlstm_flip_tta --split val --json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.rows.predictions import Predictions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("a", metavar="A", help="name of a row that was run, or its folder")
    parser.add_argument("b", metavar="B", help="another")
    parser.add_argument("--dataset", default="synthlam", metavar="NAME", help="of the rows named (default synthlam)")
    parser.add_argument("--split", default="test", choices=("test", "val"), help="default test")
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help="folder of the runs (default runs)"
    )
    parser.add_argument("--json", action="store_true", help="everything as JSON, in fractions")


def run(args: argparse.Namespace) -> int:
    """Compare the rows and print what came of it."""
    import json

    import numpy as np

    from benchmarks.evaluation.compare import difference, permutation_p, scored, sentence, without_each_clip
    from benchmarks.evaluation.metrics import lam_map
    from benchmarks.rows.predictions import common_frames, read_predictions, row_folder
    from registry import UserError

    rows = [read_predictions(row_folder(name, args.out, args.dataset), args.split) for name in (args.a, args.b)]
    frames, places = common_frames(*rows)
    labels, clips = frames["label"].to_numpy(), frames["clip"].to_numpy(dtype=str)
    if labels.min() == labels.max():
        raise UserError(f"the {len(labels)} key frames that both rows score are of one class; there is no mAP")
    scores = [
        np.stack([of_seed[place] for of_seed in row.scores.values()]) for row, place in zip(rows, places, strict=True)
    ]
    a, b = (
        scored([*row.scores], [lam_map(each, labels).map or 0.0 for each in own], without_each_clip(own, labels, clips))
        for row, own in zip(rows, scores, strict=True)
    )
    found = difference(a, b)
    if found is None:
        raise UserError(
            f"one clip of {len(a.clips)} alone has all frames of a class, so nothing can be said of other clips"
        )
    p = permutation_p(found, scores[0], scores[1], labels, clips)
    paired = sorted({*a.seeds} & {*b.seeds})
    names = [row.name if rows[0].name != rows[1].name else str(row.path.parent) for row in rows]
    lines = [sentence(names[0], names[1], found, p), *_warnings(names, rows, len(labels))]
    if args.json:
        sides = [
            {"name": row.name, "folder": str(row.path.parent), "seeds": list(side.seeds), "mAP": float(side.map.mean()),
             "std": float(side.map.std(ddof=1)) if len(side.seeds) > 1 else 0.0, "per_seed": side.map.tolist()}
            for row, side in zip(rows, (a, b), strict=True)
        ]  # fmt: skip
        values = {
            "a": sides[0],
            "b": sides[1],
            "split": args.split,
            "frames": len(labels),
            "positives": int(labels.sum()),
            "clips": len(a.clips),
            "paired_seeds": paired,
            "difference": found.value,
            "interval": [found.low, found.high],
            "p": p,
            "told_apart": not found.includes_zero,
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
    print(
        f"\n95 % interval {100 * found.low:+.2f} to {100 * found.high:+.2f}, p = {p:.2g} by permutation, on "
        f"{len(labels):,} key frames of {len(a.clips)} clips\n"
    )
    print("\n".join(lines))
    return 0


def _warnings(names: list[str], rows: list[Predictions], count: int) -> list[str]:
    """What the reader must not overlook."""
    lines = []
    single = [name for name, row in zip(names, rows, strict=True) if len(row.scores) == 1]
    if len(single) == 2:
        lines.append(
            "Seeds were not repeated, so the difference may be the seeds': run both again with --seeds 5 or more."
        )
    elif single:
        lines.append(f"{single[0]} has one seed: its seeds are taken to spread as the other row's do.")
    for name, row in zip(names, rows, strict=True):
        if len(row.frames) > count:
            lines.append(f"Of {name}'s {len(row.frames):,} key frames only {count:,} are the other row's too.")
    return lines
