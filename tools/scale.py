"""Arithmetic of extraction at scale: GPU hours, bytes, host cores, network, memory; and a simulation of preemption.

example:
  python -m tools.scale                 the tables of docs/scale.md
"""

from __future__ import annotations

import argparse
import heapq
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

FRAMES = (1_000_000, 10_000_000, 1_000_000_000)


@dataclass(frozen=True)
class Inputs:
    """What the tables are computed from.

    Attributes:
        flop: per image and view, of the backbone; see `flop_of_6b`.
        peak: FLOP/s of a GPU in bfloat16. 790e12 is what an H100-class GPU reaches on large matrices.
        share: of the peak that extraction reaches; the goal of `tools.speed.extract`.
        views: encoded per frame.
        crop_bytes: of a JPEG of a face; assumed.
        crops_per_core: decoded and resized per second; `python -m tools.speed host` measures it.
        row_bytes: of a feature vector in the store: 3,200 numbers in bfloat16, a path of 40 letters, and six.
        memory: bytes per frame that a process needs for its list of work; see `backlog_bytes`.
    """

    flop: float
    peak: float = 790e12
    share: float = 0.67
    views: int = 2
    crop_bytes: int = 10_000
    crops_per_core: float = 300.0
    row_bytes: int = 6_446
    memory: int = 190

    @property
    def rate(self) -> float:
        """Images per second and GPU, each view counted."""
        return self.share * self.peak / self.flop


@dataclass(frozen=True)
class Need:
    """What a number of frames needs.

    Attributes:
        frames: to encode.
        gpu_hours: of all GPUs together.
        features: bytes written.
        crops: bytes read.
        memory: bytes of one process for its list of work.
    """

    frames: int
    gpu_hours: float
    features: float
    crops: float
    memory: float


def need(frames: int, inputs: Inputs) -> Need:
    """Compute what a number of frames needs."""
    images = frames * inputs.views
    return Need(
        frames=frames,
        gpu_hours=images / inputs.rate / 3600,
        features=images * inputs.row_bytes,
        crops=frames * inputs.crop_bytes,
        memory=frames * inputs.memory,
    )


def cores_per_gpu(inputs: Inputs) -> float:
    """CPU cores that decode as fast as a GPU encodes; one decode serves all views."""
    return inputs.rate / inputs.views / inputs.crops_per_core


def network_per_gpu(inputs: Inputs) -> float:
    """Bytes per second and GPU: crops read, features written."""
    return inputs.rate / inputs.views * inputs.crop_bytes + inputs.rate * inputs.row_bytes


def flop_of_6b() -> float:
    """FLOP of InternViT-6B for one image, in matrix products."""
    import torch

    from backbones.internvit_network import InternViTNetwork
    from tools.speed.vit import FULL

    with torch.device("meta"):
        return InternViTNetwork(FULL).flops


def backlog_bytes(frames: int, folder: Path) -> float:
    """Measure the memory of a process's list of work, in bytes per frame of two views in clips of 1,000 frames."""
    from benchmarks.features.backlog import Backlog
    from benchmarks.features.store import FeatureStore

    store = FeatureStore(folder, {"weights": "none"})
    tracemalloc.start()
    try:
        images = [f"clip{number // 1000:06d}/track0/face_{number:012d}.jpg" for number in range(frames)]
        backlog = Backlog(store, {"original": images, "flipped": images}, skip_damaged=False)
        used, _ = tracemalloc.get_traced_memory()
        backlog.close()
        return used / frames
    finally:
        tracemalloc.stop()


@dataclass(frozen=True)
class Preemption:
    """Machines that are taken away and replaced.

    Attributes:
        workers: processes, one per GPU.
        hours_between: mean time between two losses of one worker; losses are exponential.
        resume: seconds from the loss until the replacement encodes its first batch.
        batch: seconds of a batch, which is lost.
        clip: seconds of a clip, after which a worker takes the next one.
    """

    workers: int
    hours_between: float
    resume: float
    batch: float
    clip: float

    @property
    def expected(self) -> float:
        """Overhead in first order: the time that a loss costs, by the time between two."""
        return (self.resume + self.batch / 2) / (3600 * self.hours_between)


def simulate(preemption: Preemption, clips: int, seed: int) -> float:
    """Simulate an extraction in which workers take clips from one list; returns its overhead.

    A lost worker's finished batches are in the journal, so that its clip resumes at the batch that was lost.

    Returns:
        Wall time by that of a run without losses, minus 1.
    """
    random = np.random.default_rng(seed)
    mean = 3600 * preemption.hours_between
    free = [(0.0, worker) for worker in range(preemption.workers)]
    loss = random.exponential(mean, preemption.workers)  # time of each worker's next loss
    for _ in range(clips):
        now, worker = heapq.heappop(free)
        left = preemption.clip
        while now + left > loss[worker]:
            worked = max(0.0, loss[worker] - now)
            left -= worked // preemption.batch * preemption.batch
            now = max(now, loss[worker]) + preemption.resume
            loss[worker] = now + random.exponential(mean)
        heapq.heappush(free, (now + left, worker))
    plain = -(-clips // preemption.workers) * preemption.clip
    return max(end for end, _ in free) / plain - 1


def tables() -> str:
    """Both tables of docs/scale.md."""
    inputs = Inputs(flop=flop_of_6b())
    rows: list[list[Any]] = []
    for frames in FRAMES:
        one = need(frames, inputs)
        rows.append(
            [
                f"{frames:,}",
                f"{one.gpu_hours:,.0f}",
                f"{one.gpu_hours / 8:,.1f}",
                f"{one.crops / 1e9:,.0f} GB",
                f"{one.features / 1e9:,.0f} GB",
                f"{one.memory / 1e9:,.1f} GB",
            ]
        )
    head = ["frames", "GPU hours", "hours on 8 GPUs", "crops read", "features written", "memory of a process"]
    text = tabulate(rows, head, tablefmt="github", disable_numparse=True, stralign="right")
    text += (
        f"\n\n- {inputs.flop / 1e12:.2f} TFLOP per image, {inputs.rate:.1f} images per second and GPU, "
        f"{cores_per_gpu(inputs):.2f} cores and {network_per_gpu(inputs) / 1e6:.2f} MB per second for each GPU.\n\n"
    )
    return text + preemption_table()


def preemption_table() -> str:
    """Overhead by the mean time between two losses of a worker: in first order, and simulated."""
    rows = []
    for hours in (24.0, 6.0, 1.0, 0.25):
        case = Preemption(workers=64, hours_between=hours, resume=180, batch=1.5, clip=60)
        overheads = [simulate(case, clips=64 * 400, seed=seed) for seed in range(5)]
        rows.append([f"{hours:g}", f"{case.expected:.2%}", f"{np.mean(overheads):.2%}"])
    head = ["hours between two losses of a worker", "in first order", "simulated"]
    return tabulate(rows, head, tablefmt="github", disable_numparse=True, stralign="right")


def main() -> None:
    """Print the tables."""
    argparse.ArgumentParser(
        prog="python -m tools.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(tables())


if __name__ == "__main__":
    main()
