"""Write the frame table of a split: one row per face crop, with interpolated frames and marked key frames.

example:
  python bench.py index --root /data/ego4d --split val -o val_index.csv
  python bench.py index --root /data/ego4d --split train --stride 3 -o train_index.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

COLUMNS = ("clip", "track", "frame", "person", "x1", "y1", "x2", "y2", "label", "unique_id", "keyframe")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--root", type=Path, required=True, metavar="DIR", help="prepared Ego4D folder, with json_original/"
    )
    parser.add_argument("--split", required=True, choices=("train", "val", "test"))
    parser.add_argument(
        "--stride", type=int, metavar="N", help="every N-th frame of a track is a key frame (default: 13; test: 1)"
    )
    parser.add_argument(
        "--label-policy",
        default="published",
        choices=("published", "is_at_me"),
        help="segments that count as looking: published (default), all with a person; is_at_me, those marked so",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.csv", help="file to write")


def run(args: argparse.Namespace) -> int:
    """Write the table."""
    from benchmarks.config.recipe import Count
    from benchmarks.config.values import typed
    from benchmarks.data.ego4d import clips_without_segments, read_split
    from benchmarks.data.windows import key_frames
    from benchmarks.system.progress import say
    from zoo.files.atomic import replacing

    typed(args.stride, Count | None, "--stride")
    stride = args.stride if args.stride is not None else 1 if args.split == "test" else 13
    frames = read_split(args.root, args.split, images=False, label_policy=args.label_policy)
    frames["keyframe"] = key_frames(frames, stride).astype(int)
    if args.split != "test" and (without := clips_without_segments(args.root, args.split)):
        shown = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
        say(f"{len(without)} clips have no looking segments, so all their frames are labelled 0: {shown}")
    with replacing(args.output) as temporary:
        frames[list(COLUMNS)].to_csv(temporary, index=False, lineterminator="\n")
    counts = [
        f"{len(frames)} frames of {frames['clip'].nunique()} clips",
        f"{frames['keyframe'].sum()} key frames at stride {stride}",
        f"{(frames['label'] == 1).sum()} looking",
        f"{(frames['label'] == -1).sum()} of unknown label",
    ]
    print(f"{args.output}: {', '.join(counts)}")
    return 0
