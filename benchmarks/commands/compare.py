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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class Predictions:
    """What a row scored in one split.

    Attributes:
        name: of the row.
        dataset: that it was run on.
        path: of the file.
        frames: N rows with clip, track, frame and label, sorted; unlabelled frames left out.
        scores: seed -> (N,) P(looking).
    """

    name: str
    dataset: str
    path: Path
    frames: pd.DataFrame
    scores: dict[int, np.ndarray]


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

    from benchmarks.metrics import lam_map
    from benchmarks.statistics import difference, permutation_p, scored, sentence, without_each_clip
    from registry import UserError

    rows = [read_predictions(find_row(name, args.dataset, args.out), args.split) for name in (args.a, args.b)]
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


def find_row(name: str, dataset: str, out: Path) -> Path:
    """The folder of a row that was run.

    Args:
        name: the row's name, or a path to its folder.
        dataset: of a row that is named.
        out: folder of the runs.

    Raises:
        UserError: there is none; names the nearest.
    """
    from benchmarks.results import read_result
    from registry import UserError, did_you_mean

    if (Path(name) / "result.json").exists():
        return Path(name)
    there = {read_result(path)["name"]: path.parent for path in sorted(out.glob(f"results/{dataset}/*/result.json"))}
    if name not in there:
        hint = did_you_mean(name, list(there)) or f"; python bench.py table --out {out} shows what there is"
        raise UserError(f"no row {name} in {out / 'results' / dataset}{hint}")
    return there[name]


def read_predictions(folder: Path, split: str) -> Predictions:
    """Read what a row scored in one split, of all seeds.

    Raises:
        UserError: the file cannot be read, has no labelled frame of that split, or its seeds scored other frames.
    """
    import numpy as np
    import pandas as pd

    from benchmarks.data.frames import KEY
    from benchmarks.results import read_result
    from registry import UserError

    result, path = read_result(folder / "result.json"), folder / "predictions.csv"
    try:
        table = pd.read_csv(
            path,
            usecols=["split", "seed", *KEY, "label", "score"],
            dtype={"split": str, "clip": str, "track": str, "score": str},  # numpy reads every digit of a score
        )
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}; run the recipe again") from error
    table = table[(table["split"] == split) & (table["label"] >= 0)]
    if table.empty:
        raise UserError(f"{path} has no labelled frames of the {split} split; name another with --split")
    scores, frames = {}, None
    for seed, part in table.groupby("seed"):
        own = part.sort_values(KEY, ignore_index=True)
        if frames is None:
            frames = own[[*KEY, "label"]]
            if frames.duplicated(KEY).any():
                raise UserError(f"{path}: frames of the {split} split come twice; delete {folder} and run again")
        elif not own[[*KEY, "label"]].equals(frames):
            raise UserError(f"{path}: seed {seed} has other frames than the first; delete {folder} and run again")
        scores[int(seed)] = own["score"].to_numpy().astype(np.float64)
    assert frames is not None
    return Predictions(result["name"], result["dataset"]["name"], path, frames, scores)


def common_frames(a: Predictions, b: Predictions) -> tuple[pd.DataFrame, tuple[np.ndarray, np.ndarray]]:
    """The key frames that both rows scored, joined by key: the table, and their places among the rows' own.

    Raises:
        UserError: they were run on different datasets, have no frame in common, or differ in a label.
    """
    from benchmarks.data.frames import KEY
    from registry import UserError

    if a.dataset != b.dataset:
        raise UserError(f"{a.path} is of dataset {a.dataset}, {b.path} of {b.dataset}; rows of one can be compared")
    ours, theirs = (row.frames.assign(place=range(len(row.frames))) for row in (a, b))
    joined = ours.merge(theirs, on=KEY, suffixes=("", "_b"))
    if joined.empty:
        raise UserError(f"{a.path} and {b.path} have no key frame in common")
    differ = joined[joined["label"] != joined["label_b"]]
    if len(differ):
        row = differ.iloc[0]
        raise UserError(
            f"{a.path} and {b.path} differ in {len(differ)} labels, the first: clip {row['clip']}, track "
            f"{row['track']}, frame {row['frame']}; they were run on different data, run one of them again"
        )
    return joined[[*KEY, "label"]], (joined["place"].to_numpy(), joined["place_b"].to_numpy())


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
