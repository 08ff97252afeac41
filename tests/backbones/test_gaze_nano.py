"""The small gaze network: eye crops by hand, and gaze and framing on SynthLAM."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from backbones.gaze_nano import EYES_SHARE, EYES_SIZE, GazeNetwork, cut_parts
from benchmarks.data import synthlam
from registry import BACKBONES


@pytest.mark.parametrize(("x", "y"), [(0.5, 0.5), (0.42, 0.37), (0.9, 0.1)])
def test_eyes_are_cropped_at_their_position(x: float, y: float) -> None:
    side = 112
    across = (torch.arange(side) + 0.5) / side  # of each pixel's middle
    images = torch.stack([across.expand(side, -1), across[:, None].expand(-1, side), torch.zeros(side, side)])[None]
    seen: list[Tensor] = []
    network = GazeNetwork(("left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y"))
    network.eyes.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.eval().look(images, torch.tensor([[x, y]]))
    raw = images[0, :2]
    found = _plain_cut(raw, x, y)
    found = torch.cat([found, torch.zeros(1, *EYES_SIZE)])
    found = found - found.mean()
    found = found / (found.square().mean().sqrt() + 0.05)
    assert seen[0].shape == (1, 3, *EYES_SIZE)
    assert torch.allclose(seen[0][0], found, atol=1e-4)
    assert torch.equal(seen[0], cut_parts(images, torch.tensor([[x, y]])))


def _plain_cut(ramps: Tensor, x: float, y: float) -> Tensor:
    """Return what bilinear sampling gives on two ramps: the coordinate itself, clamped to pixel centres."""
    rows, columns = EYES_SIZE
    down = y + (np.arange(rows) / (rows - 1) - 0.5) * EYES_SHARE[0]
    right = x + (np.arange(columns) / (columns - 1) - 0.5) * EYES_SHARE[1]
    low, high = float(ramps.min()), float(ramps.max())
    return torch.from_numpy(
        np.stack([np.tile(right.clip(low, high), (rows, 1)), np.tile(down.clip(low, high)[:, None], (1, columns))])
    ).float()


def test_gaze_of_unseen_people() -> None:
    root = synthlam.root()
    truth = synthlam.truth(root)
    faces = truth[(truth["split"] == "test") & (truth[["width", "height"]].max(axis=1) >= 60)]
    faces = faces[(faces["blink"] < 0.5) & (faces["gaze_angle"] < 60)].iloc[::100]
    nano = BACKBONES.build({"type": "gaze_nano"})
    pictures = [nano.preprocessing.resize_crop(Image.open(root / path)) for path in faces["image"]]
    with torch.inference_mode():
        images = nano.preprocessing.normalise(torch.from_numpy(np.stack(pictures)))
        _, told, _ = nano.network.look(images)
        _, mirrored, _ = nano.network.look(images.flip(3))
    yaw, pitch = np.radians(faces["gaze_yaw"].to_numpy()), np.radians(faces["gaze_pitch"].to_numpy())
    assert len(faces) > 100
    across = np.sin(yaw) * np.cos(pitch)
    by_head = np.corrcoef(np.sin(np.radians(faces["head_yaw"])), across)[0, 1]  # what the head alone tells
    assert np.corrcoef(told[:, 4], across)[0, 1] > by_head + 0.15
    assert np.corrcoef(told[:, 5], np.sin(pitch))[0, 1] > 0.6
    # A mirrored face looks the other way.
    assert np.corrcoef(told[:, 4], -mirrored[:, 4])[0, 1] > 0.9
    assert np.corrcoef(told[:, 5], mirrored[:, 5])[0, 1] > 0.8


def test_reframe_corrects_shifted_crops() -> None:
    """Crops are shifted to one side."""
    root = synthlam.root()
    truth = synthlam.truth(root)
    faces = truth[(truth["split"] == "test") & (truth[["width", "height"]].max(axis=1) >= 60)]
    faces = faces[faces["head_yaw"].abs() < 50].iloc[::50]
    nano = BACKBONES.build({"type": "gaze_nano"})
    moves, pictures = [], []
    for path, (across, down) in zip(
        faces["image"], np.random.default_rng(0).uniform(0, 0.2, (len(faces), 2)), strict=True
    ):
        picture = Image.open(root / path)
        width, height = picture.size
        left, top = round(across * width), round(down * height)
        cut = (left, top, left + round(0.8 * width), top + round(0.8 * height))
        pictures.append(nano.preprocessing.resize_crop(picture.crop(cut)))
        moves.append(
            [width / 2 - (cut[0] + cut[2]) / 2, height / 2 - (cut[1] + cut[3]) / 2]
            / np.array([0.8 * width, 0.8 * height])
        )
    with torch.inference_mode():
        told = nano.reframe(nano.encoder("cpu")(torch.from_numpy(np.stack(pictures)))).numpy()
    assert told.shape == (len(faces), 4)
    assert len(faces) > 100
    for axis in (0, 1):
        assert np.corrcoef(told[:, axis], np.array(moves)[:, axis])[0, 1] > 0.5
