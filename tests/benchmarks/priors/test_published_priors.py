"""An imported GazePose checkpoint gives the published program's logits, with priors from its authors' file formats."""

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks.data.frames import frame_table
from benchmarks.pixels.windows import as_tensors
from registry import PRIORS
from tests.zoo.test_golden_models import GOLDEN, golden_inputs, golden_state
from zoo.model import read_model
from zoo.upstream import import_checkpoint


def cell(x: float, y: float) -> int:
    return 20 * math.floor((x + 2) / 0.1) + math.floor((y + 2) / 0.1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden checkpoint, with its landmark embeddings moved to the cells relative to the mid-point of the eyes.

    The golden landmarks do not have their origin there, as those of every file have.
    """
    state = golden_state("gazepose")
    embeddings = state["joint_embed.weight"]
    moved, taken = embeddings.clone(), {}
    for landmarks in GOLDEN["gazepose"]["input"]["landmarks"]:
        xs, ys = landmarks[:5], landmarks[5:10]
        middle = (xs[1] + xs[2]) / 2, (ys[1] + ys[2]) / 2
        for x, y in zip(xs, ys, strict=True):
            place = cell(x - middle[0], y - middle[1])
            assert taken.setdefault(place, cell(x, y)) == cell(x, y)
            moved[place] = embeddings[cell(x, y)]
    state["joint_embed.weight"] = moved
    folder = tmp_path_factory.mktemp("gazepose")
    torch.save({"epoch": 1, "state_dict": state, "mAP": 0.7}, folder / "best.pth")
    import_checkpoint(folder / "best.pth", "gazepose", folder / "gazepose.safetensors")
    return folder / "gazepose.safetensors"


def test_golden_logits_through_the_authors_files(checkpoint: Path, tmp_path: Path) -> None:
    """The first window is of a val clip, keyed by frame, the second of a test video, keyed by unique id."""
    golden = GOLDEN["gazepose"]["input"]
    (first, second) = (
        [[x, y, -0.1, confidence] for x, y, confidence in zip(each[:5], each[5:10], each[10:], strict=True)]
        for each in golden["landmarks"]
    )
    signs = (1, -1, 1)
    poses = [[sign * (bin_ + 0.5) for sign, bin_ in zip(signs, bins, strict=True)] for bins in golden["head_pose_bins"]]
    files = {
        "val_headpose-all.json": {"clip:1:31": [*poses[0], 1, 0, 0]},
        "test_headpose.json": {"video:0:4fe1b0a3:00107": poses[1]},
        "val_mesh.json": {"clip": {"1": {"30": first}}},  # frame 31 has none, and takes those of frame 30
        "test_mesh.json": {"video": {"0": {"4fe1b0a3": second}}},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    paths = [str(tmp_path / name) for name in files]
    prior = PRIORS.build(
        {"type": "file", "head_pose": paths[:2], "landmarks": paths[2:], "root": tmp_path, "cache": tmp_path}
    )
    frames = frame_table(
        {
            "clip": ["clip", "video"],
            "track": ["1", "0"],
            "frame": [31, 107],
            "unique_id": ["", "4fe1b0a3"],
            "person": "",
            "x1": 0,
            "y1": 0,
            "x2": 224,
            "y2": 224,
            "label": 0,
            "image": "x.jpg",
        }
    )
    priors = as_tensors(prior.read(frames))
    assert priors["head_pose_bins"].tolist() == golden["head_pose_bins"]
    model = read_model(checkpoint).eval()
    pixels, _ = golden_inputs("gazepose")
    with torch.no_grad():
        logits = model(pixels, torch.ones(pixels.shape[:2], dtype=torch.bool), priors)
    torch.testing.assert_close(logits, torch.tensor(GOLDEN["gazepose"]["logits"]), atol=1e-4, rtol=0)
