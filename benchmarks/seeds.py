"""One row's trainings, each trained and scored: one after another, or side by side in processes of one core each."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import gpus
from benchmarks.config import Training
from benchmarks.pixels import PixelData
from benchmarks.predict import WindowData, scores
from benchmarks.progress import Progress
from benchmarks.train import on_one_thread, threads_for, train, weights_file
from registry import HEADS, UserError, load_plugins
from zoo.model import read_model
from zoo.weights import read_head

_BETWEEN_WORDS = 0.5  # seconds between two messages of progress

# A process takes five seconds to start, a step of a head on features five milliseconds or more.
_FEW_STEPS = 500


@dataclass(frozen=True)
class Job:
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
class Outcome:
    """One seed's: the report of its training, scores (M,) by split and view, and the seconds that scoring took."""

    report: dict[str, Any]
    scores: dict[tuple[str, str], np.ndarray]
    seconds: float


def run_seed(job: Job, seed: int, advance: Callable[[int, str], None] | None = None) -> Outcome:
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
    if gpus.rank() > 0:
        return Outcome(report, {}, 0.0)
    started = time.perf_counter()
    file = weights_file(place, job.backbone_config)
    model = (read_head(file)[0] if job.backbone_config is None else read_model(file)).to(job.device)
    with threads_for(model, job.device):
        found = {key: scores(model, windows, device=job.device) for key, windows in job.to_score.items()}
    return Outcome(report, found, time.perf_counter() - started)


def run_seeds(job: Job, seeds: Sequence[int], *, workers: int = 1, plugins: Sequence[str] = ()) -> list[Outcome]:
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
    fresh = [seed for seed in seeds if not (job.folder / f"seed{seed}" / "training.json").exists()]
    workers = min(workers, len(fresh if job.backbone_config is None else seeds))  # scoring pixels is work too
    steps = -(-len(job.data) // job.training.batch_size) * job.training.epochs
    if workers < 2 or torch.device(job.device).type != "cpu" or not _side_by_side(job, steps):
        return [run_seed(job, seed) for seed in seeds]
    payload = pickle.dumps(job)
    outcomes: dict[int, Outcome] = {}
    waiting = list(seeds)
    running: dict[Connection, tuple[Any, int]] = {}
    context = multiprocessing.get_context("spawn")  # a fork would inherit locks of threads that it does not have
    try:
        with Progress(f"train {job.name}, {workers} seeds side by side", steps * len(fresh), "step") as progress:
            for _ in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_worker, args=(payload, theirs, tuple(plugins)), daemon=True)
                process.start()
                theirs.close()
                running[ours] = process, waiting[0]
                ours.send(waiting.pop(0))
            while running:
                for ready in wait(list(running)):
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
                    outcomes[seed] = value
                    if waiting:
                        running[ready] = process, waiting[0]
                        ready.send(waiting.pop(0))
                    else:
                        ready.send(None)
                        process.join()
                        del running[ready]
    finally:
        for process, _ in running.values():
            process.terminate()  # what a training has written is whole
        for process, _ in running.values():
            process.join()
    return [outcomes[seed] for seed in seeds]


def _side_by_side(job: Job, steps: int) -> bool:
    """Whether a training takes one thread and more time than a process takes to start."""
    if job.backbone_config is not None:
        return True
    if steps < _FEW_STEPS:
        return False
    with torch.device("meta"):
        head = HEADS.build(job.head_config)
    return on_one_thread(head) and not hasattr(head, "fit")


def _worker(payload: bytes, connection: Connection, plugins: Sequence[str]) -> None:
    """Run the seeds that come through a connection until None does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        load_plugins(plugins)
        job: Job = pickle.loads(payload)
        while (seed := connection.recv()) is not None:
            connection.send(("done", run_seed(job, seed, _Words(connection))))
    except UserError as error:
        connection.send(("mistake", str(error)))
    except Exception:
        connection.send(("crash", traceback.format_exc()))


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


def _end_with_parent() -> None:
    """A parent that is killed cannot end its processes; they do so themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
