"""`bench.py predict` on a 720p video of two faces, the whole process, against the slower detector and model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.data import synthlam
from benchmarks.rows.provenance import HOME
from benchmarks.scoring.predict import probabilities
from benchmarks.video.journal import read_rows
from benchmarks.video.scorer import cut, widened
from heads.base import Window
from registry import DETECTORS
from tools.check_video import clips_of
from tools.speed.harness import FEW, Work
from tools.usage import used_by
from zoo.models import open_model

SIZE, RATE = (1280, 720), 30  # width and height; frames per second
MINUTES = 0.5
LONG = 4  # times as long is the video on which memory is measured again
CORES = 2
GOAL = 20.0  # frames per second
SLOW = ("centerface", "gaze_nano_lstm")  # detector and model
FAST = ("yunet", "geometry")
FACE = 110  # pixels of a face's longer side, as of somebody at a metre and a half
PLACES = ((380, 330), (860, 380))  # middles of the two faces
SWAY = 40  # pixels by which the wall moves against the faces
LONG_TRACK = 45  # frames
PEOPLE = 8  # who follow one another in each place
GRAIN = 12  # pixels of a spot of the wall
ALWAYS = 0.95  # share of frames in which both faces must have a score


@dataclass
class Ran:
    """What one run of `predict` gave and took.

    Attributes:
        frames: of the video.
        scores: of faces in them.
        processor: seconds of all threads.
        megabytes: largest resident memory.
    """

    frames: int
    scores: int
    processor: float
    megabytes: float


def make_video(path: Path, seconds: float) -> None:
    """Writes a video of two rendered people in front of a wall with grain; another person follows each few seconds."""
    import av

    people = [cycle(one) for one in people_of(2)]
    random = np.random.default_rng(0)
    grain = random.normal(128, 40, (SIZE[1] // GRAIN, SIZE[0] // GRAIN)).clip(0, 255).astype(np.uint8)
    wall = Image.fromarray(grain).resize((SIZE[0] + 2 * SWAY, SIZE[1] + 2 * SWAY)).convert("RGB")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "20", "g": "60"}
        for number in range(round(seconds * RATE)):
            crops = [next(one) for one in people]
            phase = 2 * np.pi * number / RATE / 6
            shift = round(SWAY * (1 + np.sin(phase))), round(SWAY * (1 + np.cos(phase) / 4))
            picture = wall.crop((*shift, shift[0] + SIZE[0], shift[1] + SIZE[1]))
            for crop, place in zip(crops, PLACES, strict=True):
                left, top = (middle - side // 2 for middle, side in zip(place, crop.size, strict=True))
                picture.paste(crop, (left - shift[0] + SWAY, top - shift[1] + SWAY))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())


def people_of(count: int) -> list[list[Image.Image]]:
    """Returns the crops of SynthLAM's largest faces, one long track after another, dealt to `count` places."""
    tracks = []
    for _, rows in clips_of("val"):
        for _, of_track in rows[rows["image"] != ""].groupby("track"):
            side = np.maximum(of_track["x2"] - of_track["x1"], of_track["y2"] - of_track["y1"])
            if len(of_track) >= LONG_TRACK:
                tracks.append(of_track.assign(side=side))
    tracks.sort(key=lambda rows: -rows["side"].median())
    return [list(chain.from_iterable(map(_crops, tracks[k : PEOPLE * count : count]))) for k in range(count)]


def _crops(rows: pd.DataFrame) -> list[Image.Image]:
    scale = FACE / rows["side"].median()
    root = synthlam.root()  # each call checks the files
    pictures = [Image.open(root / image).convert("RGB") for image in rows["image"]]
    return [one.resize((_scaled(scale, one.width), _scaled(scale, one.height))) for one in pictures]


def _scaled(scale: float, side: int) -> int:
    return max(2, round(scale * side))


def predict(video: Path, detector: str, model: str) -> Ran:
    """Runs `predict` in a process of its own, on two cores."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, str(HOME / "bench.py"), "predict", str(video), "-o", out]
        command += ["--model", model, "--detector", detector]
        processor, megabytes = used_by(command, cwd=HOME, stdout=subprocess.DEVNULL, preexec_fn=_on_two_cores)
        facts = json.loads((Path(out) / "run.json").read_text(encoding="utf-8"))["facts"]
        scores = sum(1 for _ in read_rows(Path(out) / "frames.csv"))
    return Ran(facts["frames"], scores, processor, megabytes)


@torch.inference_mode()
def short_script(video: Path) -> int:
    """Scores a video as a short script does: OpenCV, the detector on every frame, each face by itself, no tracks.

    Returns:
        Number of scores.
    """
    import cv2

    model, detector = open_model(FAST[1]), DETECTORS.build({"type": FAST[0]})
    encode = model.network.backbone.encoder("cpu")
    capture, scores = cv2.VideoCapture(str(video)), 0
    while (read := capture.read())[0]:
        picture = np.ascontiguousarray(read[1][..., ::-1])
        for box in detector.detect(picture).boxes:
            crop = cut(picture, widened(box, model.margin))
            if crop is not None:
                features = encode(torch.from_numpy(model.network.backbone.preprocessing.resize_crop(crop))[None])
                present = torch.ones(1, 1, dtype=torch.bool)
                scores += len(probabilities(model.network.head(Window(features.float()[:, None], present))))
    capture.release()
    return scores


def _on_two_cores() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def differ(plain: Ran, ours: Ran) -> str | None:
    """Describes what a run lacks: detectors and models give other boxes and scores, but both must score both faces."""
    for name, ran in (("baseline", plain), ("ours", ours)):
        if ran.scores < 2 * ALWAYS * ran.frames:
            return f"{name} has {ran.scores} scores in {ran.frames} frames of two faces"
    return None if plain.frames == ours.frames else f"{plain.frames} and {ours.frames} frames"


@contextmanager
def video(quick: bool) -> Iterator[list[Work]]:
    """Half a minute with YuNet and the default model, against CenterFace and `gaze_nano_lstm`, and against a script."""
    seconds = 4.0 if quick else 60.0 * MINUTES
    frames = round(seconds * RATE)
    last: dict[tuple[str, str], Ran] = {}  # detector and model -> their last run on the short video
    with tempfile.TemporaryDirectory() as name:
        short, long = Path(name) / "short.mp4", Path(name) / "long.mp4"
        make_video(short, seconds)

        def run(pair: tuple[str, str]) -> Ran:
            last[pair] = predict(short, *pair)
            return last[pair]

        def facts() -> dict[str, Any]:
            make_video(long, LONG * seconds)
            longer = predict(long, *FAST)
            return {
                "frames": frames,
                "processor_ms_per_frame": [round(1e3 * last[pair].processor / frames, 1) for pair in (SLOW, FAST)],
                "minutes": [round(seconds / 60, 2), round(LONG * seconds / 60, 2)],
                "megabytes": [round(last[FAST].megabytes), round(longer.megabytes)],
            }

        yield [
            Work(
                name="video",
                what=f"`predict` with {' and '.join(FAST)}: {frames:,} frames of 1280 x 720, two faces, two cores",
                against=" and ".join(SLOW),
                plain=lambda: run(SLOW),
                ours=lambda: run(FAST),
                differ=differ,
                seconds=frames / GOAL,
                facts=facts,
                pairs=FEW,
            ),
            Work(
                name="video_script",
                what=f"`predict` with {' and '.join(FAST)}, the same video",
                against="a script: OpenCV, the same detector on every frame, each face by itself, no tracks or files",
                plain=lambda: short_script(short),
                ours=lambda: run(FAST),
                differ=lambda plain, ours: (
                    None
                    if min(plain, ours.scores) > 2 * ALWAYS * frames
                    else f"{plain} and {ours.scores} scores of two faces in {frames} frames"
                ),
                must=1.0,
                pairs=FEW,
            ),
        ]
