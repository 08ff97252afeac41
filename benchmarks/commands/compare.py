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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.evaluation.compare import Difference, Scored
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


@dataclass(frozen=True)
class _Comparison:
    """Two rows on the same key frames; `p` is None if it was not computed."""

    results: list[Result]
    figures: tuple[Scored, Scored]
    found: Difference
    p: float | None
    frames: int
    positives: int
    clips: int
    warnings: list[str]


def run(args: argparse.Namespace) -> int:
    """Print the comparison."""
    from benchmarks.evaluation.compare import sentence
    from benchmarks.rows.find import find_record
    from benchmarks.rows.trainings import cluster_of, shared_in_words

    rows = [find_record(name, args.out, args.dataset) for name in (args.a, args.b)]
    scores = all(row.folder is not None for row in rows)
    compared = (_from_scores if scores else _from_records)(rows, args.split)
    found, (a, b) = compared.found, compared.figures
    names = [result["name"] for result in compared.results]
    if names[0] == names[1]:
        names = [str(row.folder or row.record) for row in rows]
    cluster = "video" if "video" in {cluster_of(result, args.split) for result in compared.results} else "clip"
    shared = shared_in_words(a.trainings, b.trainings)
    lines = [sentence(names[0], names[1], found, compared.p), *_single_seeds(names, compared), *compared.warnings]
    if args.split == "val":
        fitted = [name for name, result in zip(names, compared.results, strict=True) if result["fitted"]]
        lines += [f"{name}: smoothing or weights were fitted on val, so its figure is optimistic." for name in fitted]
    if args.json:
        import json

        values = {
            **{
                side: _side(result, row, figures)
                for side, result, row, figures in zip("ab", compared.results, rows, (a, b), strict=True)
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


def _from_scores(rows: list[FoundRow], split: str) -> _Comparison:
    """Compare two rows by their scores, on the key frames that both have."""
    import numpy as np

    from benchmarks.evaluation.compare import permutation_p, scored, without_each_clip
    from benchmarks.evaluation.metrics import lam_map
    from benchmarks.rows.predictions import common_frames, read_predictions
    from benchmarks.rows.schema import bound_of
    from benchmarks.rows.trainings import cluster_of, clusters_in, trainings_of
    from registry import UserError

    predictions = [read_predictions(row.folder, split) for row in rows if row.folder is not None]
    frames, places = common_frames(*predictions)
    labels, names = frames["label"].to_numpy(), frames["clip"].to_numpy(dtype=str)
    # An older record may not name the videos that the other does.
    known = max((row.result for row in predictions), key=lambda result: cluster_of(result, split) == "video")
    clips = clusters_in(known, split, names)
    if labels.min() == labels.max():
        raise UserError(f"the {len(labels)} key frames that both rows score are of one class, so mAP is undefined")
    scores, figures, warnings = [], [], []
    for row, place in zip(predictions, places, strict=True):
        own = np.stack([of_seed[place] for of_seed in row.scores.values()])
        of_seeds = dict(zip(row.result["seeds"], trainings_of(row.result), strict=True))
        trainings = [of_seeds.get(seed, frozenset()) for seed in row.scores]
        maps = [lam_map(each, labels).map or 0.0 for each in own]
        fixed = bound_of(row.result) is not None
        figures.append(scored([*row.scores], maps, without_each_clip(own, labels, clips), trainings, fixed))
        scores.append(own)
        if len(row.frames) > len(labels):
            warnings.append(
                f"Only {len(labels):,} of the {len(row.frames):,} key frames of {row.result['name']} are also in the "
                "other row."
            )
    found = _difference(figures[0], figures[1])
    p = None if found.too_few else permutation_p(found, scores[0], scores[1], labels, clips)
    results = [row.result for row in predictions]
    counts = len(labels), int(labels.sum()), len(np.unique(names))
    return _Comparison(results, (figures[0], figures[1]), found, p, *counts, warnings)


def _from_records(rows: list[FoundRow], split: str) -> _Comparison:
    """Compare two rows by their records, which must be of the same key frames."""
    from benchmarks.rows.schema import read_result
    from benchmarks.rows.trainings import frames_of, scored_of
    from registry import UserError

    results = [read_result(row.record) for row in rows]
    figures = []
    for row, result in zip(rows, results, strict=True):
        of_row = scored_of(result, split)
        if of_row is None:
            raise UserError(f"{row.record} has no figures of {split} to compare; run the recipe again")
        figures.append(of_row)
    if frames_of(results[0], split) != frames_of(results[1], split):
        raise UserError(
            f"{rows[0].record} and {rows[1].record} are of different key frames, and records have no scores to join; "
            "run both recipes here"
        )
    own = results[0]["splits"][split]
    found = _difference(figures[0], figures[1])
    counts = own["windows"], own["positives"], own["clips"]
    return _Comparison(results, (figures[0], figures[1]), found, None, *counts, [])


def _difference(a: Scored, b: Scored) -> Difference:
    from benchmarks.evaluation.compare import difference
    from registry import UserError

    found = difference(a, b)
    if found is None:
        raise UserError(f"one of {len(a.clips)} clips has all frames of a class, so there is no interval over clips")
    return found


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


def _single_seeds(names: list[str], compared: _Comparison) -> list[str]:
    """Warnings about rows with one seed of several possible ones."""
    rows = [(name, row) for name, row in zip(names, compared.figures, strict=True) if not row.fixed]
    single = [name for name, row in rows if len(row.seeds) == 1]
    if len(single) == 2:
        return [
            "Each row has one seed, so the difference may be due to the seeds: run both again with --seeds 5 or more."
        ]
    if len(rows) == 1:  # beside a row without a spread
        return [
            f"{name} has one seed, so the difference may be due to it: run it with --seeds 5 or more."
            for name in single
        ]
    return [f"{name} has one seed, so its spread over seeds is taken from the other row." for name in single]
