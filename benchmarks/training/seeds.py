"""One row's trainings, each trained and scored: one after another, or side by side in processes of one core each."""

from __future__ import annotations

import multiprocessing
import pickle
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.config.recipe import Training
from benchmarks.features.windows import WindowData
from benchmarks.pixels.windows import PixelData
from benchmarks.scoring.predict import score_windows
from benchmarks.system import interrupts, processes
from benchmarks.system.locks import NAME, locked
from benchmarks.system.progress import Progress
from benchmarks.system.shortage import line_of
from benchmarks.training.train import on_one_thread, threads_for, train, weights_file
from registry import HEADS, UserError, load_plugins
from zoo.model import read_model
from zoo.weights import read_head

_BETWEEN_WORDS = 0.5  # seconds between two messages of progress

# A process takes five seconds to start, a step of a head on features five milliseconds or more.
_FEW_STEPS = 500


@dataclass(frozen=True)
class TrainingJob:
    """What the trainings of a row share.

    Attributes:
        head_config: `type` and arguments of the head, `feature_dim` and `window` among them.
        backbone_config: of a backbone that trains too, else None.
        training: epochs, batch size, learning rate.
        data: labelled training windows.
        validation: labelled validation windows.
        weights: (2,) class weights.
        to_score: (split, view) -> windows to score.
        folder: receives `seed<N>/`.
        device: where to train.
        name: of the row.
    """

    head_config: Mapping[str, Any]
    backbone_config: Mapping[str, Any] | None
    training: Training
    data: WindowData | PixelData
    validation: WindowData | PixelData
    weights: Tensor
    to_score: Mapping[tuple[str, str], WindowData | PixelData]
    folder: Path
    device: str
    name: str


@dataclass(frozen=True)
class SeedResult:
    """One seed's: the report of its training, scores (M,) by split and view, and the seconds that scoring took."""

    report: dict[str, Any]
    scores: dict[tuple[str, str], np.ndarray]
    seconds: float


def run_seed(job: TrainingJob, seed: int, advance: Callable[[int, str], None] | None = None) -> SeedResult:
    """Train one seed, or find it trained, and score all windows."""
    place = job.folder / f"seed{seed}"
    report = train(
        job.head_config,
        job.training,
        seed,
        job.data,
        job.validation,
        job.weights,
        place,
        backbone_config=job.backbone_config,
        device=job.device,
        name=job.name,
        advance=advance,
    )
    if processes.rank() > 0:
        return SeedResult(report, {}, 0.0)
    started = time.perf_counter()
    file = weights_file(place, job.backbone_config)
    model = (read_head(file)[0] if job.backbone_config is None else read_model(file)).to(job.device)
    with threads_for(model, job.device):
        found = {key: score_windows(model, windows, device=job.device) for key, windows in job.to_score.items()}
    return SeedResult(report, found, time.perf_counter() - started)


def run_seeds(
    job: TrainingJob, seeds: Sequence[int], *, workers: int = 1, plugins: Sequence[str] = ()
) -> list[SeedResult]:
    """Run each seed, in order or side by side; what comes out is the same, to the bit.

    Only what trains on one thread is worth running side by side, and only what does not is left to use all of them.

    Args:
        job: what the seeds share.
        seeds: of the trainings.
        workers: processes at once.
        plugins: for the processes to load.

    Raises:
        UserError: of a training, or a process was killed. What the others have done is kept.
    """
    with locked(job.folder / NAME, str(job.folder), wait=True) if processes.rank() == 0 else nullcontext():
        fresh = [seed for seed in seeds if not (job.folder / f"seed{seed}" / "training.json").exists()]
        workers = min(workers, len(fresh if job.backbone_config is None else seeds))  # scoring pixels is work too
        steps = -(-len(job.data) // job.training.batch_size) * job.training.epochs
        if workers < 2 or torch.device(job.device).type != "cpu" or not _side_by_side(job, steps):
            return [run_seed(job, seed) for seed in seeds]
        what = f"train {job.name}, {workers} seeds side by side"
        with Progress(what, steps * len(fresh), "step") as progress, interrupts.finishing():
            return _in_processes(job, seeds, workers, plugins, progress)


def _in_processes(
    job: TrainingJob, seeds: Sequence[int], workers: int, plugins: Sequence[str], progress: Progress
) -> list[SeedResult]:
    payload = pickle.dumps(job)
    outcomes: dict[int, SeedResult] = {}
    waiting = list(seeds)
    running: dict[Connection, tuple[Any, int]] = {}
    context = multiprocessing.get_context("spawn")  # a fork would inherit locks of threads that it does not have
    stop, tell = context.Pipe(duplex=False)
    told = False
    try:
        with interrupts.starting_workers():
            for _ in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_worker, args=(payload, theirs, stop, tuple(plugins)), daemon=True)
                process.start()
                theirs.close()
                running[ours] = process, waiting[0]
                ours.send(waiting.pop(0))
        while running:
            if interrupts.requested() and not told:
                waiting.clear()
                tell.send("stop")
                told = True
            for ready in wait(list(running), timeout=_BETWEEN_WORDS):
                assert isinstance(ready, Connection)
                process, seed = running[ready]
                try:
                    kind, value = ready.recv()
                except EOFError:
                    process.join()
                    raise UserError(
                        f"{job.name}: the process that trained seed {seed} ended with exit code {process.exitcode}"
                        " (killed, or out of memory); run again, it goes on where it was"
                    ) from None
                if kind == "progress":
                    progress.advance(*value)
                    continue
                if kind == "mistake":
                    raise UserError(value)
                if kind == "crash":
                    raise RuntimeError(f"the training of seed {seed} failed:\n{value}")
                if kind == "done":
                    outcomes[seed] = value
                    ready.send(waiting[0] if waiting else None)
                if kind == "done" and waiting:
                    running[ready] = process, waiting.pop(0)
                else:
                    process.join()
                    del running[ready]
    finally:
        for process, _ in running.values():
            process.kill()  # what a training has written is whole
        for process, _ in running.values():
            process.join()
        stop.close()
        tell.close()
    interrupts.check()
    return [outcomes[seed] for seed in seeds]


def _side_by_side(job: TrainingJob, steps: int) -> bool:
    """Whether a training takes one thread and more time than a process takes to start."""
    if job.backbone_config is not None:
        return True
    if steps < _FEW_STEPS:
        return False
    with torch.device("meta"):
        head = HEADS.build(job.head_config)
    return on_one_thread(head) and not hasattr(head, "fit")


def _worker(payload: bytes, connection: Connection, stop: Connection, plugins: Sequence[str]) -> None:
    """Run the seeds that come through a connection until None does."""
    interrupts.follow(stop)
    torch.set_num_threads(1)
    try:
        load_plugins(plugins)
        job: TrainingJob = pickle.loads(payload)
        while (seed := connection.recv()) is not None:
            interrupts.check()
            connection.send(("done", run_seed(job, seed, _Words(connection))))
    except interrupts.Stopped:
        connection.send(("stopped", None))
    except UserError as error:
        connection.send(("mistake", str(error)))
    except Exception as error:
        line = line_of(error)
        connection.send(("crash", traceback.format_exc()) if line is None else ("mistake", line))


class _Words:
    """Progress, sent now and then."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._count = 0
        self._last = time.monotonic()

    def __call__(self, count: int, note: str) -> None:
        self._count += count
        if time.monotonic() - self._last >= _BETWEEN_WORDS:
            self._connection.send(("progress", (self._count, note)))
            self._count, self._last = 0, time.monotonic()
