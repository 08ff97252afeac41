"""Pretraining: targets follow the picture through every augmentation, and the backbone reads a short run's output."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.base import Preprocessing
from backbones.internvit_network import InternViTNetwork
from registry import BACKBONES, UserError
from tools.pretrain_nano import LEARNING_RATE, WARM_UP, pretrain
from tools.pretraining.figures import errors_of, gaze_directions, linear_probe
from tools.pretraining.regressor import CONFIG, whiten_patches
from tools.pretraining.renders import NAMES, augment, load_shard, mirror_targets
from tools.pretraining.steps import Schedule

X, Y = NAMES.index("nose_x"), NAMES.index("nose_y")
SIZE = NAMES.index("log_size")
EYE_COLUMNS = [NAMES.index(f"{side}_eye_{axis}") for side in ("left", "right") for axis in "xy"]


def write_shard(path: Path, pictures: list[Image.Image], targets: np.ndarray) -> None:
    files = []
    for picture in pictures:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=95)
        files.append(buffer.getvalue())
    np.savez(
        path,
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        targets=targets.astype(np.float32),
        names=np.array(NAMES),
    )


def dot(x: float, y: float, width: int, height: int) -> Image.Image:
    """A bright dot on black, centred at (x, y) in units of the picture."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    distance = (columns - x * width) ** 2 + (rows - y * height) ** 2
    grey = (255 * np.exp(-distance / 18)).astype(np.uint8)
    return Image.fromarray(np.repeat(grey[..., None], 3, 2))


def centre_of_light(image: torch.Tensor) -> tuple[float, float]:
    """Centre of mass ``(x, y)`` of ``image (3, S, S)`` in units of its side."""
    grey = image.float().mean(0)
    grey = (grey - grey.median()).clamp(min=0)
    along = (torch.arange(len(grey)) + 0.5) / len(grey)
    return float((grey.sum(0) * along).sum() / grey.sum()), float((grey.sum(1) * along).sum() / grey.sum())


@pytest.mark.parametrize(("width", "height"), [(60, 90), (90, 60), (70, 70)])
def test_landmarks_survive_the_centre_crop(tmp_path: Path, width: int, height: int) -> None:
    targets = np.zeros((1, len(NAMES)))
    targets[0, X], targets[0, Y] = 0.6, 0.55
    write_shard(tmp_path / "shard_00000.npz", [dot(0.6, 0.55, width, height)], targets)
    shard = load_shard(tmp_path / "shard_00000.npz", Preprocessing(size=112, resize=112))
    x, y = centre_of_light(shard.images[0].permute(2, 0, 1))
    assert abs(x - float(shard.targets[0, X])) < 0.01
    assert abs(y - float(shard.targets[0, Y])) < 0.01


@pytest.mark.parametrize("aligned", [0.0, 0.5, 1.0])
def test_augmentation_moves_landmarks_with_the_picture(aligned: float) -> None:
    pixels = torch.from_numpy(np.array(dot(0.45, 0.6, 112, 112))).permute(2, 0, 1).float() / 255
    images, targets = pixels.repeat(64, 1, 1, 1), torch.zeros(64, len(NAMES))
    targets[:, X], targets[:, Y], targets[:, SIZE] = 0.45, 0.6, 4.0
    for column in EYE_COLUMNS:
        targets[:, column] = 0.5
    moved, new = augment(images, targets, torch.Generator().manual_seed(0), aligned)
    assert moved.shape == images.shape
    assert 0 <= moved.min() <= moved.max() <= 1
    for image, target in zip(moved, new, strict=True):
        x, y = centre_of_light(image)
        assert abs(x - float(target[X])) < 0.012
        assert abs(y - float(target[Y])) < 0.012
    assert (new[:, X] > 0.5).any()  # some are mirrored
    assert (new[:, Y] == 0.6).any() == (aligned == 0)  # some keep their framing
    assert torch.equal(targets[:, X], torch.full((64,), 0.45))  # the input is unchanged


def test_alignment_puts_the_eyes_at_one_place() -> None:
    targets = torch.zeros(256, len(NAMES))
    targets[:, EYE_COLUMNS] = 0.3 + 0.4 * torch.rand(256, 4, generator=torch.Generator().manual_seed(1))

    def between(aligned: float) -> torch.Tensor:
        _, new = augment(torch.zeros(256, 3, 8, 8), targets, torch.Generator().manual_seed(0), aligned)
        return new[:, EYE_COLUMNS].view(256, 2, 2).mean(1)

    assert (between(1.0).std(0) < 0.3 * between(0.0).std(0)).all()
    torch.testing.assert_close(between(1.0).mean(0), torch.tensor([0.5, 0.425]), atol=0.01, rtol=0)


def test_whitened_patches() -> None:
    network = InternViTNetwork({**CONFIG, "num_hidden_layers": 1})
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.randn(64, 3, 14, 14, generator=generator), 112, mode="bicubic")
    whiten_patches(network, smooth + 3, floor=1e-9)
    tokens = network.embeddings.patch_embedding(smooth + 3).flatten(2).transpose(1, 2).reshape(-1, 128)
    torch.testing.assert_close(tokens.mean(0), torch.zeros(128), atol=0.01, rtol=0)
    correlation = torch.corrcoef(tokens.T)[-40:, -40:]  # where most of the variance is
    torch.testing.assert_close(correlation, torch.eye(40), atol=0.02, rtol=0)
    torch.testing.assert_close(tokens.std(0)[-40:], torch.ones(40), atol=0.02, rtol=0)


def test_mirror() -> None:
    targets = torch.zeros(1, len(NAMES))
    given = {
        "head_yaw": 0.3,
        "head_pitch": 0.2,
        "head_roll": 0.1,
        "left_eye_yaw": 0.4,
        "right_eye_yaw": 0.5,
        "left_eye_pitch": 0.6,
        "left_eye_x": 0.7,
        "left_eye_y": 0.41,
        "right_eye_x": 0.35,
        "smile": 0.9,
        "nose_x": 0.2,
    }
    for name, value in given.items():
        targets[0, NAMES.index(name)] = value
    mirrored = dict(zip(NAMES, mirror_targets(targets)[0].tolist(), strict=True))
    wanted = {
        "head_yaw": -0.3,
        "head_pitch": 0.2,
        "head_roll": -0.1,
        "right_eye_yaw": -0.4,
        "left_eye_yaw": -0.5,
        "right_eye_pitch": 0.6,
        "right_eye_x": 0.3,
        "right_eye_y": 0.41,
        "left_eye_x": 0.65,
        "smile": 0.9,
        "nose_x": 0.8,
    }
    assert {name: mirrored[name] for name in wanted} == pytest.approx(wanted)
    torch.testing.assert_close(mirror_targets(mirror_targets(targets)), targets)


def test_gaze_is_head_and_eye() -> None:
    targets = np.zeros((3, len(NAMES)))
    targets[0, NAMES.index("head_yaw")] = 0.3
    targets[0, [NAMES.index("left_eye_yaw"), NAMES.index("right_eye_yaw")]] = -0.32, -0.28  # looks back at the camera
    targets[1, NAMES.index("head_pitch")] = 0.5
    targets[2, [NAMES.index("left_eye_yaw"), NAMES.index("right_eye_yaw")]] = 0.5
    wanted = [[0, 0, 1], [0, np.sin(0.5), np.cos(0.5)], [np.sin(0.5), 0, np.cos(0.5)]]
    np.testing.assert_allclose(gaze_directions(targets), wanted, atol=1e-12)


def test_errors_are_in_the_units_they_name() -> None:
    targets = np.zeros((4, len(NAMES)))
    targets[:, SIZE] = np.log([30, 50, 60, 100])
    predicted = targets.copy()
    predicted[:, 0] += np.radians([1, 2, 3, 10])  # head_yaw: the median of 1, 2, 3, 10 is 2.5
    report = errors_of(predicted, targets)
    assert report["head_yaw"]["median_error"] == 2.5
    assert report["gaze_degrees"] == {
        "median_error": 2.5,
        "median_error_of_guessing": 0.0,
        "median_error_0_to_40_px": 1.0,
        "median_error_40_to_70_px": 2.5,
        "median_error_from_70_px": 10.0,
    }
    assert report["smile"]["median_error"] == 0


def test_linear_probe_predicts_unseen_rows() -> None:
    random = np.random.default_rng(0)
    features = random.normal(0, 1, (400, 5))
    targets = features @ random.normal(0, 1, (5, 2)) + 3
    assert np.abs(linear_probe(features, targets) - targets).max() < 0.1
    noise = random.normal(0, 1, (400, 1))
    assert np.abs(linear_probe(features, noise) - noise).std() > 0.5  # noise has no signal


def test_a_short_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renders, out = tmp_path / "renders", tmp_path / "out"
    renders.mkdir()
    random = np.random.default_rng(0)
    for number in range(2):  # shard 0 is held out
        targets = random.normal(0, 0.3, (16, len(NAMES)))
        targets[:, X], targets[:, Y] = random.uniform(0.3, 0.7, (2, 16))
        write_shard(renders / f"shard_{number:05d}.npz", [dot(row[X], row[Y], 40, 50) for row in targets], targets)
    monkeypatch.setitem(CONFIG, "num_hidden_layers", 1)
    schedule = Schedule(0.02, LEARNING_RATE, WARM_UP)
    pretrain(renders, out, schedule, compiled=False)
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
        "pretraining.json",
    }
    report = json.loads((out / "pretraining.json").read_text())
    assert report["held_out_crops"] == report["training"]["distinct"] == 16
    assert report["training"]["steps"] >= 1
    backbone = BACKBONES.build({"type": f"internvit:{out}"})
    assert backbone.weights_info.sha256 == report["sha256"]
    assert backbone(torch.zeros(1, 3, 112, 112)).shape == (1, 128)
    with pytest.raises(UserError, match="has no training shards"):
        pretrain(tmp_path / "nothing", out, schedule)
