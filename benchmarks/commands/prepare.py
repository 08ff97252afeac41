"""Turn Ego4D downloads into json_original/, result_LAM/ and, from the videos, face_imgs/.

The folder must contain json/av_train.json, json/av_val.json and videos/<clip>.mp4 as downloaded. For the clips in
split/train.list and split/val.list, face crops are cut at exact frame numbers, several videos at a time. Finished
crops are kept, and running the command again changes no byte. The exit status is 1 if videos are missing or broken;
the report lists them.

example:
  python bench.py prepare --root /data/ego4d --split-lists official
  python bench.py prepare --root /data/ego4d --annotations-only --split-lists official
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="Ego4D folder with json/ and videos/")
    parser.add_argument("--workers", type=int, metavar="N", help="videos at a time (default: one per core)")
    parser.add_argument("--verify", action="store_true", help="read the existing crops, and cut damaged ones again")
    parser.add_argument("--annotations-only", action="store_true", help="cut no crops; needs no videos")
    parser.add_argument(
        "--split-lists",
        choices=("official",),
        help="write split/train.list and val.list if absent: the clips with looking segments",
    )


def run(args: argparse.Namespace) -> int:
    """Prepare the folder and print the report."""
    from benchmarks.config.recipe import Count
    from benchmarks.config.values import typed
    from benchmarks.system.locks import NAME, locked
    from registry import UserError

    typed(args.workers, Count | None, "--workers")
    if not args.root.is_dir():
        raise UserError(f"--root {args.root} is not a folder")
    with locked(args.root / NAME, str(args.root)):
        return _prepare(args)


def _prepare(args: argparse.Namespace) -> int:
    from benchmarks.data.prepare import prepare_annotations
    from benchmarks.system.progress import Progress
    from registry import UserError

    with Progress("annotations", 0, "clip") as progress:
        prepared = prepare_annotations(args.root, args.split_lists == "official", progress.advance)
    _print(prepared.lines())
    if args.annotations_only:
        return 0

    from benchmarks.data.crops import cut_crops
    from benchmarks.data.ego4d import read_split
    from benchmarks.data.frames import concat

    splits = [split for split in ("train", "val") if (args.root / "split" / f"{split}.list").exists()]
    if not splits and prepared.without_list:
        raise UserError(f"{args.root / 'json'}: no clip has social_segments_looking; download the annotations again")
    if not splits:
        raise UserError(f"{args.root / 'split'} lacks train.list and val.list; --split-lists official writes them")
    for split, clips in prepared.not_annotated.items():
        lacking = [clip for clip in clips if not (args.root / "json_original" / clip).is_dir()]
        if lacking:
            raise UserError(
                f"{args.root / 'split' / f'{split}.list'} names clip {lacking[0]}, which is in no annotation file; "
                "correct the list, or delete it and add --split-lists official"
            )
    frames = concat([read_split(args.root, split, images=False) for split in splits])
    with Progress("crops", len(frames), "crop") as progress:
        report = cut_crops(args.root, frames, args.workers, progress.advance, args.verify)
    _print(report.lines())
    return 0 if report.complete else 1


def _print(lines: list[str]) -> None:
    """Print a report, with the names of files and folders made printable."""
    from registry import printable

    for line in lines:
        print("  " * line.startswith("  ") + printable(line))
