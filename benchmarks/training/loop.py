"""The training loop: validation after each epoch, the best epoch kept, a checkpoint every eighth of the epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from benchmarks.evaluation.metrics import lam_map
from benchmarks.features.windows import FeatureData
from benchmarks.pixels.windows import PixelData, shuffled
from benchmarks.scoring.predict import NotFiniteError, logits, score_windows
from benchmarks.system import interrupts, processes
from benchmarks.system.ahead import made_ahead
from benchmarks.training.checkpoint import TrainingProgress, resume, save_state
from benchmarks.training.job import TrainingJob
from benchmarks.training.trackers import RunTracker
from registry import UserError

_REPORTED_STEPS = 50  # on features, between two updates of the progress bar; an update may take longer than a step


class Loop:
    """One training of a job: the model, its optimiser, and where it stands.

    Args:
        model: a head, or backbone and head; moved to the job's device.
        job: data and settings.
        seed: of the order of windows and dropout.
    """

    def __init__(self, model: nn.Module, job: TrainingJob, seed: int) -> None:
        self.job = job
        self.seed = seed
        self.device = torch.device(job.device)
        self.model = model.to(self.device)
        self.data = job.data.on(self.device) if isinstance(job.data, FeatureData) else job.data
        self.validation = job.validation.on(self.device) if isinstance(job.validation, FeatureData) else job.validation
        self.batch_size = -(-job.training.batch_size // processes.count())  # per process
        windows = -(-len(self.data) // processes.count())
        self.steps_per_epoch = -(-windows // self.batch_size)
        # Fused Adam is twice as fast for a small head. On pixels it would move published figures.
        fused = True if isinstance(self.data, FeatureData) else None
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=job.training.lr, weight_decay=job.training.weight_decay, fused=fused
        )
        self.progress = TrainingProgress(lr=job.training.lr)
        self._class_weights = job.weights.to(self.device)
        self._logits: Callable[[Any], Tensor] = _parallel(self.model, self.device)

    def run(self, folder: Path, advance: Callable[[int, str], None], trackers: list[RunTracker]) -> None:
        """Train all epochs, or resume from a checkpoint; ends with the weights of the best epoch.

        Args:
            folder: of the seed; holds `checkpoint.safetensors` until the training is finished.
            advance: called with the number of steps done and a note for the progress bar.
            trackers: receive loss, learning rate and validation mAP after each epoch.

        Raises:
            Stopped: a signal came; the current epoch is finished and saved.
            UserError: the training diverged, or the checkpoint is damaged, or of another training.
        """
        epochs, progress = self.job.training.epochs, self.progress
        resume(folder, self.model, self.optimizer, progress, self.job.training)
        advance(progress.epoch * self.steps_per_epoch, "")
        while progress.epoch < epochs:
            loss = self.train_epoch(progress.epoch, advance).mean().item()
            if not math.isfinite(loss):
                raise self._diverged(f"its loss is {loss}")
            try:
                val_map = self.validate()
            except NotFiniteError as error:
                raise self._diverged(str(error)) from error
            progress.keep(loss, val_map, self.model)
            for tracker in trackers:
                tracker.log({"loss": loss, "lr": progress.lr, "val/mAP": val_map}, progress.epoch)
            signal = max(processes.gather(interrupts.pending))  # all processes stop, or none
            unfinished = progress.epoch < epochs
            if unfinished and (progress.epoch % max(1, epochs // 8) == 0 or signal) and processes.rank() == 0:
                save_state(folder, self.model, self.optimizer, progress)
            if unfinished and signal:
                processes.barrier()
                raise interrupts.Stopped(signal)
        self.model.load_state_dict(progress.best_state)

    def train_epoch(self, epoch: int, advance: Callable[[int, str], None] = lambda steps, note: None) -> Tensor:
        """Train one epoch.

        Args:
            epoch: from 0. Seed and epoch determine dropout and order, so resuming changes neither.
            advance: as in `run`.

        Returns:
            The loss of each step, (steps,).
        """
        torch.manual_seed(self.seed * 100_003 + epoch)
        if isinstance(self.data, PixelData):
            self.data.start_epoch(self.seed, epoch, self.job.augment)
        self.model.train()
        # torch's DataLoader draws once per epoch. The same draw here gives the same dropout as trainings that used one.
        torch.empty((), dtype=torch.int64).random_()
        every = _REPORTED_STEPS if isinstance(self.data, FeatureData) else 1
        losses, reported = [], 0
        mixed = self.job.training.precision == "bfloat16"
        for step, (window, labels) in enumerate(self._batches(epoch), start=1):
            with torch.autocast(self.device.type, torch.bfloat16) if mixed else nullcontext():
                found = self._logits(window.to(self.device))
            loss = cross_entropy(found.float(), labels.to(self.device), self._class_weights)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            losses.append(loss.detach())
            self._set_lr("step", epoch * self.steps_per_epoch + step)
            if step % every == 0 or step == self.steps_per_epoch:
                advance(step - reported, self.progress.note)
                reported = step
        self._set_lr("epoch", epoch + 1)
        return torch.stack(losses)

    def validate(self) -> float:
        """Compute mAP on the validation windows; several processes share the scoring of pixels."""
        if isinstance(self.validation, FeatureData) or processes.count() == 1:
            scores, labels = score_windows(self.model, self.validation, device=self.device), self.validation.labels
        else:
            own = self.validation.part(np.arange(processes.rank(), len(self.validation), processes.count()))
            parts = processes.gather((score_windows(self.model, own, device=self.device), own.labels))
            scores, labels = np.concatenate([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        val_map = lam_map(scores, labels.cpu().numpy()).map
        assert val_map is not None  # `train` has checked that both classes are there
        return val_map

    def _diverged(self, what: str) -> UserError:
        return UserError(
            f"{self.job.name} seed {self.seed}: the training diverged in epoch {self.progress.epoch + 1}: {what}; "
            f"use a learning rate below {self.job.training.lr:g} (--set training.lr=...), or another seed"
        )

    def _batches(self, epoch: int) -> Iterator[tuple[Any, Tensor]]:
        """Batches of windows and labels in the order of an epoch."""
        if isinstance(self.data, FeatureData):
            generator = torch.Generator().manual_seed(self.seed + epoch)
            permuted = torch.randperm(len(self.data), generator=generator).to(self.data.rows.device)
            for places in permuted.split(self.batch_size):  # a batch's numbers from the host would block twice a step
                yield self.data[places]
            return
        order = shuffled(len(self.data), (self.seed, epoch))
        parts = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        yield from made_ahead(self.data[places] for places in parts)

    def _set_lr(self, unit: str, done: int) -> None:
        """Set the learning rate after `done` steps or epochs: constant, or a cosine to its floor after the last one.

        The recursive form of SGDR (Loshchilov and Hutter 2017), as in torch and mmengine.
        """
        training = self.job.training
        if training.schedule == "constant" or training.schedule_unit != unit:
            return
        total = training.epochs * (self.steps_per_epoch if unit == "step" else 1)
        ratio = (1 + math.cos(math.pi * done / total)) / (1 + math.cos(math.pi * (done - 1) / total))
        self.progress.lr = ratio * (self.progress.lr - training.schedule_floor) + training.schedule_floor
        self.optimizer.param_groups[0]["lr"] = self.progress.lr


def _parallel(model: nn.Module, device: torch.device) -> Callable[[Any], Tensor]:
    """`logits` of a model; several processes average their gradients."""
    if processes.count() == 1:
        return partial(logits, model)
    processes.barrier()  # the first may still score the training before; exchanges of gradients do not wait that long
    own = None if device.type == "cpu" else [device]
    return DistributedDataParallel(_Logits(model), device_ids=own, find_unused_parameters=True)


class _Logits(nn.Module):
    """`logits` as the forward of a module, which DistributedDataParallel needs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> Tensor:
        return logits(self.model, batch)
