"""Train a head on windows of features, or backbone and head on windows of pixels, through mmengine's Runner.

Of either the best epoch by validation mAP is kept.
"""

from __future__ import annotations

import functools
import io
import logging
import multiprocessing
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from mmengine.dataset import DefaultSampler
from mmengine.dist import all_gather_object
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import LOOPS, DefaultScope
from mmengine.runner import EpochBasedTrainLoop, Runner, ValLoop
from mmengine.visualization import BaseVisBackend, Visualizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Sampler

from backbones.base import state_sha256
from benchmarks.config.recipe import Training
from benchmarks.evaluation.metrics import lam_map
from benchmarks.features.windows import WindowData, check_takes_features
from benchmarks.pixels.source import build_backbone
from benchmarks.pixels.windows import AheadLoader, BlockSampler, PixelData
from benchmarks.scoring.predict import logits, probabilities, score_windows
from benchmarks.system import interrupts, processes, schema
from benchmarks.system.progress import Progress, say
from benchmarks.training.checkpoint import check_alike, go_on
from benchmarks.training.trackers import trackers
from heads.base import Head, Window
from registry import HEADS, UserError
from zoo.files.atomic import replacing, write_json
from zoo.files.checksums import NAME as SUMS
from zoo.files.checksums import damaged, write_sums
from zoo.files.untrusted import read_json
from zoo.model import LookingAtMeModel, PixelWindow, initialise_lstm, write_model
from zoo.weights import write_head

_ONE_THREAD_PARAMETERS = 2_000_000
CHECKPOINT = "checkpoint.pth"  # in `runner/`, which is there while a training is unfinished
_HOOKS_EVERY = 50  # steps of a training on features, each of which may take less time than mmengine's hooks do


class Report(TypedDict):
    """What `training.json` says, and more."""

    seed: int
    best_epoch: int
    best_mAP: float
    history: list[dict[str, float | None]]
    windows: int
    parameters: int
    seconds: float


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


@interrupts.finishing()  # the epoch in work, by the hook that keeps it, and what is written after the last one
def train(
    head_config: Mapping[str, Any],
    training: Training,
    seed: int,
    data: WindowData | PixelData,
    validation: WindowData | PixelData,
    weights: Tensor,
    folder: Path,
    *,
    backbone_config: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    name: str = "",
    advance: Callable[[int, str], None] | None = None,
) -> dict[str, Any]:
    """Train one model with one seed, or find it trained; an interrupted training goes on where it was.

    Args:
        head_config: `type` and arguments of the head, `feature_dim` and `window` among them.
        training: epochs, batch size, learning rate.
        seed: of the weights, the order of the windows and the dropout.
        data: labelled training windows.
        validation: labelled validation windows, which choose the epoch.
        weights: (2,) class weights.
        folder: receives `head.safetensors`, or `model.safetensors` where the backbone trains too, and `training.json`;
            `runner/` while it runs.
        backbone_config: of a backbone that trains; then the windows are pixels.
        device: where to train.
        name: of the row, for the progress bar.
        advance: told of steps done and of how it goes, in place of a progress bar.

    Returns:
        The contents of `training.json`: seed, best_epoch, best_mAP, history, seconds, and `reused`.
    """
    done, file = folder / "training.json", weights_file(folder, backbone_config)
    if done.exists() and file.exists():
        spoilt = damaged(folder, done.name)
        if not spoilt:
            if processes.rank() == 0:  # what comes after `training.json` may be undone, or a folder of an older version
                if not (folder / SUMS).exists():
                    write_sums(folder, [file.name, done.name])
                shutil.rmtree(folder / "runner", ignore_errors=True)
            return {**read_report(done), "reused": True}
        if processes.rank() == 0:
            say(f"damaged in {folder}: {', '.join(spoilt)}; trained anew")
    for which, labels in (("training", data.labels), ("validation", validation.labels)):
        if len(labels.unique()) < 2:
            raise UserError(
                f"the {which} windows are of one class only; nothing can be learnt or chosen, use more of the data"
            )

    started = time.perf_counter()
    model, initial = _build(head_config, backbone_config, seed)
    head = model.head if isinstance(model, LookingAtMeModel) else model
    solve: Callable[[Window, Tensor, Tensor], None] | None = getattr(head, "fit", None)
    with threads_for(model, device):
        if solve is not None:
            if not isinstance(data, WindowData):
                raise UserError(f"head {head_config['type']} is solved, not descended to; its backbone cannot train")
            window, labels = data[:]
            solve(window, labels, weights)
            val_map = lam_map(score_windows(model, validation), validation.labels.numpy()).map
            outcome: dict[str, Any] = dict(best_epoch=0, best_mAP=val_map, history=[])
        else:
            keep = _descend(
                model, training, seed, data, validation, weights, folder / "runner", torch.device(device), name, advance
            )
            model.load_state_dict(keep.best_state)
            outcome = dict(best_epoch=keep.best_epoch, best_mAP=keep.best_map, history=keep.history)
    seconds = time.perf_counter() - started
    report = dict(
        seed=seed,
        **outcome,
        **initial,
        windows=len(data),
        parameters=sum(p.numel() for p in head.parameters()),
        seconds=seconds,
    )
    if processes.rank() > 0:
        return report | {"reused": False}
    model.cpu()
    if isinstance(model, LookingAtMeModel):
        assert backbone_config is not None
        licence = model.backbone.weights_info.licence
        write_model(file, model, backbone_config, head_config, licence=licence)
    else:
        write_head(file, model, head_config)
    write_json(done, report)
    write_sums(folder, [file.name, done.name])
    shutil.rmtree(folder / "runner", ignore_errors=True)
    return report | {"reused": False}


def read_report(path: Path) -> dict[str, Any]:
    """Read a `training.json`.

    Raises:
        UserError: it is damaged.
    """
    report = read_json(path, "a training's report")
    try:
        schema.check(report, Report)
    except ValueError as error:
        raise UserError(
            f"{path} is no training's report ({error}); delete {path.parent}, and it is trained anew"
        ) from error
    return report


def weights_file(folder: Path, backbone_config: Mapping[str, Any] | None) -> Path:
    """Where a training leaves what it learnt."""
    return folder / ("head.safetensors" if backbone_config is None else "model.safetensors")


def _build(
    head_config: Mapping[str, Any], backbone_config: Mapping[str, Any] | None, seed: int
) -> tuple[Any, dict[str, Any]]:
    """The model as its training starts: a head, or backbone and head; and what the report says of where it starts."""
    torch.manual_seed(seed)
    head: Head = HEADS.build(head_config)
    if backbone_config is None:
        check_takes_features(head_config["type"], head)
        return head, {}
    model = LookingAtMeModel(build_backbone(backbone_config, seed), head)
    model.backbone.to(memory_format=torch.channels_last)  # pixels come so, and convolutions are faster
    file = Path(backbone_config.get("weights") or "")
    lstm = initialise_lstm(head, file) if file.suffix == ".safetensors" else None
    return model, {"initial": {"sha256": state_sha256(model.state_dict()), "lstm": lstm}}


def on_one_thread(model: nn.Module) -> bool:
    """Whether a model trains on one thread of a CPU, so that its weights do not depend on how many cores there are.

    Small heads do: a second thread would make a step of SynthLAM's LSTM a third shorter on an idle machine, and longer
    on a busy one. And so do models of pixels, since the seeds of a row train side by side.
    """
    return isinstance(model, LookingAtMeModel) or (
        sum(parameter.numel() for parameter in model.parameters()) < _ONE_THREAD_PARAMETERS
    )


@contextmanager
def threads_for(model: nn.Module, device: str | torch.device) -> Iterator[None]:
    """Let a model have the threads it is trained and scored with."""
    before = torch.get_num_threads()
    if on_one_thread(model) and torch.device(device).type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _descend(
    model: nn.Module,
    training: Training,
    seed: int,
    data: WindowData | PixelData,
    validation: WindowData | PixelData,
    weights: Tensor,
    folder: Path,
    device: torch.device,
    name: str,
    advance: Callable[[int, str], None] | None,
) -> _KeepBest:
    keep = _KeepBest(seed, data, every=max(1, training.epochs // 8))
    batch_size = -(-training.batch_size // processes.count())  # of each process
    loader = _loader(data, batch_size, device, seed=seed, block=training.block, shuffle=True)
    with ExitStack() as stack:
        if advance is None:
            what = f"train {name} seed {seed}".replace("  ", " ")
            bar = Progress(what, training.epochs * len(loader), "step", show=processes.rank() == 0)
            advance = stack.enter_context(bar).advance
        hooks = [keep, _ShowProgress(keep, advance)]
        tracked = trackers(training, seed, folder.parent, name)
        runner = _runner(model, training, seed, loader, validation, weights, folder, device, hooks, tracked)
        stack.callback(_forget, runner)
        with redirect_stdout(io.StringIO()):  # it tells of checkpoints there
            runner.train()
    return keep


def one_epoch(head: Head, training: Training, data: WindowData, weights: Tensor, folder: Path) -> Callable[[], Tensor]:
    """A function that trains a head for one epoch a call, and returns the losses (steps,); `train` without validation.

    Args:
        head: on the CPU.
        training: batch size, learning rate, seed.
        data: labelled windows.
        weights: (2,) class weights.
        folder: for mmengine's files.
    """
    device = torch.device("cpu")
    loader = _loader(data, training.batch_size, device, seed=training.seed, shuffle=True)
    keep = _KeepBest(training.seed, data, every=1)
    runner = _runner(head, replace(training, epochs=0), training.seed, loader, data, weights, folder, device, [keep])
    with redirect_stdout(io.StringIO()):
        runner.train()  # builds what an epoch needs

    def run() -> Tensor:
        runner.train_loop.run_epoch()
        return torch.stack(runner.train_loop.losses)

    return run


def _runner(
    model: nn.Module,
    training: Training,
    seed: int,
    loader: DataLoader,
    validation: WindowData | PixelData,
    weights: Tensor,
    folder: Path,
    device: torch.device,
    hooks: Sequence[Hook],
    tracked: Sequence[BaseVisBackend] = (),
) -> _Runner:
    """The Runner of one training, which goes on from a checkpoint in `folder` if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / CHECKPOINT
    on_features = isinstance(validation, WindowData)
    trainee = _Trainee(model, weights, device, training.precision)
    # On features one kernel for all parameters. Models of pixels keep the steps they have always taken, to the bit.
    fused = {"fused": True} if on_features else {}
    runner = _Runner(
        model=trainee,
        work_dir=str(folder),
        train_dataloader=loader,
        val_dataloader=_loader(validation, validation.score_batch, device, seed=seed),
        train_cfg=dict(type="EpochsWithFewHooks", max_epochs=training.epochs, every=_HOOKS_EVERY if on_features else 1),
        val_cfg=dict(type="ScoreLoop") if on_features else {},
        val_evaluator=[_LamMap()],
        optim_wrapper=dict(optimizer=dict(type="Adam", lr=training.lr, weight_decay=training.weight_decay, **fused)),
        param_scheduler=_schedule(training),
        default_hooks=dict(checkpoint=None, logger=dict(type="LoggerHook", interval=10_000)),
        custom_hooks=list(hooks),
        visualizer=dict(type="Visualizer", vis_backends=[*tracked]),  # without a back end it writes nothing
        randomness=dict(seed=seed),
        env_cfg=dict(mp_cfg=dict(mp_start_method=multiprocessing.get_start_method())),  # it would set one
        experiment_name=f"lamzoo-{uuid.uuid4().hex}",  # mmengine keeps loggers by this name for the process's life
        load_from=str(checkpoint) if checkpoint.exists() else None,
        resume=checkpoint.exists(),
    )
    with suppress(OSError):
        Path(runner._log_dir).rmdir()
    # The Runner takes the first accelerator it finds; the command line says which device.
    trainee.to(device)
    trainee.spread()
    return runner


def _schedule(training: Training) -> list[dict[str, Any]] | None:
    if training.schedule == "constant":
        return None
    # Step by step from the learning rate to 0, reached at the last step.
    return [dict(type="CosineAnnealingLR", T_max=training.epochs, by_epoch=True, convert_to_iter_based=True)]


class _Runner(Runner):
    """The Runner of mmengine, logging errors alone, to stderr, and asking no compilers who they are.

    Its log files would be more with each time that a training goes on; what is worth keeping is in `training.json`.
    """

    def build_logger(self, *arguments: Any, **named: Any) -> MMLogger:
        logger = MMLogger.get_instance(self.experiment_name)
        (handler,) = logger.handlers
        handler.setStream(sys.stderr)
        handler.setLevel(logging.ERROR)
        return logger

    def _log_env(self, env_cfg: dict) -> None:
        pass

    def dump_config(self) -> None:
        pass

    def load_or_resume(self) -> None:
        if self._resume and not self._has_loaded:  # type: ignore[has-type]
            go_on(self, Path(self._load_from), self.model.weights.device)
            self._has_loaded = True


def _forget(runner: Runner) -> None:
    """Have mmengine let go of what it keeps of every Runner for the process's life, by the name of its experiment."""
    for kept in (DefaultScope, MMLogger, MessageHub, Visualizer):
        kept._instance_dict.pop(runner.experiment_name, None)


@LOOPS.register_module()
class EpochsWithFewHooks(EpochBasedTrainLoop):
    """mmengine's loop over epochs, whose hooks hear of every n-th step and of an epoch's last one.

    Schedules take each step. The steps' losses are kept here, as hooks do not see them all.

    Args:
        runner: mmengine's.
        dataloader: of training batches.
        max_epochs: how many.
        every: n; with 1 it is mmengine's own loop.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader, max_epochs: int, every: int) -> None:
        super().__init__(runner, dataloader, max_epochs)
        self.every = every
        self.losses: list[Tensor] = []

    def run_epoch(self) -> None:
        """One epoch."""
        self.losses = []
        super().run_epoch()

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """One step."""
        heard = (idx + 1) % self.every == 0 or idx + 1 == len(self.dataloader)
        if heard:
            self.runner.call_hook("before_train_iter", batch_idx=idx, data_batch=data_batch)
        outputs = self.runner.model.train_step(data_batch, optim_wrapper=self.runner.optim_wrapper)
        self.losses.append(outputs["loss"])
        if heard:
            self.runner.call_hook("after_train_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs)
        else:
            for schedule in self.runner.param_schedulers or ():
                if not schedule.by_epoch:
                    schedule.step()
        self._iter += 1


@LOOPS.register_module()
class ScoreLoop(ValLoop):
    """Validation of a head: its windows scored as any others are."""

    def run(self) -> dict[str, float | None]:
        """Score, and tell the hooks."""
        runner, data = self.runner, self.dataloader.dataset
        runner.call_hook("before_val")
        runner.call_hook("before_val_epoch")
        found = score_windows(runner.model.model, data, device=runner.model.weights.device)
        metrics = {"val/mAP": lam_map(found, data.labels.cpu().numpy()).map}
        runner.call_hook("after_val_epoch", metrics=metrics)
        runner.call_hook("after_val")
        return metrics


class _Trainee(nn.Module):
    """A model as mmengine's loops want one: `train_step` and `val_step`."""

    weights: Tensor

    def __init__(self, model: nn.Module, weights: Tensor, device: torch.device, precision: str) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("weights", weights, persistent=False)
        self._device = device
        self._mixed = precision == "bfloat16"
        self._judge: Callable[[Any], Tensor] = functools.partial(logits, model)

    def spread(self) -> None:
        """Have the gradients of all processes averaged, where there are several."""
        if processes.count() > 1:
            own = None if self._device.type == "cpu" else [self._device]
            wrapped = DistributedDataParallel(_Logits(self.model), device_ids=own, find_unused_parameters=True)
            self._judge = wrapped.__call__  # the module itself would be saved a second time

    def train_step(self, batch: tuple[Window | PixelWindow, Tensor], optim_wrapper: Any) -> dict[str, Tensor]:
        window, labels = batch
        with torch.autocast(self._device.type, torch.bfloat16) if self._mixed else nullcontext():
            found = self._judge(window.to(self._device))
        loss = cross_entropy(found.float(), labels.to(self._device), self.weights)
        # What update_params does where gradients are not summed over steps, less a division by 1.
        optim_wrapper.backward(loss)
        optim_wrapper.step()
        optim_wrapper.zero_grad()
        return {"loss": loss.detach()}

    def val_step(self, batch: tuple[PixelWindow, Tensor]) -> list[dict[str, np.ndarray]]:
        window, labels = batch
        found = probabilities(logits(self.model, window.to(self._device)))
        return [{"scores": found, "labels": labels.numpy()}]


class _Logits(nn.Module):
    """`logits` as a module's forward, which is what DistributedDataParallel looks after."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> Tensor:
        return logits(self.model, batch)


class _LamMap(BaseMetric):
    """LAM mAP of all batches of the validation split, of whatever process."""

    default_prefix = "val"

    def evaluate(self, size: int) -> dict[str, Any]:
        # mmengine's own gathering wants results a window, and cuts what several processes have to equal lengths.
        batches = [batch for of_process in all_gather_object(self.results) for batch in of_process]
        found = {f"{self.prefix}/{name}": value for name, value in self.compute_metrics(batches).items()}
        self.results.clear()
        return found

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

    def __init__(self, seed: int, data: WindowData | PixelData, every: int) -> None:
        self.seed = seed
        self.data = data
        self.every = every
        self.best_state: dict[str, Tensor] = {}
        self.best_map = -1.0
        self.best_epoch = 0
        self.history: list[dict[str, float]] = []

    def before_train_epoch(self, runner: Runner) -> None:
        # Dropout of an epoch depends on the epoch alone, so that it is the same after a resume.
        torch.manual_seed(self.seed * 100_003 + runner.epoch)
        if isinstance(self.data, PixelData):
            self.data.start_epoch(self.seed, runner.epoch)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        val_map = float((metrics or {})["val/mAP"])
        loss = float(torch.stack(runner.train_loop.losses).mean())
        self.history.append(dict(epoch=runner.epoch, loss=loss, val_mAP=val_map))
        if val_map > self.best_map:
            self.best_map, self.best_epoch = val_map, runner.epoch
            self.best_state = {
                key: value.detach().cpu().clone() for key, value in runner.model.model.state_dict().items()
            }
        stop = max(all_gather_object(interrupts.requested()))  # of several processes all stop, or none
        if (runner.epoch % self.every == 0 or stop) and runner.epoch < runner.max_epochs and processes.rank() == 0:
            folder = Path(runner.work_dir)
            with replacing(folder / CHECKPOINT) as temporary:
                meta = dict(epoch=runner.epoch, iter=runner.iter)
                runner.save_checkpoint(str(folder), temporary.name, meta=meta)
        if stop and runner.epoch < runner.max_epochs:
            processes.meet()
            raise interrupts.Stopped(stop)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint["message_hub"] = dict(log_scalars={}, runtime_info={}, resumed_keys={})
        checkpoint["best"] = dict(state=self.best_state, mAP=self.best_map, epoch=self.best_epoch, history=self.history)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        best, own = checkpoint["best"], runner.model.model.state_dict()
        check_alike(best["state"], own if best["state"] else {}, "best.state")
        check_alike([best["mAP"], best["epoch"]], [0.0, 0], "best", moving=True)
        each = dict(epoch=0, loss=0.0, val_mAP=0.0)
        check_alike(best["history"], [each] * len(best["history"]), "best.history", moving=True)
        self.best_state, self.best_map, self.best_epoch = best["state"], best["mAP"], best["epoch"]
        self.history = best["history"]


class _ShowProgress(Hook):
    """Passes on how many steps are done, whenever a hook hears of one."""

    def __init__(self, keep: _KeepBest, advance: Callable[[int, str], None]) -> None:
        self.keep = keep
        self.advance = advance
        self._told = 0

    def before_train(self, runner: Runner) -> None:
        self._tell(runner.iter, "")

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._tell(runner.iter + 1, f"val mAP {100 * self.keep.best_map:.2f}" if self.keep.best_state else "")

    def _tell(self, done: int, note: str) -> None:
        self.advance(done - self._told, note)
        self._told = done


def _loader(
    data: WindowData | PixelData,
    batch_size: int,
    device: torch.device,
    *,
    seed: int,
    block: int = 1,
    shuffle: bool = False,
) -> DataLoader:
    if isinstance(data, WindowData):
        batches = _Batches(len(data), batch_size, seed) if shuffle else range(0)  # validation goes by no loader
        return _GatheringLoader(data.on(device), batch_size=None, sampler=batches)
    in_blocks = (
        BlockSampler(data.tracks, block, seed)
        if shuffle
        else DefaultSampler(data, shuffle=False, seed=seed, round_up=False)
    )
    return AheadLoader(data, batch_size=batch_size, sampler=in_blocks, collate_fn=_as_it_is)


class _GatheringLoader(DataLoader):
    """A DataLoader of which nothing is left but the gather; torch's own would take a twentieth of a small step."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # torch's draws a seed for worker processes here, and an epoch's dropout has always been drawn after that.
        torch.empty((), dtype=torch.int64).random_()
        return (self.dataset[places] for places in self.sampler)


class _Batches(Sampler):
    """The windows of an epoch in the order of mmengine's DefaultSampler, cut into batches: nothing is done by window.

    Args:
        count: M windows.
        batch_size: windows a batch; the last one of an epoch has what is left.
        seed: with the epoch, of the order.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self._count = count
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return -(-self._count // self._batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(self._count, generator=torch.Generator().manual_seed(self._seed + self._epoch))
        return iter(order.split(self._batch_size))

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes; mmengine's loop does."""
        self._epoch = epoch


def _as_it_is(batch: Any) -> Any:
    return batch
