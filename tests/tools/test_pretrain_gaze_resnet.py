"""Pretraining of trunk and LSTM on gaze: the loss and the windows against loops, and a file like Gaze360's import."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from backbones.base import Preprocessing
from benchmarks.data import synthlam
from registry import BACKBONES, HEADS, UserError
from tests.tools.test_pretrain_nano import dot, write_shard
from tests.zoo.test_upstream import gaze360_state, save, wrap
from tools.pretrain_gaze_resnet import (
    GAZE_WEIGHT,
    LEARNING_RATE,
    WARM_UP,
    FaceLayers,
    GazeResNetTraining,
    build_network,
    card_of,
    errors_of,
    gaze_angles,
    pinball,
    pretrain,
    write,
)
from tools.pretraining.clips import load_windows
from tools.pretraining.figures import gazes
from tools.pretraining.processes import Processes
from tools.pretraining.renders import NAMES, Renders, augment, load_renders
from tools.pretraining.steps import Schedule
from tools.synthlam.geometry import direction
from zoo.cards import load_card
from zoo.model import PixelWindow, initialise_lstm
from zoo.upstream import import_checkpoint
from zoo.weights import read_weights

SIZE = 32


def test_pinball_is_that_of_a_loop() -> None:
    """Kellnhofer et al. 2019, equations 1 and 2: quantiles 0.1 and 0.9, at the angle minus and plus the spread."""
    random = np.random.default_rng(0)
    outputs, wanted = random.normal(0, 1, (6, 3)), random.normal(0, 0.5, (6, 2))
    total = 0.0
    for (yaw, pitch, spread), true in zip(outputs, wanted, strict=True):
        spread = math.pi / (1 + math.exp(-spread))
        for angle, truth in zip((math.pi * math.tanh(yaw), math.pi / 2 * math.tanh(pitch)), true, strict=True):
            for quantile, bound in ((0.1, angle - spread), (0.9, angle + spread)):
                above = truth - bound
                total += quantile * above if above > 0 else (quantile - 1) * above
    found = pinball(torch.tensor(outputs), torch.tensor(wanted))
    assert float(found) == pytest.approx(total / (6 * 2 * 2))


def test_angles_give_the_gaze_back() -> None:
    targets = torch.from_numpy(np.random.default_rng(0).normal(0, 0.4, (50, len(NAMES))).astype(np.float32))
    yaw, pitch = gaze_angles(targets).numpy().T
    np.testing.assert_allclose(direction(yaw, pitch), gazes(targets).numpy(), atol=1e-5)


@pytest.mark.slow
def test_windows_of_clips_are_those_of_a_loop() -> None:
    root = synthlam.root()
    truth = synthlam.truth(root)
    truth = truth[truth["split"] == "val"].reset_index(drop=True)
    crops, windows = load_windows(root, "val", Preprocessing(size=8, resize=8))
    assert crops.images.shape == (len(truth), 8, 8, 3)
    assert windows.shape == (len(truth), 7)
    places = {key: row for row, key in enumerate(zip(truth["clip"], truth["track"], truth["frame"], strict=True))}
    gaps = 0
    for (clip, track, frame), row in places.items():
        wanted = [places.get((clip, track, frame + step)) for step in range(-3, 4)]
        if None in wanted:
            gaps += 1
            present = {place for place in wanted if place is not None}
            assert set(windows[row].tolist()) == present
            assert windows[row, 3] == row
        else:
            assert windows[row].tolist() == wanted
    assert gaps > 0


def test_the_frames_of_a_window_are_changed_alike() -> None:
    images = torch.rand(16, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    targets = 0.3 * torch.randn(16, len(NAMES), generator=torch.Generator().manual_seed(1))
    single, of_single = augment(images, targets, torch.Generator().manual_seed(2))
    lengths = torch.arange(16) % 4 + 1
    groups = torch.arange(16).repeat_interleave(lengths)
    several, of_several = augment(images[groups], targets[groups], torch.Generator().manual_seed(2), groups=groups)
    assert torch.equal(several, single[groups])
    assert torch.equal(of_several, of_single[groups])


def faces(count: int, seed: int) -> tuple[list, np.ndarray]:
    """Pictures of a dot that is where the gaze goes."""
    random = np.random.default_rng(seed)
    targets = np.zeros((count, len(NAMES)))
    targets[:, 0], targets[:, 1] = random.uniform(-0.8, 0.8, (2, count))  # yaw and pitch of the head
    targets[:, NAMES.index("log_size")] = np.log(60)
    return [dot(0.5 + 0.4 * yaw, 0.5 - 0.4 * pitch, 40, 40) for yaw, pitch in targets[:, :2]], targets


@pytest.fixture(scope="module")
def renders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("renders")
    for number, count in enumerate((40, 200)):  # shard 0 is held out
        write_shard(folder / f"shard_{number:05d}.npz", *faces(count, number))
    return folder


def as_windows(crops: Renders) -> torch.Tensor:
    return torch.arange(len(crops))[:, None].expand(-1, 7)


def test_the_first_half_trains_three_stages(renders: Path) -> None:
    network = build_network(SIZE, seed=0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    work = GazeResNetTraining(network, Schedule(1e9, LEARNING_RATE, warm_up=0), Processes(), None)
    crops = load_renders(renders, network.backbone.preprocessing, set(), held_out=False)
    assert crops is not None
    work.step(crops.images[:8], crops.targets[:8])
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    parts = {name.removeprefix("backbone.network.").split(".")[0] for name in moved}
    assert parts == {"conv1", "bn1", "layer1", "layer2", "layer3", "face"}
    assert not {name for name in moved if name.startswith("face.everything")}


@pytest.mark.slow
def test_training_lowers_the_error_on_held_out_windows(renders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.pretrain_gaze_resnet.EARLY", 0)
    network = build_network(SIZE, seed=0)
    preprocessing = network.backbone.preprocessing
    training, held_out = (load_renders(renders, preprocessing, set(), held_out) for held_out in (False, True))
    assert training is not None and held_out is not None
    network.face.mean = training.targets.mean(0)  # of the size, which is the same in all
    work = GazeResNetTraining(network, Schedule(1e9, LEARNING_RATE, warm_up=0), Processes(), None)

    def error() -> float:
        found = errors_of(network.eval(), held_out, as_windows(held_out))
        network.train()
        assert found["by_size"] == {
            "55 to 70 px": {"windows": 40, "median_error_degrees": found["median_error_degrees"]}
        }
        return found["median_error_degrees"]

    untrained = error()
    losses = []
    for _ in range(30):
        rows = torch.randperm(len(training), generator=work.generator)[:64]
        losses.append(work.step(training.images[rows], training.targets[rows]))
    assert losses[-1] < losses[0]
    assert error() < 0.6 * untrained
    guessing = errors_of(network.eval(), held_out, as_windows(held_out))["median_error_degrees_of_guessing"]
    middle = gazes(held_out.targets).mean(0)
    angles = torch.rad2deg((gazes(held_out.targets) @ (middle / middle.norm())).acos())
    assert guessing == pytest.approx(float(np.median(angles.numpy())), abs=0.01)


def test_the_face_is_learnt_from_the_last_map_and_the_eyes_from_their_cells() -> None:
    """The loss of two crops by hand; targets are standardised, and unknown ones do not count."""
    trunk = build_network(SIZE, seed=0).backbone.network
    face = FaceLayers(trunk, SIZE)
    face.std.fill_(2.0)
    eyes = [NAMES.index(name) for name in ("left_eye_yaw", "left_eye_pitch", "right_eye_yaw", "right_eye_pitch")]
    targets = torch.full((2, len(NAMES)), 0.3)
    targets[:, NAMES.index("log_size")] = math.log(60)
    targets[:, NAMES.index("right_eye_x")] = 1.2  # out of the picture
    targets[1, NAMES.index("smile")] = math.nan
    with torch.no_grad():
        for layer in (face.everything, face.eyes):
            layer.weight.zero_()
            layer.bias.zero_()
        face.eyes.weight[:, 0] = 1
    seen = {}
    trunk.layer2.register_forward_hook(lambda *call: seen.update(middle=call[2]))
    trunk.forward_features(torch.rand(2, 3, SIZE, SIZE))

    def huber(error: float) -> float:
        return error**2 / 2 if abs(error) < 1 / 3 else (abs(error) - 1 / 6) / 3

    total = sum(
        (4.0 if column in eyes else 1.0) * huber(float(targets[row, column]) / 2)
        for row in range(2)
        for column in range(len(NAMES))
        if not targets[row, column].isnan()
    )
    at = int(0.3 * 4)  # of the four cells per side of layer2 at 32 pixels
    local = np.mean([huber(seen["middle"][row, 0, at, at].item() - 0.15) for row in range(2)])
    assert face.loss(targets).item() == pytest.approx(total / (2 * len(NAMES) - 1) + local, rel=1e-5)


@pytest.mark.slow
def test_a_batch_has_renders_and_stretches_of_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    root, seen = synthlam.root(), {}
    network = build_network(SIZE, seed=0)
    crops, windows = load_windows(root, "val", network.backbone.preprocessing)
    work = GazeResNetTraining(network, Schedule(1, LEARNING_RATE, WARM_UP), Processes(), (crops, windows))

    def unchanged(images: torch.Tensor, targets: torch.Tensor, _: object, groups: torch.Tensor) -> tuple:
        seen["groups"] = groups
        return images, targets

    def judge(batch: PixelWindow) -> torch.Tensor:
        seen["batch"] = batch
        return torch.zeros(len(batch.rows), 3)

    monkeypatch.setattr("tools.pretrain_gaze_resnet.EARLY", 0)
    monkeypatch.setattr("tools.pretrain_gaze_resnet.augment", unchanged)
    monkeypatch.setattr(network.face, "loss", lambda targets: 7 * len(targets))
    monkeypatch.setattr(network, "judge", judge)
    images = torch.randint(0, 255, (4, SIZE, SIZE, 3), dtype=torch.uint8)
    targets = 0.3 * torch.randn(4, len(NAMES), generator=torch.Generator().manual_seed(0))
    loss = work.loss(images, targets)
    starts = torch.randint(len(windows) - 15, (3,), generator=torch.Generator().manual_seed(0)).tolist()
    shown = seen["batch"].pixels[seen["batch"].rows].round().byte()  # (4 + 45, 7, S, S, 3)
    wanted = [images[:, None].expand(-1, 7, -1, -1, -1)]
    angles = [gaze_angles(targets)]
    for number, start in enumerate(starts):
        rows = windows[start : start + 15]
        wanted.append(crops.images[rows])
        angles.append(gaze_angles(crops.targets[rows[:, 3]]))
        places = seen["batch"].rows[4 + 15 * number : 19 + 15 * number].unique()
        assert seen["groups"][places].tolist() == [4 + number] * len(rows.unique())
    assert torch.equal(shown, torch.cat(wanted))
    assert len(seen["batch"].pixels) < 4 + 3 * 22
    gaze = float(pinball(torch.zeros(49, 3), torch.cat(angles)))
    assert float(loss) == pytest.approx(GAZE_WEIGHT * gaze + 7 * len(seen["batch"].pixels))


def test_the_file_has_the_tensors_of_an_import_of_gaze360(tmp_path: Path) -> None:
    imported = tmp_path / "gaze360.safetensors"
    import_checkpoint(save(tmp_path, {"state_dict": wrap(gaze360_state())}), "gaze360", imported)
    network = build_network(SIZE, seed=3)
    (tmp_path / "out").mkdir()
    report = write(network.state_dict(), SIZE, tmp_path / "out", {"minutes": 0.0}, {})
    path = tmp_path / "out" / "model.safetensors"
    assert path.stat().st_size < 16e6
    wanted, about_wanted = read_weights(imported)
    found, about = read_weights(path)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in wanted.items()
    }
    assert about.keys() - {"pretraining"} == about_wanted.keys() - {"source_sha256"}
    assert (about["kind"], about["licence"], about["backbone"]) == (
        "gaze360_renders",
        "Apache-2.0",
        {"type": "gaze_resnet18"},
    )
    stored = load_file(path)
    for name, tensor in network.state_dict().items():
        if name.startswith(("head.last_layer", "face.")):
            assert name not in found
        elif tensor.ndim < 2:
            assert torch.equal(found[name], tensor)
        else:
            scale = tensor.abs().flatten(1).max(1).values / 127
            assert stored[name].dtype == torch.int8
            assert ((found[name] - tensor).abs().flatten(1).max(1).values <= 0.5001 * scale).all()

    trunk = BACKBONES.build({"type": "gaze_resnet18", "weights": str(path)})
    assert (trunk.weights_info.sha256, trunk.weights_info.licence) == (report["sha256"], "Apache-2.0")
    for name, tensor in trunk.network.state_dict().items():
        assert torch.equal(tensor, found[f"backbone.network.{name}"])
    for kind in ({"type": "gazelstm"}, {"type": "gazepose"}):
        head = HEADS.build({**kind, "feature_dim": 256})
        assert initialise_lstm(head, path) == {"file": path.name, "kind": "gaze360_renders", "tensors": "lstm.*"}
        assert torch.equal(head.state_dict()["lstm.weight_ih_l1"], found["head.lstm.weight_ih_l1"])


def test_a_short_run(renders: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    schedule = Schedule(0.01, LEARNING_RATE, WARM_UP)
    pretrain(renders, out, schedule, SIZE)
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "pretraining.json"}
    report = json.loads((out / "pretraining.json").read_text())
    assert report["training"]["distinct"] == 200
    assert report["training"]["size"] == SIZE
    assert report["held_out_renders"]["windows"] == 40
    assert "held_out_clips" not in report
    about = read_weights(out / "model.safetensors")[1]
    assert about["pretraining"] == report["training"]
    card = tmp_path / "gaze_resnet18_renders.json"
    card.write_text(json.dumps(card_of(report)))
    shown = load_card(card)
    assert shown.weights[0].sha256 == report["sha256"]
    assert "200 renders, of people in no split" in shown.training
    assert [figure.value for figure in shown.figures] == [
        report["held_out_renders"]["median_error_degrees"],
        report["held_out_renders"]["median_error_degrees_of_guessing"],
        report["held_out_renders"]["by_size"]["55 to 70 px"]["median_error_degrees"],
    ]
    BACKBONES.check(dict(shown.backbone or {}))
    with pytest.raises(UserError, match="has no training shards"):
        pretrain(tmp_path / "nothing", out, schedule)
