"""Training of the gaze network: the loss is least at the truth, and the backbone reads a short run's output."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from backbones.gaze_nano import PREPROCESSING, GazeNetwork
from benchmarks.data import synthlam
from registry import UserError
from tests.tools.test_pretrain_nano import dot, write_shard
from tools.pretrain_gaze import COLUMNS, LEARNING_RATE, WARM_UP, between_eyes, loss_of, pretrain
from tools.pretraining.clips import load_clips
from tools.pretraining.figures import gazes
from tools.pretraining.renders import NAMES, load_renders, together
from tools.pretraining.steps import Schedule

NOSE = [NAMES.index("nose_x"), NAMES.index("nose_y")]


def test_between_the_eyes() -> None:
    targets = torch.zeros(1, len(NAMES))
    for name, value in {"left_eye_x": 0.6, "left_eye_y": 0.4, "right_eye_x": 0.3, "right_eye_y": 0.5}.items():
        targets[0, NAMES.index(name)] = value
    torch.testing.assert_close(between_eyes(targets), torch.tensor([[0.45, 0.45]]))


def test_loss_is_least_at_the_truth() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = 0.2 * torch.randn(8, len(NAMES), generator=generator)
    network = GazeNetwork(NAMES, torch.zeros(len(NAMES)), torch.ones(len(NAMES)))

    def loss(shift: float) -> float:
        gaze = torch.cat([targets[:, COLUMNS] + shift, gazes(targets)[:, :2] + shift, torch.zeros(8, 3)], 1)
        network.look = lambda *_: (None, gaze, targets + shift)  # type: ignore[method-assign, assignment, return-value]
        return float(loss_of(network, torch.zeros(8, 3, 4, 4), known, torch.zeros(4, 2)))

    known = targets
    assert loss(0.0) < min(loss(0.2), loss(-0.2))
    known = targets.clone()
    known[:, NAMES.index("smile")] = torch.nan
    assert loss(0.0) < min(loss(0.2), loss(-0.2))


@pytest.mark.slow
def test_targets_of_clips_match_their_ground_truth() -> None:
    """Head and eye angles give the true gaze, rotated by the roll of the camera."""
    root = synthlam.root()
    truth = synthlam.truth(root)
    truth = truth[truth["split"] == "val"]
    crops = load_clips(root, "val", PREPROCESSING)
    yaw, pitch = np.radians(truth["gaze_yaw"].to_numpy()), np.radians(truth["gaze_pitch"].to_numpy())
    found = gazes(crops.targets).numpy()
    np.testing.assert_allclose(found[:, 2], np.cos(yaw) * np.cos(pitch), atol=3e-4)
    for component, true in ((0, np.sin(yaw) * np.cos(pitch)), (1, np.sin(pitch))):
        assert np.corrcoef(found[:, component], true)[0, 1] > 0.95
    assert crops.images.shape == (len(truth), 112, 112, 3)
    assert float(crops.targets[:, NAMES.index("log_size")].exp().max()) == pytest.approx(truth["width"].max(), abs=30)
    assert crops.targets[:, NOSE].isnan().all()


def test_processes_share_the_crops(tmp_path: Path) -> None:
    """Shares of renders and of clips are disjoint and cover every crop once."""
    random = np.random.default_rng(1)
    targets = random.normal(0, 0.1, (7, len(NAMES))).astype(np.float32)
    write_shard(tmp_path / "shard_00001.npz", [dot(0.5, 0.5, 40, 50) for _ in targets], targets)
    clips = _few_clips(tmp_path)
    for load in (
        lambda share: load_renders(tmp_path, PREPROCESSING, set(), held_out=False, share=share),
        lambda share: load_clips(clips, "train", PREPROCESSING, share),
    ):
        whole, shares = load(slice(None)), [load(slice(rank, None, 3)) for rank in range(3)]
        assert sum(map(len, shares)) == len(whole)
        for rank, share in enumerate(shares):
            torch.testing.assert_close(share.images, whole.images[rank::3])
            torch.testing.assert_close(share.targets, whole.targets[rank::3], equal_nan=True)
    parts = [share, whole]
    both = together(parts)
    assert not parts
    torch.testing.assert_close(both.images, torch.cat([share.images, whole.images]))
    torch.testing.assert_close(both.targets, torch.cat([share.targets, whole.targets]), equal_nan=True)


def test_schedule() -> None:
    schedule = Schedule(minutes=10, peak=2e-3, warm_up=0.02)
    assert schedule.rate(0) == 0
    assert schedule.rate(0.2) == 2e-3 == max(schedule.rate(minute / 100) for minute in range(1001))
    assert schedule.rate(10) == pytest.approx(0)


def test_a_short_run(tmp_path: Path) -> None:
    renders, out = tmp_path / "renders", tmp_path / "out"
    renders.mkdir()
    random = np.random.default_rng(0)
    for number in range(2):  # shard 0 is held out
        targets = random.normal(0, 0.1, (16, len(NAMES)))
        targets[:, NOSE] = random.uniform(0.3, 0.7, (16, 2))
        targets[:, NAMES.index("log_size")] = np.log(60)
        targets[::2, 0] = 1  # some look elsewhere
        write_shard(renders / f"shard_{number:05d}.npz", [dot(*row[NOSE], 40, 50) for row in targets], targets)
    schedule = Schedule(0.01, LEARNING_RATE, WARM_UP)
    pretrain(renders, out, schedule)
    report = json.loads((out / "pretraining.json").read_text())
    held_out = report["held_out_renders"]
    assert held_out["crops"] == report["training"]["distinct"] == 16
    assert report["training"]["steps"] >= 1
    assert held_out["by_size"]["55 to 70 px"]["crops"] == 16
    names = tuple(json.loads((out / "config.json").read_text())["names"])
    network = GazeNetwork(names)
    network.load_state_dict(load_file(out / "model.safetensors"))
    assert network.eval()(torch.zeros(2, 3, 112, 112)).shape == (2, network.feature_dim)
    with pytest.raises(UserError, match="has no training shards"):
        pretrain(tmp_path, out, schedule)

    before = load_file(out / "model.safetensors")
    again = tmp_path / "again"
    pretrain(renders, again, Schedule(0.01, 1e-9, WARM_UP), [_few_clips(tmp_path)], start=out)
    report = json.loads((again / "pretraining.json").read_text())
    assert report["training"]["went_on_from"]["distinct"] == 16
    assert report["training"]["distinct"] == 16 + 12
    assert report["held_out_clips"]["crops"] == 4
    for name, tensor in load_file(again / "model.safetensors").items():
        if name.endswith("weight"):
            torch.testing.assert_close(tensor, before[name], atol=1e-5, rtol=0)  # it started from these weights


def _few_clips(folder: Path) -> Path:
    """Twelve SynthLAM crops for training and four for the report."""
    root = synthlam.root()
    truth = synthlam.truth(root)
    near = truth[truth["split"] == "val"].sort_values("gaze_angle").iloc[:4]  # the camera, as each size must have some
    few = pd.concat([truth[truth["split"] == "train"].iloc[:12], near])
    clips = folder / "clips"
    for image in few["image"]:
        (clips / image).parent.mkdir(parents=True, exist_ok=True)
        (clips / image).symlink_to(root / image)
    few.to_csv(clips / "truth.csv", index=False)
    return clips
