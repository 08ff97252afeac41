"""Train a head on windows of features through mmengine's Runner, and keep its best epoch by validation mAP."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from benchmarks.config import Training
from benchmarks.metrics import lam_map
from benchmarks.predict import WindowData, scores
from benchmarks.progress import Progress
from heads.base import Head, Window
from registry import HEADS, UserError
from zoo.files import replacing, write_json
from zoo.weights import write_head

_ONE_THREAD_PARAMETERS = 2_000_000


def class_weights(labels: np.ndarray, how: str | None) -> Tensor:
    """Weights (2,) of the two classes in the cross entropy.

    `balanced`: each class weighs the share of the other one, [share of positives, share of negatives].

    Source: the InternLSTM team's settings.

    Args:
        labels: 0 or 1 for every labelled frame of the training split, not for its key frames alone.
        how: `balanced` or None.
    """
    if how is None:
        return torch.ones(2)
    positives = float(np.mean(labels == 1))
    return torch.tensor([positives, 1 - positives])


def train(
    head_config: Mapping[str, Any],
    training: Training,
    seed: int,
    data: WindowData,
    validation: WindowData,
    weights: Tensor,
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    name: str = "",
) -> dict[str, Any]:
    """Train one head with one seed, or find it trained; an interrupted training goes on where it was.

    Args:
        head_config: `type` and arguments of the head, `feature_dim` and `window` among them.
        training: epochs, batch size, learning rate.
        seed: of the weights, the order of the windows and the dropout.
        data: labelled training windows.
        validation: labelled validation windows, which choose the epoch.
        weights: (2,) class weights.
        folder: receives `head.safetensors` and `training.json`; `runner/` while it runs.
        device: where to train.
        name: of the head, for the progress bar.

    Returns:
        The contents of `training.json`: seed, best_epoch, best_mAP, history, seconds, and `reused`.
    """
    done = folder / "training.json"
    if done.exists() and (folder / "head.safetensors").exists():
        return json.loads(done.read_text(encoding="utf-8")) | {"reused": True}
    for which, labels in (("training", data.labels), ("validation", validation.labels)):
        if len(labels.unique()) < 2:
            raise UserError(
                f"the {which} windows are of one class only; nothing can be learnt or chosen, use more of the data"
            )

    started = time.perf_counter()
    torch.manual_seed(seed)
    head: Head = HEADS.build(head_config)
    needed = [*(["the key frame's map"] if head.map_channels is not None else []), *head.needs_priors]
    if needed:
        raise UserError(f"head {head_config['type']} needs {', '.join(needed)}; windows of features do not have them")
    solve: Callable[[Window, Tensor, Tensor], None] | None = getattr(head, "fit", None)
    if solve is not None:
        window, labels = data.all()
        solve(window, labels, weights)
        val_map = lam_map(scores(head, validation), validation.labels.numpy()).map
        outcome: dict[str, Any] = dict(best_epoch=0, best_mAP=val_map, history=[])
    else:
        runner_folder = folder / "runner"
        with _threads_for(head):
            keep = _descend(head, training, seed, data, validation, weights, runner_folder, torch.device(device), name)
        head.load_state_dict(keep.best_state)
        outcome = dict(best_epoch=keep.best_epoch, best_mAP=keep.best_map, history=keep.history)
    seconds = time.perf_counter() - started
    write_head(folder / "head.safetensors", head.cpu(), head_config)
    report = dict(
        seed=seed, **outcome, windows=len(data), parameters=sum(p.numel() for p in head.parameters()), seconds=seconds
    )
    write_json(done, report)
    shutil.rmtree(folder / "runner", ignore_errors=True)
    return report | {"reused": False}


@contextmanager
def _threads_for(head: Head) -> Iterator[None]:
    """Train small heads on one thread, so that their weights do not depend on how many cores a machine has.

    A second thread would make a step of SynthLAM's LSTM a third shorter on an idle machine, and longer on a busy one.
    """
    before = torch.get_num_threads()
    if sum(parameter.numel() for parameter in head.parameters()) < _ONE_THREAD_PARAMETERS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _descend(
    head: Head,
    training: Training,
    seed: int,
    data: WindowData,
    validation: WindowData,
    weights: Tensor,
    folder: Path,
    device: torch.device,
    name: str,
) -> _KeepBest:
    folder.mkdir(parents=True, exist_ok=True)
    keep = _KeepBest(seed, every=max(1, training.epochs // 8))
    with Progress(f"train {name} seed {seed}".replace("  ", " "), training.epochs, "epoch") as progress:
        runner = _Runner(
            model=_Trainee(head, weights),
            work_dir=str(folder),
            train_dataloader=_loader(data, training.batch_size, shuffle=True, seed=seed),
            val_dataloader=_loader(validation, 1024, shuffle=False, seed=seed),
            train_cfg=dict(by_epoch=True, max_epochs=training.epochs, val_interval=1),
            val_cfg=dict(),
            val_evaluator=[_LamMap()],
            optim_wrapper=dict(optimizer=dict(type="Adam", lr=training.lr, weight_decay=training.weight_decay)),
            default_hooks=dict(checkpoint=None, logger=dict(type="LoggerHook", interval=10_000)),
            custom_hooks=[keep, _ShowProgress(keep, progress)],
            visualizer=_visualizer(training.tensorboard),
            randomness=dict(seed=seed),
            experiment_name=f"lamzoo-{uuid.uuid4().hex}",  # mmengine keeps loggers by this name for the process's life
            resume=(folder / "last_checkpoint").exists(),
        )
        # The Runner takes the first accelerator it finds; the command line says which device.
        runner.model.to(device)
        runner.train()
    return keep


class _Runner(Runner):
    """The Runner of mmengine, logging to its file alone (stdout is for results), asking no compilers who they are."""

    def build_logger(self, *arguments: Any, **named: Any) -> MMLogger:
        logger = super().build_logger(*arguments, **named)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setStream(sys.stderr)
                handler.setLevel(logging.ERROR)
        return logger

    def _log_env(self, env_cfg: dict) -> None:
        pass


class _Trainee(nn.Module):
    """A head as mmengine's loops want a model: `train_step` and `val_step`."""

    weights: Tensor

    def __init__(self, head: Head, weights: Tensor) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("weights", weights, persistent=False)

    def train_step(self, batch: tuple[Window, Tensor], optim_wrapper: Any) -> dict[str, Tensor]:
        window, labels = batch
        with optim_wrapper.optim_context(self):
            loss = cross_entropy(
                self.head(window.to(self.weights.device)), labels.to(self.weights.device), self.weights
            )
        optim_wrapper.update_params(loss)
        return {"loss": loss.detach()}

    def val_step(self, batch: tuple[Window, Tensor]) -> list[dict[str, np.ndarray]]:
        window, labels = batch
        probabilities = self.head(window.to(self.weights.device)).double().softmax(dim=1)[:, 1]
        return [{"scores": probabilities.cpu().numpy(), "labels": labels.numpy()}]


class _LamMap(BaseMetric):
    """LAM mAP of all batches of the validation split."""

    default_prefix = "val"

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.extend(data_samples)

    def compute_metrics(self, results: list) -> dict[str, Any]:
        return {
            "mAP": lam_map(*(np.concatenate([batch[key] for batch in results]) for key in ("scores", "labels"))).map
        }


class _KeepBest(Hook):
    """Keeps the best epoch, and writes checkpoints that a resumed training cannot be told apart from.

    mmengine's own checkpoint hook writes before the epoch is validated, and keeps objects in the file that torch
    refuses to load again; this one writes after validation, and tensors and plain values alone.
    """

    priority = "VERY_LOW"

    def __init__(self, seed: int, every: int) -> None:
        self.seed = seed
        self.every = every
        self.best_state: dict[str, Tensor] = {}
        self.best_map = -1.0
        self.best_epoch = 0
        self.history: list[dict[str, float]] = []
        self._losses: list[Tensor] = []

    def before_train_epoch(self, runner: Runner) -> None:
        # Dropout of an epoch depends on the epoch alone, so that it is the same after a resume.
        torch.manual_seed(self.seed * 100_003 + runner.epoch)
        self._losses = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._losses.append(outputs["loss"])

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        val_map = float((metrics or {})["val/mAP"])
        self.history.append(dict(epoch=runner.epoch, loss=float(torch.stack(self._losses).mean()), val_mAP=val_map))
        if val_map > self.best_map:
            self.best_map, self.best_epoch = val_map, runner.epoch
            self.best_state = {
                key: value.detach().cpu().clone() for key, value in runner.model.head.state_dict().items()
            }
        if runner.epoch % self.every == 0 and runner.epoch < runner.max_epochs:
            folder = Path(runner.work_dir)
            target = folder / "checkpoint.pth"
            with replacing(target) as temporary:
                meta = dict(epoch=runner.epoch, iter=runner.iter)
                runner.save_checkpoint(str(folder), temporary.name, meta=meta)
            (folder / "last_checkpoint").write_text(str(target), encoding="utf-8")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint["message_hub"] = dict(log_scalars={}, runtime_info={}, resumed_keys={})
        checkpoint["best"] = dict(state=self.best_state, mAP=self.best_map, epoch=self.best_epoch, history=self.history)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        best = checkpoint["best"]
        self.best_state, self.best_map, self.best_epoch = best["state"], best["mAP"], best["epoch"]
        self.history = best["history"]


class _ShowProgress(Hook):
    """One tick an epoch."""

    def __init__(self, keep: _KeepBest, progress: Progress) -> None:
        self.keep = keep
        self.progress = progress

    def before_train(self, runner: Runner) -> None:
        self.progress.advance(runner.epoch)

    def after_train_epoch(self, runner: Runner) -> None:
        note = f"val mAP {100 * self.keep.best_map:.2f}" if self.keep.best_state else ""
        self.progress.advance(1, note)


def _loader(data: WindowData, batch_size: int, *, shuffle: bool, seed: int) -> DataLoader:
    sampler = DefaultSampler(data, shuffle=shuffle, seed=seed)
    return DataLoader(data, batch_size=batch_size, sampler=sampler, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch


def _visualizer(tensorboard: bool) -> dict[str, Any] | None:
    if not tensorboard:
        return None
    try:
        import tensorboard as _  # noqa: F401
    except ImportError:
        raise UserError("training.tensorboard needs the package tensorboard: pip install '.[tensorboard]'") from None
    return dict(type="Visualizer", vis_backends=[dict(type="TensorboardVisBackend")])
