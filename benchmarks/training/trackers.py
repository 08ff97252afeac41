"""Curves of a training for TensorBoard, Weights & Biases and MLflow, through mmengine's visualisation back ends.

Each is off unless its key of `training` says otherwise, and changes no number. Losses, learning rate and validation mAP
are written an epoch; nothing of the data, the code or the weights.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.visualization.vis_backend import (
    BaseVisBackend,
    MLflowVisBackend,
    TensorboardVisBackend,
    WandbVisBackend,
)

from benchmarks.config.recipe import Training
from benchmarks.system import processes
from registry import UserError

PROJECT = "lamzoo"
_OFFLINE = {  # package -> what to do where it says no
    "tensorboard": "look at the message, or leave it out",
    "wandb": "WANDB_MODE=offline keeps the run on this machine, wandb login connects it",
    "mlflow": "without MLFLOW_TRACKING_URI the run stays on this machine",
}


class _Wandb(WandbVisBackend):
    """mmengine's, but that no source file is uploaded, and that it ends a run as wandb does today."""

    def add_config(self, config: Config, **_: Any) -> None:
        self.experiment.config.update(config.to_dict())

    def close(self) -> None:
        if self._env_initialized:
            self._wandb.finish()


class _MLflow(MLflowVisBackend):
    """mmengine's, but that it says nothing on stdout, and that no file of the training's folder is uploaded."""

    def _init_env(self) -> None:
        import mlflow

        Path(self._save_dir).mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(self._tracking_uri)
        if mlflow.get_experiment_by_name(PROJECT) is None:
            mlflow.create_experiment(PROJECT, artifact_location=self._artifact_location)
        mlflow.set_experiment(PROJECT)
        mlflow.start_run(run_name=self._run_name)
        self._mlflow = mlflow

    def add_config(self, config: Config, **_: Any) -> None:
        self.experiment.log_params(config.to_dict())

    def close(self) -> None:
        if self._env_initialized:
            self._mlflow.end_run()


def trackers(training: Training, seed: int, folder: Path, name: str) -> list[BaseVisBackend]:
    """The back ends that a training's settings ask for, connected.

    Args:
        training: its settings.
        seed: its seed.
        folder: receives a folder of each, `tensorboard`, `wandb`, `mlflow`.
        name: of the row.

    Raises:
        UserError: a package is missing, or its server says no.
    """
    if processes.rank() > 0:
        return []
    run = f"{name} seed {seed}".strip()
    server = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow' / 'mlflow.db').absolute()}"
    made: dict[str, Callable[[str], BaseVisBackend]] = {
        "tensorboard": TensorboardVisBackend,
        "wandb": lambda place: _Wandb(place, init_kwargs=dict(project=PROJECT, name=run)),
        "mlflow": lambda place: _MLflow(
            place,
            run_name=run,
            tracking_uri=server,
            artifact_location=None if "MLFLOW_TRACKING_URI" in os.environ else (folder / "mlflow").absolute().as_uri(),
        ),
    }
    found = []
    for package, make in made.items():
        if not getattr(training, package):
            continue
        try:
            importlib.import_module(package)
        except ImportError:
            raise UserError(f"training.{package} needs the package {package}: pip install '.[{package}]'") from None
        try:
            backend = make(str(folder / package))
            _ = backend.experiment  # connects
        except Exception as error:  # of two libraries and their servers
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"training.{package}: {reason}; {_OFFLINE[package]}") from error
        backend.add_config(Config({**asdict(training), "seed": seed, "row": name}))
        found.append(backend)
    return found
