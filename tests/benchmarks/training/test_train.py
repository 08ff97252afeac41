import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.functional import cross_entropy, dropout, relu
from torch.utils.data import DataLoader

from benchmarks.config.recipe import Training
from benchmarks.features.windows import FeatureData
from benchmarks.scoring.predict import score_windows
from benchmarks.system import interrupts
from benchmarks.training import loop
from benchmarks.training.checkpoint import CHECKPOINT
from benchmarks.training.job import TrainingJob, class_weights
from benchmarks.training.loop import Loop
from benchmarks.training.train import train
from registry import HEADS, UserError
from zoo.weights import read_head

HOME = Path(__file__).resolve().parents[3]
SETTINGS = Training(epochs=9, batch_size=16, lr=5e-2, weight_decay=0.0, class_weight="balanced", seed=1)


def toy(seed: int, count: int = 96) -> FeatureData:
    """Windows whose label is the sign of the centre frame's first number."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, 5)).astype(np.float32)
    rows = np.stack([np.clip(np.arange(count) + step, -1, count - 1) for step in (-1, 0, 1)], axis=1)
    return FeatureData(torch.from_numpy(features), rows, (features[:, 0] > 0.5).astype(np.int64))


def config(kind: str = "lstm") -> dict:
    sizes = dict(projection=8, hidden=6, mlp=(8, 4, 4), dropout=0.5) if kind in ("lstm", "gru") else {}
    return dict(type=kind, feature_dim=5, window=3, **sizes)


def job(
    folder: Path, kind: str = "lstm", settings: Training = SETTINGS, data: FeatureData | None = None
) -> TrainingJob:
    return TrainingJob(
        head_config=config(kind),
        backbone_config=None,
        training=settings,
        data=toy(0) if data is None else data,
        validation=toy(1),
        weights=torch.tensor([0.3, 0.7]),
        to_score={},
        folder=folder,
        device="cpu",
        name="toy",
    )


def run(folder: Path, kind: str = "lstm", seed: int = 1, settings: Training = SETTINGS) -> dict:
    """Train into `folder / seed<N>`."""
    return train(job(folder, kind, settings), seed)


def interrupt(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], None]) -> list[int]:
    """Call `action` at the loss of the step with this number; returns a list that grows by one per step."""
    calls: list[int] = []

    def counted(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == number:
            action()
        return cross_entropy(*arguments)

    monkeypatch.setattr(loop, "cross_entropy", counted)
    return calls


def stop() -> None:
    raise KeyboardInterrupt


def test_a_head_learns_and_its_best_epoch_is_kept(tmp_path: Path) -> None:
    report = run(tmp_path, "probe")
    best = max(report["history"], key=lambda epoch: epoch["val_mAP"])
    assert (report["best_epoch"], report["best_mAP"]) == (best["epoch"], best["val_mAP"])
    assert report["best_mAP"] > 0.9
    assert len(report["history"]) == SETTINGS.epochs
    from benchmarks.evaluation.metrics import lam_map

    found = score_windows(read_head(tmp_path / "seed1/head.safetensors")[0], toy(1))
    assert lam_map(found, toy(1).labels.numpy()).map == pytest.approx(report["best_mAP"], abs=1e-12)


def test_equal_seeds_train_equal_heads_and_others_do_not(tmp_path: Path) -> None:
    files = [
        (run(tmp_path / str(number), seed=seed), tmp_path / str(number) / f"seed{seed}/head.safetensors")[1]
        for number, seed in enumerate((1, 1, 2))
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes() != files[2].read_bytes()


def test_a_finished_training_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path)
    monkeypatch.setattr(loop, "cross_entropy", lambda *_: pytest.fail("trained again"))
    second = run(tmp_path)
    assert (first.pop("reused"), second.pop("reused")) == (False, True)
    assert first == second


@pytest.mark.parametrize("name", ["head.safetensors", "training.json", "SHA256SUMS"])
def test_a_damaged_training_is_done_again(tmp_path: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    report = run(tmp_path, "probe")
    folder = tmp_path / "seed1"
    head = (folder / "head.safetensors").read_bytes()
    data = bytearray((folder / name).read_bytes())
    data[-20] ^= 1  # in the weights, the last bits of a number
    (folder / name).write_bytes(data)
    again = run(tmp_path, "probe")
    assert "damaged in" in capsys.readouterr().err
    assert not again["reused"]
    assert (folder / "head.safetensors").read_bytes() == head
    assert again["best_mAP"] == report["best_mAP"]
    (folder / CHECKPOINT).touch()  # as a kill between the last two steps leaves it
    assert run(tmp_path, "probe")["reused"]
    assert sorted(path.name for path in folder.iterdir()) == ["SHA256SUMS", "head.safetensors", "training.json"]


@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_an_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    """Stopped in the middle of an epoch: checkpoint, dropout and order of windows must all fit."""
    undisturbed = run(tmp_path / "a")
    calls = interrupt(monkeypatch, epoch * 6 + 3, stop)  # 96 windows in batches of 16: six steps per epoch
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b")
    resumed = run(tmp_path / "b")
    assert len(calls) < (epoch + SETTINGS.epochs) * 6, "restarted instead of resuming"
    assert_same(tmp_path, undisturbed, resumed)


def assert_same(tmp_path: Path, undisturbed: dict, resumed: dict) -> None:
    for report in (undisturbed, resumed):
        del report["seconds"]
    assert resumed == undisturbed
    a, b = (tmp_path / name / "seed1" for name in ("a", "b"))
    assert (a / "head.safetensors").read_bytes() == (b / "head.safetensors").read_bytes()
    assert not (b / CHECKPOINT).exists()


def test_a_checkpoint_with_a_flipped_bit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors files have no checksum."""
    interrupt(monkeypatch, 7, stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.undo()
    path = tmp_path / "seed1" / CHECKPOINT
    weights = max(safetensors.torch.load_file(path).values(), key=torch.numel)
    data = bytearray(path.read_bytes())
    data[data.index(weights.numpy().tobytes()) + 9] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"cannot resume from .*checkpoint.safetensors .*damaged.*; delete it"):
        run(tmp_path)


@pytest.mark.parametrize("epochs", [pytest.param(9, marks=pytest.mark.slow), 17])
def test_after_a_signal_the_epoch_is_finished_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    settings = replace(SETTINGS, epochs=epochs)
    undisturbed = run(tmp_path / "a", settings=settings)
    # In the third epoch, after which no checkpoint of 17 epochs is due.
    calls = interrupt(monkeypatch, 2 * 6 + 3, lambda: monkeypatch.setattr(interrupts, "pending", signal.SIGTERM))
    with pytest.raises(interrupts.Stopped) as stopped:
        run(tmp_path / "b", settings=settings)
    assert stopped.value.signal == signal.SIGTERM
    assert [path.name for path in (tmp_path / "b" / "seed1").iterdir()] == [CHECKPOINT]
    assert len(calls) == 3 * 6
    monkeypatch.setattr(interrupts, "pending", 0)
    resumed = run(tmp_path / "b", settings=settings)
    assert len(calls) == epochs * 6, "an epoch was lost"
    assert_same(tmp_path, undisturbed, resumed)


def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    """The process is killed in the middle of its epochs."""
    undisturbed = run(tmp_path / "a")
    program = (
        "import pathlib, sys, time\n"
        "from benchmarks.training import loop\n"
        "from tests.benchmarks.training.test_train import run\n"
        "loss = loop.cross_entropy\n"
        "loop.cross_entropy = lambda *a: (time.sleep(0.05), loss(*a))[1]\n"
        "run(pathlib.Path(sys.argv[1]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "b")], cwd=HOME, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "b" / "seed1" / CHECKPOINT).exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not (tmp_path / "b" / "seed1" / "training.json").exists()
    resumed = run(tmp_path / "b")
    assert_same(tmp_path, undisturbed, resumed)
    first, second = (read_head(tmp_path / name / "seed1/head.safetensors")[0] for name in ("a", "b"))
    np.testing.assert_array_equal(score_windows(first, toy(2)), score_windows(second, toy(2)))


class Plain(nn.Module):
    """The head of `config("lstm")` or `config("gru")` with torch's layer over all frames."""

    def __init__(self, head: nn.Module, kind: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 8)
        self.add_module(kind, {"lstm": nn.LSTM, "gru": nn.GRU}[kind](8, 6, 2, batch_first=True, bidirectional=True))
        self.cell = kind
        for number, (inputs, outputs) in enumerate([(12, 8), (8, 4), (4, 4), (4, 2)], start=1):
            self.add_module(f"last_layer{number}", nn.Linear(inputs, outputs))
        self.load_state_dict(head.state_dict())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = self.get_submodule(self.cell)(self.fc1(features))[0][:, 1]
        for number in (1, 2, 3):
            x = dropout(relu(self.get_submodule(f"last_layer{number}")(x)), 0.5, self.training)
        return self.last_layer4(x)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_losses_of_fifty_steps_are_those_of_a_plain_loop(tmp_path: Path, kind: str) -> None:
    """nn.LSTM over all frames, foreach Adam, and torch's DataLoader, which takes windows one by one."""
    data, weights = toy(0, 800), torch.tensor([0.3, 0.7])
    torch.manual_seed(1)
    head = HEADS.build(config(kind))
    plain = Plain(head, kind).train()
    features, rows = (
        data.features[:-1],
        [[row if row < 800 else None for row in window] for window in data.rows.tolist()],
    )
    windows = [torch.stack([features[row] if row is not None else torch.zeros(5) for row in of]) for of in rows]
    samples = list(zip(windows, data.labels, strict=True))
    optimiser = torch.optim.Adam(plain.parameters(), lr=SETTINGS.lr, foreach=True)
    wanted = []
    torch.manual_seed(1 * 100_003)  # dropout's, of the first epoch
    order = torch.randperm(800, generator=torch.Generator().manual_seed(1)).tolist()
    for window, labels in DataLoader(samples, 16, sampler=order):
        loss = cross_entropy(plain(window), labels, weights)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        wanted.append(loss.detach())
    assert len(wanted) == 50 and torch.stack(wanted).std() > 0.01
    found = Loop(head, job(tmp_path, kind, data=data), seed=1).train_epoch(0)
    torch.testing.assert_close(found, torch.stack(wanted), atol=1e-4, rtol=0)


def test_the_schedule_takes_every_step(tmp_path: Path) -> None:
    """Two epochs of 60 steps down to a learning rate of 0: equal to a plain loop with torch's schedule."""
    data = toy(0, 240)
    settings = Training(epochs=2, batch_size=4, lr=1e-2, weight_decay=0.0, class_weight=None, seed=4, schedule="cosine")
    weights = torch.tensor([0.3, 0.7])
    told: list[int] = []
    train(job(tmp_path, "probe", settings, data), 4, advance=lambda count, _: told.append(count))
    assert sum(told) == 120 and len(told) == 1 + 2 * 2  # at the start, and at the 50th and 60th step of each epoch
    torch.manual_seed(4)
    plain = HEADS.build(config("probe"))
    optimiser = torch.optim.Adam(plain.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 120)
    states = []
    for epoch in range(2):
        order = torch.randperm(240, generator=torch.Generator().manual_seed(4 + epoch))
        for places in order.split(4):
            window, labels = data[places]
            optimiser.zero_grad()
            cross_entropy(plain(window), labels, weights).backward()
            optimiser.step()
            schedule.step()
        states.append({name: value.clone() for name, value in plain.state_dict().items()})
    best = json.loads((tmp_path / "seed4/training.json").read_text())["best_epoch"]
    for name, value in read_head(tmp_path / "seed4/head.safetensors")[0].state_dict().items():
        torch.testing.assert_close(value, states[best - 1][name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_the_schedule_is_torchs_down_to_its_floor(tmp_path: Path, unit: str) -> None:
    settings = replace(SETTINGS, epochs=10, lr=1e-4, schedule="cosine", schedule_floor=5e-6, schedule_unit=unit)
    trained = Loop(HEADS.build(config()), job(tmp_path, settings=settings), seed=1)
    plain = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    steps = 1 if unit == "epoch" else trained.steps_per_epoch
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(plain, T_max=10 * steps, eta_min=5e-6)
    found, wanted = [], []
    for epoch in range(10):
        found.append(trained.optimizer.param_groups[0]["lr"])
        wanted.append(plain.param_groups[0]["lr"])
        trained.train_epoch(epoch)
        for _ in range(steps):
            plain.step()
            theirs.step()
    assert found == pytest.approx(wanted, rel=1e-12)
    assert found[0] == 1e-4
    assert trained.progress.lr == pytest.approx(5e-6, rel=1e-9)


def test_first_step_is_that_of_a_plain_loop(tmp_path: Path) -> None:
    """One full batch, one epoch, no dropout: Adam written out by hand gives the same weights."""
    settings = Training(epochs=1, batch_size=96, lr=1e-2, weight_decay=0.0, class_weight=None, seed=4)
    weights = torch.tensor([0.3, 0.7])
    train(job(tmp_path, "probe", settings), 4)
    torch.manual_seed(4)
    plain = HEADS.build(config("probe"))
    window, labels = toy(0)[:]
    optimiser = torch.optim.Adam(plain.parameters(), lr=1e-2)
    torch.nn.functional.cross_entropy(plain(window), labels, weights).backward()
    optimiser.step()
    for name, value in read_head(tmp_path / "seed4/head.safetensors")[0].state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], atol=1e-6, rtol=1e-5)


def test_a_head_with_a_closed_form(tmp_path: Path) -> None:
    report = run(tmp_path, "probe_sklearn")
    assert report["history"] == []
    assert report["best_mAP"] > 0.9


def test_class_weights_are_the_share_of_the_other_class() -> None:
    # 1 positive of 4: negatives weigh 1/4, positives 3/4.
    assert class_weights(np.array([0, 0, 1, 0]), "balanced").tolist() == [0.25, 0.75]
    assert class_weights(np.array([0, 0, 1, 0]), None).tolist() == [1, 1]
    assert class_weights(np.array([0, 0, 1, 0]), (0.1, 0.9)).tolist() == pytest.approx([0.1, 0.9])


def test_one_class_is_refused_before_training(tmp_path: Path) -> None:
    data = toy(0)
    data.labels[:] = 0
    with pytest.raises(UserError, match="training windows have one class only"):
        train(job(tmp_path, data=data), 1)


def test_nothing_goes_to_stdout(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    run(tmp_path)
    assert capfd.readouterr().out == ""
    assert json.loads((tmp_path / "seed1/training.json").read_text())["seed"] == 1


def test_windows_are_gathered_with_zeros_for_absent_frames() -> None:
    features = torch.arange(6.0).reshape(3, 2)
    rows = np.array([[-1, 0, 2], [1, -1, -1]])
    window, labels = FeatureData(features, rows, np.array([1, 0]))[:]
    assert window.features.tolist() == [[[0, 0], [0, 1], [4, 5]], [[2, 3], [0, 0], [0, 0]]]
    assert window.present.tolist() == [[False, True, True], [True, False, False]]
    assert labels.tolist() == [1, 0]
