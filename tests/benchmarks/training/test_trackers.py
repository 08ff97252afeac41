"""TensorBoard, W&B and MLflow: logged values, unchanged numbers, and messages for missing packages and servers."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmarks.config.ensemble import resolve_row
from benchmarks.config.recipe import TRACKERS
from benchmarks.config.resolve import resolve
from benchmarks.data.dataset import Ego4D
from benchmarks.pipeline.run import run as run_rows
from benchmarks.pipeline.session import Session
from registry import UserError
from tests.benchmarks.training.test_train import SETTINGS, run

SHORT = replace(SETTINGS, epochs=3)


class Wandb(ModuleType):
    """The used part of wandb's interface; keeps the calls."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.told: list[Any] = []
        self.config = SimpleNamespace(update=lambda values, **_: self.told.append(("config", values)))

    def init(self, **options: Any) -> None:
        self.told.append(("init", options))

    def log(self, values: dict[str, Any], step: int) -> None:
        self.told.append(("log", values))

    def finish(self) -> None:
        self.told.append(("finish",))


class MLflow(ModuleType):
    """The used part of mlflow's interface; keeps the calls."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.told: list[Any] = []
        for name in ("set_tracking_uri", "create_experiment", "set_experiment", "start_run", "log_params", "end_run"):
            setattr(self, name, lambda *given, name=name, **options: self.told.append((name, *given, options)))

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.told.append(("log_metrics", values, step))


def maps(told: list[dict[str, Any]]) -> list[float]:
    return [float(values["val/mAP"]) for values in told if "val/mAP" in values]


def run_without_and_with(tmp_path: Path) -> dict[str, Any]:
    """Trains without trackers and with W&B and MLflow, and compares the weights; returns the report of the former."""
    report = run(tmp_path / "plain", settings=SHORT)
    run(tmp_path / "tracked", settings=replace(SHORT, wandb=True, mlflow=True))
    assert (tmp_path / "plain/seed1/head.safetensors").read_bytes() == (
        tmp_path / "tracked/seed1/head.safetensors"
    ).read_bytes()
    return report


def test_all_receive_values_and_no_byte_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb, mlflow = Wandb(), MLflow()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    report = run_without_and_with(tmp_path)

    wanted = pytest.approx([epoch["val_mAP"] for epoch in report["history"]], abs=1e-9)
    assert maps([each[1] for each in wandb.told if each[0] == "log"]) == wanted
    assert any("loss" in each[1] for each in wandb.told if each[0] == "log")
    (start,) = [each[1] for each in wandb.told if each[0] == "init"]
    assert (start["project"], start["dir"]) == ("lamzoo", str(tmp_path / "tracked/seed1/wandb"))
    assert wandb.told[-1] == ("finish",)
    metrics = [each for each in mlflow.told if each[0] == "log_metrics"]
    assert maps([each[1] for each in metrics]) == wanted
    assert [step for _, values, step in metrics if "val/mAP" in values] == [1, 2, 3]
    assert mlflow.told[0][1].startswith(f"sqlite:///{tmp_path}/tracked/seed1/mlflow")
    assert mlflow.told[-1][0] == "end_run"


def test_tensorboard_keeps_its_curves(tmp_path: Path) -> None:
    """They used to be in a folder that a finished training removes."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    report = run(tmp_path, settings=replace(SHORT, tensorboard=True))
    events = accumulator.EventAccumulator(str(tmp_path / "seed1/tensorboard"))
    events.Reload()
    assert [each.value for each in events.Scalars("val/mAP")] == pytest.approx(
        [epoch["val_mAP"] for epoch in report["history"]], abs=1e-6
    )


def test_a_rows_final_figures_are_logged_with_its_name(
    lam_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    settings = ["training.wandb=true", "training.epochs=2", "windows.stride.train=2", "windows.stride.val=2"]
    row = resolve("probe", "ego4d", backbone="tiny_means", settings=settings)
    (result,) = run_rows([row], Session(Ego4D(lam_tree), out=tmp_path))
    *_, start, (_, figures), end = wandb.told
    assert (start[0], start[1]["name"], end) == ("init", row.name, ("finish",))
    assert start[1]["config"]["row"] == row.name
    metric = result["splits"]["test"]["metrics"]["mAP"]
    assert figures["test/mAP"] == metric["mean"]
    assert figures["val/accuracy seed 3407"] == result["splits"]["val"]["metrics"]["accuracy"]["per_seed"][0]


@pytest.mark.parametrize("package", TRACKERS)
def test_a_missing_package_is_reported(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"training.{package} needs .*: pip install '.\[{package}\]'"):
        run(tmp_path, settings=replace(SHORT, **{package: True}))


def test_a_refusing_server_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr(wandb, "init", lambda **_: 1 / 0, raising=False)
    with pytest.raises(UserError, match="training.wandb: division by zero; run wandb login, or set WANDB_MODE=offline"):
        run(tmp_path, settings=replace(SHORT, wandb=True))


@pytest.mark.parametrize("package", TRACKERS)
def test_a_tracked_row_is_the_row(package: str) -> None:
    """The names of a tracked recipe and a tracked ensemble do not change."""
    tracked = resolve("internlstm", settings=[f"training.{package}=true"])
    assert getattr(tracked.training, package)
    assert tracked.name == "internlstm"
    ensemble = resolve_row("ensemble", settings=[f"training.{package}=true"])
    assert (ensemble.name, ensemble.spellings) == ("ensemble", resolve_row("ensemble").spellings)
    assert all(getattr(member.training, package) for member in ensemble.members)


@pytest.mark.slow
def test_the_real_packages_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """W&B without a login, MLflow into its own folder."""
    pytest.importorskip("wandb")
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    report = run_without_and_with(tmp_path)
    assert capfd.readouterr().out == ""
    assert list((tmp_path / "tracked/seed1/wandb").rglob("*.wandb"))
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/tracked/seed1/mlflow/mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("lamzoo").experiment_id])
    history = client.get_metric_history(found.info.run_id, "val/mAP")
    assert [each.value for each in history] == pytest.approx([epoch["val_mAP"] for epoch in report["history"]])
