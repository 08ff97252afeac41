"""Train and score the seeds of a job, one after another or side by side in processes with one thread each."""

from __future__ import annotations

import math
import multiprocessing
import pickle
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import torch

from benchmarks.scoring.predict import score_windows
from benchmarks.system import interrupts, processes
from benchmarks.system.locks import NAME, locked
from benchmarks.system.progress import Progress
from benchmarks.system.shortage import shortage_message
from benchmarks.training.job import REPORT, TrainingJob
from benchmarks.training.train import has_closed_form, on_one_thread, threads_for, train
from registry import HEADS, UserError, load_plugins
from zoo.model import read_model
from zoo.weights import read_head

_REPORT_EVERY = 0.5  # seconds between two progress messages of a worker

# Fewer steps are not worth processes: starting them takes 5 s, a step of a head on features 5 ms or more.
_FEW_STEPS = 500


@dataclass(frozen=True)
class SeedResult:
    """One seed of a job.

    Attributes:
        report: of its training.
        scores: (split, view) -> (M,) P(looking).
        seconds: time to score.
    """

    report: dict[str, Any]
    scores: dict[tuple[str, str], np.ndarray]
    seconds: float


def run_seed(job: TrainingJob, seed: int, advance: Callable[[int, str], None] | None = None) -> SeedResult:
    """Train one seed, or reuse its finished training, and score all windows."""
    report = train(job, seed, advance)
    if processes.rank() > 0:
        return SeedResult(report, {}, 0.0)
    started = time.perf_counter()
    file = job.seed_folder(seed) / job.weights_name
    model = (read_head(file)[0] if job.backbone_config is None else read_model(file)).to(job.device)
    with threads_for(model, job.device):
        scores = {key: score_windows(model, windows, device=job.device) for key, windows in job.to_score.items()}
    return SeedResult(report, scores, time.perf_counter() - started)


def run_seeds(
    job: TrainingJob, seeds: Sequence[int], *, workers: int = 1, plugins: Sequence[str] = ()
) -> list[SeedResult]:
    """Run seeds one after another or side by side, with bit-identical results.

    Only models that train on one thread run side by side; larger ones use all threads themselves.

    Args:
        job: shared by the seeds.
        seeds: to train and score.
        workers: maximum number of processes.
        plugins: loaded by each process.

    Raises:
        UserError: a training failed, or a process was killed. Finished seeds are kept.
    """
    with locked(job.folder / NAME, str(job.folder), wait=True) if processes.rank() == 0 else nullcontext():
        fresh = [seed for seed in seeds if not (job.seed_folder(seed) / REPORT).exists()]
        workers = min(workers, len(fresh if job.backbone_config is None else seeds))  # scoring pixels is work too
        if workers < 2 or torch.device(job.device).type != "cpu" or not _side_by_side(job, len(fresh), workers):
            return [run_seed(job, seed) for seed in seeds]
        what = f"train {job.name}, {workers} seeds side by side"
        with Progress(what, job.steps * len(fresh), "step") as progress, interrupts.deferred():
            return _in_processes(job, seeds, workers, plugins, progress)


def _in_processes(
    job: TrainingJob, seeds: Sequence[int], workers: int, plugins: Sequence[str], progress: Progress
) -> list[SeedResult]:
    payload = pickle.dumps(job)
    results: dict[int, SeedResult] = {}
    waiting = list(seeds)
    running: dict[Connection, tuple[Any, int]] = {}
    context = multiprocessing.get_context("spawn")  # a fork would inherit locks held by threads that it does not have
    stop, send_stop = context.Pipe(duplex=False)
    stopping = False
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
            if interrupts.pending and not stopping:
                waiting.clear()
                send_stop.send("stop")
                stopping = True
            for ready in wait(list(running), timeout=_REPORT_EVERY):
                assert isinstance(ready, Connection)
                process, seed = running[ready]
                try:
                    kind, value = ready.recv()
                except EOFError:
                    process.join()
                    raise UserError(
                        f"{job.name}: the process that trained seed {seed} ended with exit code {process.exitcode}"
                        " (killed, or out of memory); run the same command again to resume"
                    ) from None
                if kind == "progress":
                    progress.advance(*value)
                    continue
                if kind == "mistake":
                    raise UserError(value)
                if kind == "crash":
                    raise RuntimeError(f"the training of seed {seed} failed:\n{value}")
                if kind == "done":
                    results[seed] = value
                    ready.send(waiting[0] if waiting else None)
                if kind == "done" and waiting:
                    running[ready] = process, waiting.pop(0)
                else:
                    process.join()
                    del running[ready]
    finally:
        for process, _ in running.values():
            process.kill()  # safe, because files appear complete or not at all
        for process, _ in running.values():
            process.join()
        stop.close()
        send_stop.close()
    interrupts.check()
    return [results[seed] for seed in seeds]


def _side_by_side(job: TrainingJob, fresh: int, workers: int) -> bool:
    """Whether a training uses one thread, and processes spare more time than they take to start."""
    if job.backbone_config is not None:
        return True
    if job.steps * (fresh - math.ceil(fresh / workers)) < _FEW_STEPS:
        return False
    with torch.device("meta"):
        head = HEADS.build(job.head_config)
    return on_one_thread(head) and not has_closed_form(head)


def _worker(payload: bytes, connection: Connection, stop: Connection, plugins: Sequence[str]) -> None:
    """Run the seeds that arrive through a connection, until None arrives."""
    interrupts.init_worker(stop)
    torch.set_num_threads(1)
    try:
        load_plugins(plugins)
        job: TrainingJob = pickle.loads(payload)
        while (seed := connection.recv()) is not None:
            interrupts.check()
            connection.send(("done", run_seed(job, seed, _ProgressSender(connection))))
    except interrupts.Stopped:
        connection.send(("stopped", None))
    except UserError as error:
        connection.send(("mistake", str(error)))
    except Exception as error:
        line = shortage_message(error)
        connection.send(("crash", traceback.format_exc()) if line is None else ("mistake", line))


class _ProgressSender:
    """Sends progress through a connection, at most every `_REPORT_EVERY` seconds."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._count = 0
        self._last = time.monotonic()

    def __call__(self, count: int, note: str) -> None:
        self._count += count
        if time.monotonic() - self._last >= _REPORT_EVERY:
            self._connection.send(("progress", (self._count, note)))
            self._count, self._last = 0, time.monotonic()
