"""Curves and figures for TensorBoard, Weights & Biases and MLflow.

A tracker is off unless its key in `training` turns it on, and changes no number. Settings, losses, learning rates and
figures are logged, but no data, code or weights.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from benchmarks.config.recipe import TRACKERS, Training
from benchmarks.system import processes
from registry import UserError, first_sentences

PROJECT = "lamzoo"
_REMEDIES = {
    "tensorboard": "fix this, or turn it off",
    "wandb": "run wandb login, or set WANDB_MODE=offline to keep the run on this machine",
    "mlflow": "unset MLFLOW_TRACKING_URI to keep the run on this machine",
}


class RunTracker(Protocol):
    """One connected run of a tracker."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log values by name."""

    def close(self) -> None:
        """End the run."""


class TensorBoard:
    """Event files in a folder."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        self._writer.add_text("run", name)
        self._writer.add_text("settings", "\n".join(f"    {key}: {value}" for key, value in settings.items()))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log values by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is buffered."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases, on its server or offline."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._wandb = wandb
        wandb.init(project=PROJECT, name=name, dir=str(folder), config=dict(settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log values by name."""
        self._wandb.log(dict(values), step=step)

    def close(self) -> None:
        """Upload what is buffered."""
        self._wandb.finish()


class MLflow:
    """A run of MLflow, on the server `MLFLOW_TRACKING_URI` or in a database in the folder."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        import mlflow

        folder.mkdir(parents=True, exist_ok=True)
        self._mlflow = mlflow
        server = os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(server or f"sqlite:///{(folder / 'mlflow.db').absolute()}")
        if mlflow.get_experiment_by_name(PROJECT) is None:
            mlflow.create_experiment(PROJECT, artifact_location=None if server else folder.absolute().as_uri())
        mlflow.set_experiment(PROJECT)
        mlflow.start_run(run_name=name)
        mlflow.log_params(dict(settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log values by name."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


_TRACKERS: dict[str, Callable[[Path, str, Mapping[str, Any]], RunTracker]] = dict(
    zip(TRACKERS, (TensorBoard, Wandb, MLflow), strict=True)
)


def open_trackers(training: Training, folder: Path, name: str, settings: Mapping[str, Any]) -> list[RunTracker]:
    """Connect the trackers that a training's settings turn on; none in processes other than the first.

    Args:
        training: settings, with one key per tracker.
        folder: receives `tensorboard/`, `wandb/`, `mlflow/`.
        name: of the run.
        settings: logged with the run, in addition to `training`.

    Raises:
        UserError: a package is missing, or its server refuses.
    """
    if processes.rank() > 0:
        return []
    opened: list[RunTracker] = []
    for package, tracker in _TRACKERS.items():
        if not getattr(training, package):
            continue
        try:
            importlib.import_module(package)
        except ImportError:
            raise UserError(f"training.{package} needs the package {package}: pip install '.[{package}]'") from None
        try:
            opened.append(tracker(folder / package, name, {**asdict(training), **settings}))
        except Exception as error:  # of any type, from the packages and their servers
            reason = first_sentences(error) or type(error).__name__
            raise UserError(f"training.{package}: {reason}; {_REMEDIES[package]}") from error
    return opened


def log_figures(training: Training, folder: Path, name: str, figures: Mapping[str, float]) -> None:
    """Log a row's final figures as a separate run of each tracker that is turned on.

    Args:
        training: settings of the row's trainings.
        folder: of the row.
        name: of the row.
        figures: `test/mAP` and so on -> fraction.
    """
    for tracker in open_trackers(training, folder, name, {"row": name}):
        tracker.log(figures, 0)
        tracker.close()
