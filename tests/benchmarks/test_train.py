import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import train as training_module
from benchmarks.config import Training
from benchmarks.predict import WindowData, scores
from benchmarks.train import class_weights, train
from registry import HEADS, UserError
from zoo.weights import read_head

SETTINGS = Training(epochs=9, batch_size=16, lr=5e-2, weight_decay=0.0, class_weight="balanced", seed=1)


def toy(seed: int, count: int = 96) -> WindowData:
    """Windows whose label is the sign of the centre frame's first number."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, 5)).astype(np.float32)
    rows = np.stack([np.clip(np.arange(count) + step, -1, count - 1) for step in (-1, 0, 1)], axis=1)
    return WindowData(torch.from_numpy(features), rows, (features[:, 0] > 0.5).astype(np.int64))


def config(kind: str = "lstm") -> dict:
    sizes = dict(projection=8, hidden=6, mlp=(8, 4, 4), dropout=0.5) if kind == "lstm" else {}
    return dict(type=kind, feature_dim=5, window=3, **sizes)


def run(folder: Path, kind: str = "lstm", seed: int = 1, settings: Training = SETTINGS) -> dict:
    return train(config(kind), settings, seed, toy(0), toy(1), torch.tensor([0.3, 0.7]), folder)


def test_a_head_learns_and_its_best_epoch_is_kept(tmp_path: Path) -> None:
    report = run(tmp_path, "probe")
    best = max(report["history"], key=lambda epoch: epoch["val_mAP"])
    assert (report["best_epoch"], report["best_mAP"]) == (best["epoch"], best["val_mAP"])
    assert report["best_mAP"] > 0.9
    assert len(report["history"]) == SETTINGS.epochs
    from benchmarks.metrics import lam_map

    found = scores(read_head(tmp_path / "head.safetensors")[0], toy(1))
    assert lam_map(found, toy(1).labels.numpy()).map == pytest.approx(report["best_mAP"], abs=1e-12)


def test_equal_seeds_train_equal_heads_and_others_do_not(tmp_path: Path) -> None:
    files = [
        (run(tmp_path / str(number), seed=seed), tmp_path / str(number) / "head.safetensors")[1]
        for number, seed in enumerate((1, 1, 2))
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes() != files[2].read_bytes()


def test_a_training_that_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path)
    monkeypatch.setattr(training_module, "_descend", lambda *_: pytest.fail("trained again"))
    second = run(tmp_path)
    assert (first.pop("reused"), second.pop("reused")) == (False, True)
    assert first == second


@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_an_interrupted_training_ends_as_if_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    """Stopped in the middle of an epoch: checkpoint, dropout and order of windows must all fit."""
    undisturbed = run(tmp_path / "a")
    step = training_module._Trainee.train_step
    calls = []

    def stop(self: object, *arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == epoch * 6 + 3:  # 96 windows in batches of 16: six steps an epoch
            raise KeyboardInterrupt
        return step(self, *arguments, **named)

    monkeypatch.setattr(training_module._Trainee, "train_step", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b")
    resumed = run(tmp_path / "b")
    assert len(calls) < (epoch + SETTINGS.epochs) * 6, "started over instead of going on"
    for report in (undisturbed, resumed):
        del report["seconds"]
    assert resumed == undisturbed
    assert (tmp_path / "a" / "head.safetensors").read_bytes() == (tmp_path / "b" / "head.safetensors").read_bytes()
    assert not (tmp_path / "b" / "runner").exists()


def test_first_step_is_that_of_a_plain_loop(tmp_path: Path) -> None:
    """One full batch, one epoch, no dropout: Adam written out by hand must arrive at the same weights."""
    settings = Training(epochs=1, batch_size=96, lr=1e-2, weight_decay=0.0, class_weight=None, seed=4)
    weights = torch.tensor([0.3, 0.7])
    train(config("probe"), settings, 4, toy(0), toy(1), weights, tmp_path)
    torch.manual_seed(4)
    plain = HEADS.build(config("probe"))
    window, labels = toy(0).all()
    optimiser = torch.optim.Adam(plain.parameters(), lr=1e-2)
    torch.nn.functional.cross_entropy(plain(window), labels, weights).backward()
    optimiser.step()
    for name, value in read_head(tmp_path / "head.safetensors")[0].state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], atol=1e-6, rtol=1e-5)


def test_a_head_with_fit_is_solved(tmp_path: Path) -> None:
    report = run(tmp_path, "probe_sklearn")
    assert report["history"] == []
    assert report["best_mAP"] > 0.9


def test_class_weights_are_the_share_of_the_other_class() -> None:
    # 1 positive of 4: negatives weigh 1/4, positives 3/4.
    assert class_weights(np.array([0, 0, 1, 0]), "balanced").tolist() == [0.25, 0.75]
    assert class_weights(np.array([0, 0, 1, 0]), None).tolist() == [1, 1]


def test_one_class_only_is_told(tmp_path: Path) -> None:
    data = toy(0)
    data.labels[:] = 0
    with pytest.raises(UserError, match="training windows are of one class only"):
        train(config(), SETTINGS, 1, data, toy(1), torch.ones(2), tmp_path)


def test_mmengine_keeps_off_stdout(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    run(tmp_path)
    assert capfd.readouterr().out == ""
    assert json.loads((tmp_path / "training.json").read_text())["seed"] == 1


def test_windows_are_gathered_with_zeros_for_absent_frames() -> None:
    features = torch.arange(6.0).reshape(3, 2)
    rows = np.array([[-1, 0, 2], [1, -1, -1]])
    window, labels = WindowData(features, rows, np.array([1, 0])).all()
    assert window.features.tolist() == [[[0, 0], [0, 1], [4, 5]], [[2, 3], [0, 0], [0, 0]]]
    assert window.present.tolist() == [[False, True, True], [True, False, False]]
    assert labels.tolist() == [1, 0]
