"""Commands to run under faults, with their small inputs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.conftest import HOME, TINY, make_lam_tree

TRUNK = HOME / "tests" / "parts" / "tiny_trunk.py"
MEANS = HOME / "tests" / "parts" / "slow_means.py"
COMMANDS = ("extract", "run", "prepare", "predict")
SQUARE = 40  # pixels of the faces in the video


@dataclass(frozen=True)
class Scenario:
    """A command with its inputs.

    Attributes:
        name: starts with the command.
        line: (inputs, output folder) -> arguments of bench.py.
        threads: of torch.
        begin: prepares the output folder.
        use: makes the next run read files again that it would otherwise skip, after one was damaged.
        flags: options with the same effect.
    """

    name: str
    line: Callable[[Path, Path], list[str]]
    threads: int = 1
    begin: Callable[[Path, Path], None] = lambda inputs, work: None
    use: Callable[[Path], None] = lambda work: None
    flags: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """Name of the command."""
        return self.name.partition("-")[0]


def make_inputs(folder: Path) -> None:
    """Write the inputs: an Ego4D-like root, crops, raw annotations with videos, a video with boxes."""
    tree = make_lam_tree(folder / "tree")
    for clip in ("train00", "val01"):
        shutil.copytree(tree / "face_imgs" / clip, folder / "crops" / clip)
    _write_raw(folder / "raw")
    _write_video(folder / "walk.mp4", frames=40, size=(320, 240), square=SQUARE)
    lines = ["frame,track,x1,y1,x2,y2"]
    for frame in range(2, 38):
        for track, (left, top) in _places(frame).items():
            if track == "1" or frame % 19 > 3:
                lines.append(f"{frame},{track},{left},{top},{left + SQUARE},{top + SQUARE}")
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")


def _places(frame: int) -> dict[str, tuple[int, int]]:
    return {"1": (30 + 2 * frame, 40), "2": (250 - frame, 150)}


def _write_video(path: Path, frames: int, size: tuple[int, int], square: int) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(frames).integers(60, 250, (2, square, square, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "12", "g": "15"}
        for frame in range(frames):
            picture = np.full((size[1], size[0], 3), 40, dtype=np.uint8)  # dark, with two bright faces
            for face, (left, top) in zip(noise, _places(frame).values(), strict=True):
                picture[top : top + square, left : left + square] = face if frame % 20 < 12 else face // 3
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _write_raw(root: Path) -> None:
    """Write two clips as downloaded: annotations and one video per clip."""
    (root / "json").mkdir(parents=True)
    for split, frames in (("train", 34), ("val", 28)):
        clip = f"{split}-clip"
        persons = [{"person_id": "0", "camera_wearer": True, "tracking_paths": []}]
        for track in ("1", "2"):
            boxes = [
                dict(frame=frame + 1, x=place[track][0], y=place[track][1], width=SQUARE, height=SQUARE)
                for frame, place in ((frame, _places(frame)) for frame in range(frames))
            ]
            persons.append({"person_id": track, "tracking_paths": [{"track_id": f"{clip}-{track}", "track": boxes}]})
        looking = [{"person": "1", "start_frame": 3, "end_frame": 12}]
        clips = [{"clip_uid": clip, "persons": persons, "social_segments_looking": looking}]
        content = {"version": "v2", "split": split, "videos": [{"video_uid": f"{split}-video", "clips": clips}]}
        (root / "json" / f"av_{split}.json").write_text(json.dumps(content))
        _write_video(root / "videos" / f"{clip}.mp4", frames, (320, 240), SQUARE)


def _extract_images(inputs: Path, work: Path) -> list[str]:
    return [
        "extract", "--images", str(inputs / "crops"), "--backbone", "internvit_nano", "--views", "original,flipped",
        "--device", "cpu", "-o", str(work / "store"),
    ]  # fmt: skip


def _extract_recipes(inputs: Path, work: Path) -> list[str]:
    return [
        "extract", "--recipe", "internlstm_flip_tta", "--dataset", "ego4d", "--root", str(inputs / "tree"),
        "--plugin", str(TINY), "--backbone", "tiny_means", "--device", "cpu", "--out", str(work / "runs"),
    ]  # fmt: skip


def _run(inputs: Path, work: Path, recipe: str, backbone: str, *settings: str) -> list[str]:
    plugin = {"tiny_means": TINY, "tiny_trunk": TRUNK}[backbone]
    settings = ("windows.stride.train=2", "windows.stride.val=2", "training.batch_size=16", *settings)
    return [
        "run", "--recipe", recipe, "--dataset", "ego4d", "--root", str(inputs / "tree"), "--plugin", str(plugin),
        "--backbone", backbone, "--device", "cpu", "--out", str(work / "runs"),
        *(part for setting in settings for part in ("--set", setting)),
    ]  # fmt: skip


def _run_features(inputs: Path, work: Path) -> list[str]:
    head = ("head.projection=8", "head.hidden=8", "head.mlp=[8,8,8]")
    line = _run(inputs, work, "internlstm_flip_tta_smooth", "tiny_means", "training.epochs=4", *head)
    return [*line, "--limit", "60"]


def _run_pixels(inputs: Path, work: Path) -> list[str]:
    how = ("backbone.frozen=false", "training.epochs=3", "training.lr=0.01")
    return [*_run(inputs, work, "gazelstm", "tiny_trunk", *how), "--limit", "48"]


def _predict(inputs: Path, work: Path, *options: str) -> list[str]:
    video = str(inputs / "walk.mp4")
    return ["predict", video, "--model", "internlstm_nano", "--device", "cpu", "-o", str(work / "out"), *options]


def _predict_boxes(inputs: Path, work: Path) -> list[str]:
    return _predict(inputs, work, "--faces", str(inputs / "boxes.csv"), "--threshold", "0.3", "--min-duration", "0.1")


def _predict_detector(inputs: Path, work: Path) -> list[str]:
    return _predict(inputs, work, "--set", "side=320", "--set", "threshold=0.05", "--causal")


def _copy_raw(inputs: Path, work: Path) -> None:
    shutil.copytree(inputs / "raw", work / "root")


def _prepare(inputs: Path, work: Path) -> list[str]:
    return ["prepare", "--root", str(work / "root"), "--split-lists", "official", "--workers", "2"]


def _forget_rows(work: Path) -> None:
    """Delete the rows, so that they are made again from features and trainings."""
    shutil.rmtree(work / "runs" / "results", ignore_errors=True)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("extract-images", _extract_images, threads=2),
        Scenario("extract-recipes", _extract_recipes, threads=2),
        Scenario("run-features", _run_features, use=_forget_rows),
        Scenario("run-pixels", _run_pixels, use=_forget_rows),
        Scenario("prepare", _prepare, begin=_copy_raw, flags=("--verify",)),
        Scenario("predict-boxes", _predict_boxes),
        Scenario("predict-detector", _predict_detector),
    )
}


def slow_extract(inputs: Path, work: Path) -> list[str]:
    """Return the arguments of a slow extraction, for runs that cannot fork from a warm process."""
    return [
        "bench.py", "extract", "--images", str(inputs / "crops"), "--backbone", "slow_means", "--plugin", str(MEANS),
        "--set", "delay=0.08", "--batch-size", "4", "--device", "cpu", "-o", str(work / "store"),
    ]  # fmt: skip
