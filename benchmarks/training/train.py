"""Train one seed of a job, or reuse its finished training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from backbones import gaze_resnet
from backbones.base import check_state, state_sha256
from backbones.checksums import file_sha256
from benchmarks.evaluation.metrics import lam_map
from benchmarks.features.windows import FeatureData, check_takes_features
from benchmarks.pixels.source import build_backbone
from benchmarks.scoring.predict import score_windows
from benchmarks.system import interrupts, processes
from benchmarks.system.progress import Progress, say
from benchmarks.training.checkpoint import CHECKPOINT, Epoch
from benchmarks.training.job import REPORT, TrainingJob
from benchmarks.training.loop import Loop
from benchmarks.training.trackers import open_trackers
from heads.base import Head
from registry import HEADS, UserError
from zoo.files.atomic import write_json
from zoo.files.checksums import NAME as SUMS
from zoo.files.checksums import damaged, write_sums
from zoo.files.untrusted import checked, read_json
from zoo.model import LookingAtMeModel, initialise_lstm, write_model
from zoo.weights import read_weights, write_head

_ONE_THREAD_PARAMETERS = 2_000_000


class TrainingReport(TypedDict):
    """The part of `training.json` that every training has."""

    seed: int
    best_epoch: int
    """From 1; 0 for heads with a closed-form fit."""
    best_mAP: float
    """Validation mAP of the kept weights, a fraction."""
    history: list[Epoch]
    windows: int
    """Training windows, once per view."""
    parameters: int
    """Of the head."""
    seconds: float


@interrupts.deferred()  # after a signal, the current epoch is finished and saved
def train(job: TrainingJob, seed: int, advance: Callable[[int, str], None] | None = None) -> dict[str, Any]:
    """Train one seed of a job, resume its interrupted training, or reuse the finished one.

    Args:
        job: model, data and settings. `job.folder / seed<N>` receives the weights and `training.json`.
        seed: of the initial weights, the order of windows and dropout.
        advance: called with the number of steps done and a note, instead of showing a progress bar.

    Returns:
        The contents of `training.json`, and `reused`.

    Raises:
        UserError: the windows have one class only, or a checkpoint cannot be resumed from.
        Stopped: a signal came.
    """
    folder = job.seed_folder(seed)
    report = _find(job, folder)
    if report is not None:
        return {**report, "reused": True}
    started = time.perf_counter()
    model, initial = build_model(job, seed)
    with threads_for(model, job.device):
        if job.checkpoint is not None:
            fitted = _load(model, job, job.checkpoint)
        else:
            _check_classes(job)
            fitted = _fit_closed_form(model, job) if has_closed_form(model) else _fit(model, job, seed, advance)
    head = model.head if isinstance(model, LookingAtMeModel) else model
    report = {
        "seed": seed,
        **fitted,
        **initial,
        "windows": len(job.data),
        "parameters": sum(parameter.numel() for parameter in head.parameters()),
        "seconds": time.perf_counter() - started,
    }
    if processes.rank() == 0:
        _write(job, folder, model, report)
    return {**report, "reused": False}


def read_report(path: Path) -> dict[str, Any]:
    """Read a `training.json`.

    Raises:
        UserError: it is damaged.
    """
    report: dict[str, Any] = read_json(path, "a training's report")
    try:
        checked(report, TrainingReport)
    except ValueError as error:
        raise UserError(f"{path} is not a training's report ({error}); delete {path.parent} to train again") from error
    return report


def build_model(job: TrainingJob, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """Build the model at the start of a training.

    Returns:
        A head, or backbone and head; and the report's `initial` section for the latter: the sha256 of all weights, and
        the origin of the LSTM's weights if they come from a file.
    """
    torch.manual_seed(seed)
    head: Head = HEADS.build(job.head_config)
    if job.backbone_config is None:
        check_takes_features(job.head_config["type"], head)
        return head, {}
    model = LookingAtMeModel(build_backbone(job.backbone_config, seed), head)
    model.backbone.to(memory_format=torch.channels_last)  # the format of the pixels, in which convolutions are faster
    shipped = job.backbone_config.get("pretrained") == "renders"
    file = gaze_resnet.RENDERS if shipped else Path(job.backbone_config.get("weights") or "")
    lstm = initialise_lstm(head, file) if file.suffix == ".safetensors" else None
    return model, {"initial": {"sha256": state_sha256(model.state_dict()), "lstm": lstm}}


def check_checkpoint(path: Path, head_config: Mapping[str, Any], backbone: nn.Module | None) -> None:
    """Check that a checkpoint holds a model of this configuration, before any frame is read for it.

    Args:
        path: of the weights.
        head_config: `type` and arguments of the head, including `feature_dim` and `window`.
        backbone: of a checkpoint of a whole model; None if it is of a head.

    Raises:
        UserError: the file is damaged, or of another model.
    """
    state, about = read_weights(path)
    held, wanted = about.get("head"), head_config["type"]
    if isinstance(held, dict) and held.get("type") != wanted:
        raise UserError(f"{path} holds a head '{held.get('type')}', the recipe has '{wanted}'; name the head's recipe")
    with torch.device("meta"):
        tensors: dict[str, Tensor] = HEADS.build(head_config).state_dict()
    if backbone is not None:
        parts = {"backbone": backbone.state_dict(), "head": tensors}
        tensors = {f"{part}.{name}": tensor for part, of_part in parts.items() for name, tensor in of_part.items()}
    check_state(state, tensors, str(path))


def on_one_thread(model: nn.Module) -> bool:
    """Whether a model trains on one CPU thread, so that its weights do not depend on the number of cores.

    This holds for small heads: a second thread makes a step of SynthLAM's LSTM a third shorter on an idle machine, but
    longer on a busy one. It holds for models on pixels, because the seeds of a row train side by side.
    """
    return isinstance(model, LookingAtMeModel) or (
        sum(parameter.numel() for parameter in model.parameters()) < _ONE_THREAD_PARAMETERS
    )


def has_closed_form(model: nn.Module) -> bool:
    """Whether a model's head is fitted in closed form, by its own `fit`."""
    return hasattr(model.head if isinstance(model, LookingAtMeModel) else model, "fit")


@contextmanager
def threads_for(model: nn.Module, device: str | torch.device) -> Iterator[None]:
    """Train and score a model on the number of threads that `on_one_thread` asks for."""
    before = torch.get_num_threads()
    if on_one_thread(model) and torch.device(device).type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _find(job: TrainingJob, folder: Path) -> dict[str, Any] | None:
    """The report of a finished training; None if it is missing or its files are damaged."""
    if not (folder / REPORT).exists() or not (folder / job.weights_name).exists():
        return None
    files = damaged(folder, REPORT)
    if files:
        if processes.rank() == 0:
            say(f"damaged in {folder}: {', '.join(files)}; training again")
        return None
    report = read_report(folder / REPORT)
    if processes.rank() == 0:  # the process may have been killed between the last steps of `_write`
        if not (folder / SUMS).exists():
            try:
                write_sums(folder, [job.weights_name, REPORT])
            except OSError as error:
                raise UserError(f"{error.filename}: {error.strerror}; delete {folder} to train again") from error
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return report


def _write(job: TrainingJob, folder: Path, model: nn.Module, report: dict[str, Any]) -> None:
    """Write weights, report and checksums, then remove the checkpoint."""
    model.cpu()
    if isinstance(model, LookingAtMeModel):
        assert job.backbone_config is not None
        licence = model.backbone.weights_info.licence
        write_model(folder / job.weights_name, model, job.backbone_config, job.head_config, licence=licence)
    else:
        assert isinstance(model, Head)
        write_head(folder / job.weights_name, model, job.head_config)
    write_json(folder / REPORT, report)
    write_sums(folder, [job.weights_name, REPORT])
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _check_classes(job: TrainingJob) -> None:
    for which, labels in (("training", job.data.labels), ("validation", job.validation.labels)):
        if len(labels.unique()) < 2:
            raise UserError(f"the {which} windows have one class only; use more data")


def _load(model: nn.Module, job: TrainingJob, path: Path) -> dict[str, Any]:
    """Load a checkpoint into a model, and validate it.

    Raises:
        UserError: the file is damaged, or of another model.
    """
    state, _ = read_weights(path)
    check_state(state, model.state_dict(), str(path))
    model.load_state_dict(state)
    model.to(job.device)
    val_map = lam_map(score_windows(model, job.validation, device=job.device), job.validation.labels.numpy()).map
    start = {"checkpoint": {"file": path.name, "sha256": file_sha256(path)}}
    return {"best_epoch": 0, "best_mAP": val_map, "history": [], **start}


def _fit_closed_form(model: Any, job: TrainingJob) -> dict[str, Any]:
    """Fit a head that has a closed-form solution on all training windows at once."""
    if not isinstance(job.data, FeatureData) or not isinstance(job.validation, FeatureData):
        raise UserError(f"head {job.head_config['type']} has a closed-form fit; it cannot train a backbone")
    window, labels = job.data[:]
    model.fit(window, labels, job.weights)
    val_map = lam_map(score_windows(model, job.validation), job.validation.labels.numpy()).map
    return {"best_epoch": 0, "best_mAP": val_map, "history": []}


def _fit(model: nn.Module, job: TrainingJob, seed: int, advance: Callable[[int, str], None] | None) -> dict[str, Any]:
    """Train a model by gradient descent; it ends with the weights of its best epoch."""
    loop = Loop(model, job, seed)
    folder = job.seed_folder(seed)
    name = f"{job.name} seed {seed}".strip()
    with ExitStack() as stack:
        if advance is None:
            steps = job.training.epochs * loop.steps_per_epoch
            bar = Progress(f"train {name}", steps, "step", show=processes.rank() == 0)
            advance = stack.enter_context(bar).advance
        trackers = open_trackers(job.training, folder, name, {"seed": seed, "row": job.name})
        for tracker in trackers:
            stack.callback(tracker.close)
        loop.run(folder, advance, trackers)
    progress = loop.progress
    return {"best_epoch": progress.best_epoch, "best_mAP": progress.best_map, "history": progress.history}
