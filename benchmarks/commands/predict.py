"""Score videos of your own, or a camera: who looked at it, when, for how long.

The output folder gets frames.csv (every face of every frame with its score), bouts.csv (looks: track, start, end,
duration), people.csv (a line per track), bouts.vtt (subtitles), bouts.eaf (for ELAN) and annotated.mp4. Several videos,
or the videos of a folder, get one subfolder each. An interrupted run resumes. A camera is scored until Ctrl-C, or q and
Enter.

example:
  python bench.py predict walk.mp4 -o walk/
  python bench.py predict sample --model gaze_nano_lstm -o out/
  python bench.py predict walk.mp4 --model gaze_nano_lstm --faces boxes.csv --threshold 0.7 -o walk/
  python bench.py predict videos/ -o out/
  python bench.py predict camera:0 --show -o live/
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.commands import add_plugin_option
from benchmarks.video.defaults import DETECTIONS, DETECTOR, LEAST, MERGE, MODEL

if TYPE_CHECKING:
    from benchmarks.video.bouts import BoutOptions
    from benchmarks.video.pipeline import Summary
    from benchmarks.video.search import FaceSource
    from zoo.models import Model

CAMERA = "camera:"  # before a camera's number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "video",
        nargs="+",
        metavar="VIDEO",
        help="files that FFmpeg decodes, folders of them, sample (shipped with lamzoo), or one camera: camera:0",
    )
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
    parser.add_argument("--detector", default=DETECTOR, metavar="NAME", help=f"see --list (default: {DETECTOR})")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="argument of the detector: threshold=0.3"
    )
    parser.add_argument(
        "--detections",
        type=float,
        default=DETECTIONS,
        metavar="N",
        help=f"whole frames per second to search for new faces (default: {DETECTIONS}); known faces are followed more "
        "often",
    )
    parser.add_argument(
        "--causal", action="store_true", help="score each frame without later frames (as a camera is scored)"
    )
    parser.add_argument("--show", action="store_true", help="with a camera: a window with what is found; q closes it")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="score from which a frame counts as looking (default: the model's, in its config.json)",
    )
    parser.add_argument(
        "--min-duration",
        type=float,
        default=LEAST,
        metavar="S",
        help=f"drop looks of fewer seconds (default: {LEAST})",
    )
    parser.add_argument(
        "--merge-gap",
        type=float,
        default=MERGE,
        metavar="S",
        help=f"merge looks up to S seconds apart (default: {MERGE})",
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
    """Score the videos, or the camera."""
    from registry import load_plugins

    _check(args)
    load_plugins(args.plugin)
    if args.video[0].startswith(CAMERA):
        return _run_camera(args)
    return _run_videos(args)


def _check(args: argparse.Namespace) -> None:
    """Refuse options that do not fit, before anything is read."""
    from benchmarks.video.options import check_limits
    from registry import UserError

    check_limits(vars(args), lambda name: f"--{name.replace('_', '-')}")
    if args.faces is not None and args.set:
        raise UserError("--set is for the detector, which --faces replaces; drop one of them")
    cameras = [text for text in args.video if text.startswith(CAMERA)]
    if cameras and len(args.video) > 1:
        raise UserError(f"{cameras[0]} is scored alone; give the other {len(args.video) - 1} in a command of their own")
    if cameras and args.faces is not None:
        raise UserError("--faces is for a video; a camera needs a detector")
    if args.show and not cameras:
        raise UserError("--show is for a camera; of a video see annotated.mp4")


def _run_camera(args: argparse.Namespace) -> int:
    """Score a camera until the user ends it."""
    from benchmarks.system.progress import say
    from benchmarks.video.camera import Camera, open_capture, typed_q
    from benchmarks.video.window import LiveWindow
    from registry import printable

    address = args.video[0].removeprefix(CAMERA)
    window = LiveWindow(printable(args.video[0])) if args.show else None
    camera = Camera(args.video[0], open_capture(address), lambda: typed_q() or (window is not None and window.closed))

    from benchmarks.video.live import predict_camera
    from benchmarks.video.pipeline import Job

    args.causal = True
    source, model, options = _parts(args)
    say(f"{camera.name}: {camera.size[0]} x {camera.size[1]} pixels; to end: Ctrl-C, or q and Enter")
    done = predict_camera(Job(camera, model, source, args.out), options, window)
    _print_header(model)
    print(_summary(done, args.out))
    return 0


def _run_videos(args: argparse.Namespace) -> int:
    """Score videos one after another; one that fails does not stop the others."""
    from benchmarks.video.inputs import find_videos, readable
    from registry import UserError, printable

    given = find_videos(args.video, args.out)
    if args.faces is not None and len(given) > 1:
        raise UserError(f"--faces has the boxes of one video, and there are {len(given)}; give one")
    good, failed = readable(given)
    for line in failed.values():
        print(f"bench.py predict: {line}", file=sys.stderr)
    if not good:
        raise UserError(f"none of {len(given)} videos can be read")

    from benchmarks.video.pipeline import predict_video

    source, model, options = _parts(args)
    if len(given) > 1:
        _print_header(model)
    for one in good:
        try:
            done = predict_video(one.video, model, source, options, one.out)
        except UserError as error:
            if len(given) == 1:
                raise
            failed[one.video] = str(error)
            print(f"bench.py predict: {printable(str(one.video))}: {error}", file=sys.stderr)
            continue
        if len(given) == 1:
            _print_header(model)
        print(_summary(done, one.out), flush=True)
    if len(given) == 1:
        return 0
    whole = printable(str(args.out))
    if not failed:
        print(f"{len(given)} videos done, in {whole}")
        return 0
    names = ", ".join(printable(str(path)) for path in failed)
    print(f"bench.py predict: {len(given) - len(failed)} of {len(given)} videos done; failed: {names}", file=sys.stderr)
    return 1 if len(failed) < len(given) else 2


def _parts(args: argparse.Namespace) -> tuple[FaceSource, Model, BoutOptions]:
    """Load detector and model, and say what counts as a look."""
    from benchmarks.config.settings import parse_setting
    from benchmarks.system.device import take_device
    from benchmarks.video.bouts import BoutOptions
    from benchmarks.video.search import face_source
    from registry import UserError
    from zoo.models import open_model

    detector = {"type": args.detector, **dict(parse_setting(setting) for setting in args.set)}
    source = face_source(args.faces or detector, args.detections, args.causal)
    try:
        model = open_model(args.model, take_device(args.device))
    except UserError as error:
        if args.model != MODEL:
            raise
        raise UserError(f"{error} (or take a model without such a package: --model gaze_nano_lstm)") from error
    threshold = model.threshold if args.threshold is None else args.threshold
    cost = model.cost if args.change_cost is None else args.change_cost
    return source, model, BoutOptions(threshold, args.min_duration, args.merge_gap, cost)


def _print_header(model: Model) -> None:
    from benchmarks.video.pipeline import header_of

    for line in header_of(model):
        print(line)


def _summary(done: Summary, out: Path) -> str:
    from registry import printable

    lost = f", {done.lost} lost" if done.lost else ""
    dropped = f" ({done.dropped} dropped)" if done.dropped else ""
    return (
        f"{done.seconds:.1f} s of video, {done.frames} frames{lost}: {done.tracks} tracks{dropped}, "
        f"{done.scores} scores, {done.bouts} looks, in {printable(str(out))}"
    )
