"""The test index and the train index, against a search of file names and a loop with one dict per frame."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data.challenge import read_challenge
from benchmarks.data.ego4d import read_split
from benchmarks.data.frames import BOX
from benchmarks.data.windows import windows
from tools.speed.harness import FEW, Work

RADIUS = 3
TRACK = 1000  # frames of a track

PlainRow = dict[str, Any]


def make_challenge_tree(top: Path, tracks: int, frames: int = TRACK) -> Path:
    """Write a tree of empty test crops, four tracks per video; one frame number in eleven has no crop.

    Unique ids are letters: the plain way searches names for frame numbers and must not find them in ids.
    """
    rng = random.Random(tracks)
    letters = "abcdef"
    for track in range(tracks):
        folder = top / f"video{track // 4:05d}" / f"{track % 4}"
        folder.mkdir(parents=True)
        frame = 0
        for _ in range(frames):
            frame += 2 if rng.random() < 0.1 else 1
            (folder / f"{frame:05d}_{''.join(rng.choices(letters, k=32))}.jpg").touch()
    return top


def plain_test_index(top: Path) -> list[list[str | None]]:
    """Return the paths of each frame's window: walk the track's folder and search its names for each neighbour."""
    found: list[list[str | None]] = []
    for video in sorted(os.listdir(top)):  # noqa: PTH208 (the plain way)
        for track in sorted(os.listdir(top / video)):  # noqa: PTH208
            folder = str(top / video / track)
            for name in sorted(os.listdir(folder)):  # noqa: PTH208
                frame = int(name.split("_")[0])
                found.append([_search(folder, f"{frame + step:05d}") for step in range(-RADIUS, RADIUS + 1)])
    return found


def _search(folder: str, number: str) -> str | None:
    for where, _, names in os.walk(folder):
        for name in names:
            if number in name:
                return os.path.join(where, name)  # noqa: PTH118
    return None


def our_test_index(top: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the frame table of a challenge tree and the rows of each frame's window."""
    frames = read_challenge(top)
    return frames, windows(frames, RADIUS)


def differ_test(top: Path, plain: list[list[str | None]], ours: tuple[pd.DataFrame, np.ndarray]) -> str | None:
    """Describe how the windows differ; None if all paths agree."""
    frames, rows = ours
    paths = np.array([f"{top}/{image}" for image in frames["image"]] + [None], dtype=object)  # None for row -1, absent
    expected = np.array(plain, dtype=object)
    if expected.shape != rows.shape:
        return f"{len(expected)} windows and {len(rows)}"
    wrong = np.flatnonzero((paths[rows] != expected).any(axis=1))
    return f"{len(wrong)} windows, the first of {frames['image'][wrong[0]]}" if len(wrong) else None


def seconds_by_size(sizes: tuple[int, ...]) -> dict[str, Any]:
    """Time our test index on trees of several sizes and fit the exponent of its growth; 1 is linear.

    The first reading of each tree is timed: nothing has read it since it was written.
    """
    frames, seconds = [], []
    for tracks in sizes:
        with tempfile.TemporaryDirectory() as folder:
            top = make_challenge_tree(Path(folder) / "tree", tracks)
            began = time.perf_counter()
            table, _ = our_test_index(top)
            seconds.append(time.perf_counter() - began)
            frames.append(len(table))
    exponent = float(np.polyfit(np.log(frames), np.log(seconds), 1)[0])
    return {"frames": frames, "seconds": seconds, "exponent": exponent}


def make_train_root(root: Path, clips: int, tracks: int = 4, frames: int = TRACK) -> Path:
    """Write a prepared root without crops; nine frames in ten of a track have a box."""
    rng = random.Random(clips)
    names = [f"{rng.getrandbits(32):08x}-a937-499b-3f88-{rng.getrandbits(48):012x}" for _ in range(clips)]
    (root / "split").mkdir(parents=True)
    (root / "split" / "train.list").write_text("".join(f"{name}\n" for name in names))
    (root / "result_LAM").mkdir()
    for clip in names:
        (root / "json_original" / clip).mkdir(parents=True)
        for track in range(tracks):
            boxes = []
            for frame in range(1, frames + 1):
                if frame in (1, frames) or rng.random() < 0.9:
                    boxes.append(
                        {
                            "clip_uid": clip,
                            "frameNumber": frame,
                            "Person ID": str(track + 1),
                            "x": round(rng.uniform(-9, 1800), 2),
                            "y": round(rng.uniform(-9, 1000), 2),
                            "height": round(rng.uniform(30, 200), 2),
                            "width": round(rng.uniform(30, 200), 2),
                        }
                    )
            (root / "json_original" / clip / f"{track}.json").write_text(json.dumps(boxes))
        segments = []
        for _ in range(2 * tracks):
            start = rng.randint(1, frames)
            end = start + rng.randint(5, 60)
            segments.append({"label": str(rng.randint(1, tracks)), "start_frame": start, "end_frame": end})
        (root / "result_LAM" / f"{clip}.json").write_text(json.dumps(segments))
    # Files modified within the last seconds are not cached.
    for path in root.rglob("*"):
        os.utime(path, (1e9, 1e9))
    return root


def plain_train_index(root: Path) -> list[PlainRow]:
    """Read boxes, fill gaps and apply segments frame by frame, with one dict per frame."""
    index: list[PlainRow] = []
    for clip in (root / "split" / "train.list").read_text().split():
        segments = json.loads((root / "result_LAM" / f"{clip}.json").read_text())
        for name in sorted(os.listdir(root / "json_original" / clip)):  # noqa: PTH208
            boxes = json.loads((root / "json_original" / clip / name).read_text())
            track: dict[int, PlainRow] = {}
            for box in boxes:
                frame, person = box["frameNumber"], box["Person ID"]
                if box["width"] <= 0 or box["height"] <= 0 or frame < 1 or frame in track:
                    continue
                x, y = max(box["x"], 0), max(box["y"], 0)
                corners = [x, y, x + box["width"], y + box["height"]]
                track[frame] = {"clip": clip, "track": name[:-5], "frame": frame, "person": person, "box": corners}
            known = sorted(track)
            for before, after in pairwise(known):
                first, last = track[before], track[after]
                for frame in range(before + 1, after):
                    part = (frame - before) / (after - before)
                    corners = [a + part * (b - a) for a, b in zip(first["box"], last["box"], strict=True)]
                    track[frame] = {**first, "frame": frame, "box": corners}
            for frame in sorted(track):
                row = track[frame]
                row["label"] = 0
                for segment in segments:
                    if segment["label"] == row["person"] and segment["start_frame"] <= frame <= segment["end_frame"]:
                        row["label"] = 1
                index.append(row)
    return index


def our_train_index(root: Path) -> pd.DataFrame:
    """Return the frame table of the train split, without crops."""
    return read_split(root, "train", images=False)


def differ_train(plain: list[PlainRow], ours: pd.DataFrame) -> str | None:
    """Describe how the rows differ, boxes by more than a millionth of a pixel; None if they agree."""
    if len(plain) != len(ours):
        return f"{len(plain)} rows and {len(ours)}"
    rows = sorted(plain, key=lambda row: (row["clip"], row["track"], row["frame"]))
    for name in ("clip", "track", "frame", "person", "label"):
        wrong = [place for place, value in enumerate(ours[name]) if value != rows[place][name]]
        if wrong:
            return f"{name} of {len(wrong)} rows, the first {rows[wrong[0]]}"
    apart = np.abs(ours[list(BOX)].to_numpy() - np.array([row["box"] for row in rows])).max()
    return f"boxes, by up to {apart} pixels" if apart > 1e-6 else None


@contextmanager
def _caching_in(folder: Path) -> Iterator[None]:
    before = os.environ.get("LAMZOO_CACHE")
    os.environ["LAMZOO_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["LAMZOO_CACHE"]
        if before is not None:
            os.environ["LAMZOO_CACHE"] = before


@contextmanager
def test_index(quick: bool) -> Iterator[list[Work]]:
    """The test index of ten tracks, and its growth up to a million frames."""
    tracks, frames = (2, 50) if quick else (10, TRACK)
    with tempfile.TemporaryDirectory() as folder:
        top = make_challenge_tree(Path(folder) / "tree", tracks, frames)
        yield [
            Work(
                name="test_index",
                what=f"test index with windows, {tracks} tracks of {frames:,} frames",
                against="walk the track's folder and search its names for each of 7 neighbours",
                plain=lambda: plain_test_index(top),
                ours=lambda: our_test_index(top),
                differ=lambda plain, ours: differ_test(top, plain, ours),
                must=1000,
                aim=2000,
                facts=lambda: seconds_by_size((2, 4, 8) if quick else (1, 10, 100, 1000)),
                pairs=FEW,
            )
        ]


@contextmanager
def train_index(quick: bool) -> Iterator[list[Work]]:
    """The train index, from the annotations and from the cache."""
    clips, tracks = 3 if quick else 50, 4
    with tempfile.TemporaryDirectory() as folder:
        root = make_train_root(Path(folder) / "root", clips, tracks)
        what = f"train index, {clips * tracks * TRACK:,} frames"
        against = "a loop with one dict per frame"
        with _caching_in(Path(folder) / "cache"):
            yield [
                Work(
                    name="train_index",
                    what=f"{what}, from the annotations",
                    against=against,
                    plain=lambda: plain_train_index(root),
                    ours=lambda: our_train_index(root),
                    differ=differ_train,
                    must=2,
                    reset=lambda: shutil.rmtree(Path(folder) / "cache", ignore_errors=True),
                ),
                Work(
                    name="train_index_again",
                    what=f"{what}, read again",
                    against=against,
                    plain=lambda: plain_train_index(root),
                    ours=lambda: our_train_index(root),
                    differ=differ_train,
                    must=100,
                    aim=200,
                ),
            ]
