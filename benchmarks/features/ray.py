"""Extraction by several processes, under torchrun or on a Ray cluster.

The processes exchange no features. Each writes its clips into the shared store.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.features.encoding import Encoding
from benchmarks.features.extract import (
    DEFAULT_OPTIONS,
    Extraction,
    ExtractOptions,
    encoding_of,
    extract,
    fingerprint_of,
)
from benchmarks.features.shard_files import by_shard
from benchmarks.features.store import FeatureStore
from benchmarks.system import interrupts
from benchmarks.system.launch import launch, own_cores
from benchmarks.system.progress import Progress
from registry import BACKBONES, UserError, load_plugins

HOME = Path(__file__).resolve().parents[2]


def torchrun_share() -> tuple[int, int]:
    """Rank and number of processes under torchrun; (0, 1) without it.

    Also limits torch's threads to the process's share of the cores.
    """
    started = launch()
    if started.count > 1:
        torch.set_num_threads(own_cores())
    return started.rank, started.count


def cluster_device(name: str | None) -> str:
    """The device of the actors for `--device`: `cuda` if any machine of the cluster has a GPU, else `cpu`.

    Connects to the cluster; this machine may have no GPU itself.

    Raises:
        UserError: Ray is not installed, the cluster has no GPU, or the device is neither `cuda` nor `cpu`.
    """
    if name not in (None, "cpu", "cuda"):
        raise UserError(f"--device {name}: with --engine ray it must be cpu, or cuda for any free GPU of the cluster")
    ray = _import_ray()
    if not ray.is_initialized():
        _start_ray()
    found = ray.cluster_resources().get("GPU", 0) >= 1
    if name == "cuda" and not found:
        raise UserError("--device cuda: no machine of the Ray cluster has a GPU; leave it out to use the CPUs")
    return name or ("cuda" if found else "cpu")


def extract_with_ray(
    config: Mapping[str, Any],
    root: Path,
    images: Mapping[str, Sequence[str]],
    store: FeatureStore,
    options: ExtractOptions = DEFAULT_OPTIONS,
) -> Extraction:
    """`extract` on the Ray cluster at RAY_ADDRESS, else on a local one, with one actor per GPU or CPU core.

    Each clip goes to a free actor. A lost actor is replaced, and its clip resumes from the finished batches. All
    machines must see the images, the store and the weights under the same paths.

    Args:
        config: of the backbone.
        root: folder of the images.
        images: view -> image paths relative to `root`.
        store: receives the features.
        options: `device` is `cuda` for one actor per GPU, `cpu` for one per core; `share` does not apply.

    Raises:
        UserError: Ray is not installed, or an error of `extract`.
    """
    ray = _import_ray()
    from ray.data import ActorPoolStrategy, DataContext, from_items

    items = _largest_first(images)
    started_here = not ray.is_initialized()
    if started_here:
        _start_ray()
    with contextlib.ExitStack() as closing:
        closing.enter_context(contextlib.redirect_stdout(sys.stderr))  # Ray prints lost actors to stdout
        closing.callback(store.finish)
        if started_here:
            closing.callback(ray.shutdown)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        DataContext.get_current().enable_progress_bars = False
        on_gpu = options.device.startswith("cuda")
        actors = min(max(1, int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 0))), len(items))
        decoders = _cores_of_a_gpu(ray.nodes()) if on_gpu else None
        of_actor = replace(options, share=(0, 1), update_manifest=False, cores=decoders)
        done = from_items(items, override_num_blocks=len(items)).map_batches(
            Worker,
            fn_constructor_args=[os.getcwd(), dict(config), str(root), str(store.folder), of_actor],  # noqa: PTH109
            batch_size=1,
            compute=ActorPoolStrategy(min_size=actors),
            num_cpus=None if on_gpu else 1,
            num_gpus=1 if on_gpu else None,
        )
        report = Extraction()
        with Progress("features", sum(map(len, images.values())), "image") as progress:
            for row in done.iter_rows():
                if row["error"]:
                    raise UserError(row["error"])
                report.encoded += row["encoded"]
                report.seconds += row["seconds"]
                progress.advance(row["encoded"])
    report.complete(store, images)
    return report


def _largest_first(images: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """One item per clip, the largest first: its images by view, as JSON."""
    clips: dict[str, dict[str, list[str]]] = {}
    for view, of_view in images.items():
        for shard, group in by_shard(of_view).items():
            clips.setdefault(shard, {})[view] = group
    names = sorted(clips, key=lambda name: (-sum(map(len, clips[name].values())), name))
    return [{"images": json.dumps(clips[name])} for name in names]


def _cores_of_a_gpu(nodes: Sequence[Mapping[str, Any]]) -> int:
    """CPU cores of the cluster's machines for each of their GPUs, on the machine with the fewest."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    return max(1, min((int(each.get("CPU", 1) // each["GPU"]) for each in alive if each.get("GPU", 0) >= 1), default=1))


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("--engine ray needs Ray: pip install '.[ray]'") from error
    return ray


def _start_ray() -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    paths = os.pathsep.join([str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    interrupts.restore_handlers()  # Ray replaces the signal handlers


class Worker:
    """A Ray actor. It builds the backbone and its encoder once, and extracts clip after clip."""

    def __init__(self, folder: str, config: dict[str, Any], root: str, store: str, options: ExtractOptions) -> None:
        os.chdir(folder)  # relative paths are relative to the command's working directory
        load_plugins(options.plugins)
        backbone = BACKBONES.build(config).to(options.device)
        self._encode: Encoding = encoding_of(backbone, options)
        self._store = FeatureStore(Path(store), fingerprint_of(backbone, options.dtype))
        self._root = Path(root)
        self._options = options

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Extract one clip; returns the features computed and the time, or the message of an error."""
        encoded, seconds, error = 0, 0.0, ""
        try:
            done = extract(self._encode, self._root, json.loads(batch["images"][0]), self._store, self._options)
            encoded, seconds = done.encoded, done.seconds
        except UserError as problem:
            error = str(problem)
        return {"encoded": [encoded], "seconds": [seconds], "error": [error]}
