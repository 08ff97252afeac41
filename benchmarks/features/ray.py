"""One extraction by several processes: torchrun's share of it, or the machines of a Ray cluster.

Nothing is sent between processes but the plan. Each writes whole clips of its own into the store, which they all see.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.features.extract import Extraction, accounted, extract
from benchmarks.features.shard import by_shard
from benchmarks.features.store import FeatureStore
from benchmarks.rows.provenance import cores
from benchmarks.system import interrupts
from benchmarks.system.progress import Progress
from registry import BACKBONES, UserError, load_plugins

HOME = Path(__file__).resolve().parents[2]


def torchrun_share() -> tuple[int, int]:
    """This process's number and how many there are, as torchrun says in the environment; (0, 1) outside it.

    On a CPU the cores are split among the processes of a machine.
    """
    import torch

    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return 0, 1
    torch.set_num_threads(max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def extract_with_ray(
    part: Mapping[str, Any],
    plugins: Sequence[str],
    root: Path,
    images: Mapping[str, Sequence[str]],
    store: FeatureStore,
    *,
    batch_size: int | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    skip_damaged: bool = False,
) -> Extraction:
    """`extract` on a Ray cluster: RAY_ADDRESS's, or one of this machine alone. One actor a GPU, or a CPU core.

    Clips go to whichever actor is free. An actor that is lost, or its whole machine, is replaced, and its clip goes on
    from the batches it kept. All machines see `root`, the store and the weights under the same paths.

    Args:
        part: configuration of the backbone, which every actor builds.
        plugins: what the actors load before.
        root: the images' root.
        images: view -> image paths relative to `root`.
        store: receives the features.
        batch_size: images a forward pass.
        device: ``cuda`` for an actor a GPU, ``cpu`` for an actor a core.
        dtype: what the encoder computes in.
        skip_damaged: leave damaged crops out.

    Raises:
        UserError: Ray is not installed, or what `extract` raises.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy, DataContext, from_items
    except ImportError as error:
        raise UserError("--engine ray needs Ray: pip install '.[ray]'") from error

    clips: dict[str, dict[str, list[str]]] = {}
    for view, of_view in images.items():
        for shard, group in by_shard(of_view).items():
            clips.setdefault(shard, {})[view] = group
    largest_first = sorted(clips, key=lambda name: (-sum(map(len, clips[name].values())), name))
    items = [{"images": json.dumps(clips[name])} for name in largest_first]

    started_here = not ray.is_initialized()
    if started_here:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        paths = os.pathsep.join([str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])])
        ray.init(
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
        )
        interrupts.heed_again()  # else it would end by Ray's own words
    with contextlib.ExitStack() as closing:
        closing.enter_context(contextlib.redirect_stdout(sys.stderr))  # Ray tells of lost actors there, to the end
        closing.callback(store.finish)
        if started_here:
            closing.callback(ray.shutdown)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        DataContext.get_current().enable_progress_bars = False
        resource = "GPU" if device.startswith("cuda") else "CPU"
        actors = min(max(1, int(ray.cluster_resources().get(resource, 0))), len(items))
        settings = dict(batch_size=batch_size, device=device, dtype=dtype, skip_damaged=skip_damaged)
        done = from_items(items, override_num_blocks=len(items)).map_batches(
            Worker,
            fn_constructor_args=[os.getcwd(), dict(part), list(plugins), str(root), str(store.folder), settings],  # noqa: PTH109
            batch_size=1,
            compute=ActorPoolStrategy(min_size=actors),
            num_cpus=1 if resource == "CPU" else None,
            num_gpus=1 if resource == "GPU" else None,
        )
        report = Extraction()
        with Progress("features", sum(map(len, images.values())), "image") as progress:
            for row in done.iter_rows():
                if row["error"]:
                    raise UserError(row["error"])
                report.encoded += row["encoded"]
                report.seconds += row["seconds"]
                progress.advance(row["encoded"])
    return accounted(store, images, report)


class Worker:
    """A Ray actor: builds the backbone once, and extracts clip after clip."""

    def __init__(
        self, here: str, part: dict[str, Any], plugins: list[str], root: str, store: str, settings: dict[str, Any]
    ) -> None:
        from benchmarks.features.extract import fingerprint_of

        os.chdir(here)  # relative paths mean what they mean to who started this
        load_plugins(plugins)
        self._backbone = BACKBONES.build(part).to(settings["device"])
        self._store = FeatureStore(Path(store), fingerprint_of(self._backbone, settings["dtype"]))
        self._root = Path(root)
        self._settings = settings

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Extract one clip: how many vectors it computed and how long that took, or the error's line."""
        encoded, seconds, error = 0, 0.0, ""
        try:
            images = json.loads(batch["images"][0])
            done = extract(self._backbone, self._root, images, self._store, manifest=False, **self._settings)
            encoded, seconds = done.encoded, done.seconds
        except UserError as problem:
            error = str(problem)
        return {"encoded": [encoded], "seconds": [seconds], "error": [error]}
