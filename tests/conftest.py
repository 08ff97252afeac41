"""A small learnable data set in Ego4D's layout: looking faces are bright on the left."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.data import synthlam

HOME = Path(__file__).resolve().parent.parent
TINY = HOME / "tests" / "parts" / "tiny.py"

# Names of Ray's worker processes; the second and third in older versions.
RAY_WORKERS = (b"ray::MapWorker", b"ray::_MapWorker", b"ray::MapBatches")

# On inputs of this size, several threads only wait for each other.
torch.set_num_threads(1)

CLIPS = {"train": 6, "val": 4, "test": 4}
FRAMES = 24


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Unpack SynthLAM before tests run in parallel: a command that waits for another test to unpack it says so."""
    synthlam.root()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a GPU where there is none, and say what they need."""
    for item in items:
        mark = item.get_closest_marker("gpu")
        if mark is not None and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason=f"needs {mark.args[0]}"))


def exit_status(arguments: list[str]) -> int:
    """Run `bench.py` and return its exit status, also if argparse exits."""
    import bench

    try:
        return bench.main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)


def check_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture) -> None:
    """Check that a command exits with status 2 and one line on stderr that contains the words."""
    status, printed = exit_status(arguments), capsys.readouterr()
    assert status == 2
    assert words in printed.err
    assert printed.err.count("\n") == 1, printed.err
    assert printed.out == ""


def make_lam_tree(root: Path, seed: int = 0) -> Path:
    """Write train, val and a labelled test split: 24 frames per track, looking from 9 to 13, two missing."""
    random = np.random.default_rng(seed)
    rows = []
    for split, count in CLIPS.items():
        clips = [f"{split}{number:02d}" for number in range(count)]
        if split != "test":
            (root / "split").mkdir(parents=True, exist_ok=True)
            (root / "split" / f"{split}.list").write_text("\n".join(clips) + "\n")
        for clip in clips:
            records = []
            for frame in range(1, FRAMES + 1):
                looking = 9 <= frame <= 13
                if frame in (4, 17):
                    continue
                picture = random.integers(0, 90, (20, 20, 3), dtype=np.uint8)
                picture[:, :10] += np.uint8(40 * looking)
                if split == "test":
                    path = root / "videos_challenge" / clip / "t0" / f"{frame:05d}_{frame:04d}ab.jpg"
                    rows.append([clip, "t0", frame, f"{frame:04d}ab", "1", 10, 10, 30, 30, int(looking)])
                else:
                    path = root / "face_imgs" / clip / "t0" / f"face_{frame:05d}.jpg"
                    box = dict(zip(("x", "y", "height", "width"), (10, 10, 20, 20), strict=True))
                    records.append({"clip_uid": clip, "frameNumber": frame, "Person ID": "1", **box})
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path, quality=95)
            if split != "test":
                (root / "json_original" / clip).mkdir(parents=True)
                (root / "json_original" / clip / "t0.json").write_text(json.dumps(records))
                (root / "result_LAM").mkdir(exist_ok=True)
                segments = [{"label": "1", "start_frame": 9, "end_frame": 13}]
                (root / "result_LAM" / f"{clip}.json").write_text(json.dumps(segments))
    with (root / "labels_challenge.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "track", "frame", "unique_id", "person", "x1", "y1", "x2", "y2", "label"])
        writer.writerows(rows)
    return root


@pytest.fixture(scope="session")
def lam_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data set; copy it before changing it."""
    return make_lam_tree(tmp_path_factory.mktemp("lam"))


@pytest.fixture(scope="session", autouse=True)
def _tiny_backbone() -> None:
    from registry import load_plugin

    load_plugin(TINY)
