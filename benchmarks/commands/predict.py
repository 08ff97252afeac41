"""Score a video of your own: who looked at the camera, when, for how long.

The output folder gets frames.csv (every face of every frame with its score), bouts.csv (looks: track, start, end,
duration), bouts.vtt (subtitles), bouts.eaf (for ELAN) and annotated.mp4. An interrupted run resumes.

example:
  python bench.py predict walk.mp4 -o walk/
  python bench.py predict walk.mp4 --model gaze_nano_lstm --faces boxes.csv --threshold 0.7 -o walk/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.commands import add_plugin_option

MODEL = "geometry"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("video", type=Path, metavar="VIDEO", help="any file that FFmpeg decodes")
    parser.add_argument(
        "--model", default=MODEL, metavar="NAME", help=f"model (see --list), or a model folder (default: {MODEL})"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="output folder")
    parser.add_argument(
        "--faces",
        type=Path,
        metavar="CSV",
        help="your own boxes, in place of a detector: frame (from 0) or time (seconds), track, x1, y1, x2, y2",
    )
    parser.add_argument("--detector", default="centerface", metavar="NAME", help="see --list (default: centerface)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="argument of the detector: threshold=0.3"
    )
    parser.add_argument(
        "--detections",
        type=float,
        default=2.5,
        metavar="N",
        help="whole frames per second to search for new faces (default: 2.5); known faces are followed more often",
    )
    parser.add_argument("--causal", action="store_true", help="score each frame without later frames")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="score from which a frame counts as looking (default: the model's, in its config.json)",
    )
    parser.add_argument(
        "--min-duration", type=float, default=0.2, metavar="S", help="drop looks of fewer seconds (default: 0.2)"
    )
    parser.add_argument(
        "--merge-gap", type=float, default=0.2, metavar="S", help="merge looks up to S seconds apart (default: 0.2)"
    )
    parser.add_argument(
        "--change-cost",
        type=float,
        metavar="C",
        help="evidence for the start or end of a look, in log odds x seconds (default: the model's; 0: judge each "
        "frame by its own score)",
    )
    parser.add_argument("--device", metavar="D", help="torch device (default: cuda if there is a GPU, else cpu)")
    add_plugin_option(parser)


def run(args: argparse.Namespace) -> int:
    """Score the video."""
    from registry import UserError, load_plugins, printable

    for name, low, high in (
        ("threshold", 0.0, 1.0),
        ("min_duration", 0.0, 1e6),
        ("merge_gap", 0.0, 1e6),
        ("change_cost", 0.0, 1000.0),
        ("detections", 0.01, 1000.0),
    ):
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise UserError(f"--{name.replace('_', '-')} is {value:g}; it must be between {low:g} and {high:g}")
    if args.faces is not None and args.set:
        raise UserError("--set is for the detector, which --faces replaces; drop one of them")
    load_plugins(args.plugin)

    from backbones.checksums import file_sha256
    from benchmarks.config.settings import parse_setting
    from benchmarks.system.device import take_device
    from benchmarks.video.bouts import BoutOptions
    from benchmarks.video.decode import Video
    from benchmarks.video.faces import read_faces
    from benchmarks.video.pipeline import header_of, predict_video
    from benchmarks.video.search import FaceSource
    from registry import DETECTORS
    from zoo.models import open_model

    Video(args.video)  # errors in the video come before the model is loaded
    if args.faces is not None:
        source = FaceSource(None, args.detections, read_faces(args.faces), file_sha256(args.faces), args.causal)
    else:
        detector = DETECTORS.build({"type": args.detector, **dict(parse_setting(setting) for setting in args.set)})
        source = FaceSource(detector, args.detections, causal=args.causal)
    try:
        model = open_model(args.model, take_device(args.device))
    except UserError as error:
        if args.model != MODEL:
            raise
        raise UserError(f"{error} (or take a model without such a package: --model gaze_nano_lstm)") from error
    threshold = model.threshold if args.threshold is None else args.threshold
    cost = model.cost if args.change_cost is None else args.change_cost
    options = BoutOptions(threshold, args.min_duration, args.merge_gap, cost)
    done = predict_video(args.video, model, source, options, args.out)
    for line in header_of(model):
        print(line)
    lost = f", {done.lost} lost" if done.lost else ""
    dropped = f" ({done.dropped} dropped)" if done.dropped else ""
    print(
        f"{done.seconds:.1f} s of video, {done.frames} frames{lost}: {done.tracks} tracks{dropped}, "
        f"{done.scores} scores, {done.bouts} looks, in {printable(str(args.out))}"
    )
    return 0
