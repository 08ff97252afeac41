"""The GPU's side of extraction on a pretended GPU: memory that runs out at each allocation, events, threads, Ray."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.features import encoding, loops, ray
from benchmarks.features.extract import ExtractOptions, encoding_of, extract
from benchmarks.features.store import FeatureStore
from benchmarks.system.shortage import is_out_of_memory
from registry import BACKBONES, UserError
from tests.benchmarks.features.extracting import SLOW, make_crops
from tests.conftest import HOME
from tests.pretended import Event, pretended_gpu

ON_GPU = ExtractOptions(device="cuda", batch_size=8)


@pytest.fixture
def crops(tmp_path: Path) -> list[str]:
    return make_crops(tmp_path / "images", {"a": 11, "b": 3})


@pytest.fixture(autouse=True)
def _no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "measured_flops", lambda device: 1e12)


def run(tmp_path: Path, images: list[str], name: str, options: ExtractOptions = ON_GPU) -> int:
    backbone = BACKBONES.build({"type": "slow_means"})
    store = FeatureStore(tmp_path / name, backbone.fingerprint())
    return extract(backbone, tmp_path / "images", {"original": images}, store, options).encoded


def features(store: Path, images: list[str]) -> torch.Tensor:
    """Read a store; bits may depend on the size of a batch, as on a GPU."""
    return FeatureStore(store, BACKBONES.build({"type": "slow_means"}).fingerprint()).read("original", images)


class Full:
    """Runs out of memory once, at an allocation with a number, counted from the first batch on."""

    def __init__(self, number: int) -> None:
        self.number, self.seen = number, []

    def __call__(self, name: str) -> None:
        if self.seen or name == "pin_memory":  # before, the weights were moved
            self.seen.append(name)
        if len(self.seen) - 1 == self.number >= 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def test_memory_that_runs_out_at_each_allocation(
    crops: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pinning, upload, and the pinned copy on the host: the features are the same whichever fails."""
    assert run(tmp_path, crops, "cpu", ExtractOptions()) == 14
    counting = Full(-1)
    with pretended_gpu(monkeypatch, counting):
        assert run(tmp_path, crops, "whole") == 14
    assert {"pin_memory", "to", "empty"} <= {*counting.seen}
    for number in range(len(counting.seen)):
        with pretended_gpu(monkeypatch, Full(number)):
            assert run(tmp_path, crops, f"at{number}") == 14
        found, expected = features(tmp_path / f"at{number}", crops), features(tmp_path / "cpu", crops)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_host_memory_that_runs_out(crops: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = np.stack

    def small(arrays: Any, *more: Any, **named: Any) -> np.ndarray:
        if len(arrays) > 4:
            raise MemoryError
        return stack(arrays, *more, **named)

    monkeypatch.setattr(np, "stack", small)
    assert run(tmp_path, crops, "cpu", ExtractOptions(batch_size=8)) == 14
    with pretended_gpu(monkeypatch):
        assert run(tmp_path, crops, "gpu") == 14


WORKSPACES = (
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)


@pytest.mark.parametrize("message", WORKSPACES)
def test_workspaces_that_do_not_fit(message: str) -> None:
    """In the search for the batch size, and in a batch."""
    assert is_out_of_memory(RuntimeError(message))

    class Small:
        preprocessing = SimpleNamespace(size=2)

        def encoder(self, device: torch.device, dtype: str | None) -> Callable[[torch.Tensor], torch.Tensor]:
            return self.encode

        def encode(self, pixels: torch.Tensor) -> torch.Tensor:
            if len(pixels) > 5:
                raise RuntimeError(message)
            return pixels[:, 0, 0, :1].float()

    small: Any = Small()
    assert encoding.find_batch_size(small, torch.device("cpu"), None) == 4
    crops = np.arange(9, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2).repeat(3, 3)
    assert encoding.Encoding(small, torch.device("cpu"), None, 8)(list(crops)).flatten().tolist() == [*range(9)]


def test_other_errors_of_the_search_are_not_hidden() -> None:
    def encode(pixels: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("an illegal memory access was encountered")

    broken: Any = SimpleNamespace(preprocessing=SimpleNamespace(size=2), encoder=lambda device, dtype: encode)
    with pytest.raises(RuntimeError, match="illegal"):
        encoding.find_batch_size(broken, torch.device("cpu"), None)


def test_the_writer_sleeps_until_features_are_there(
    crops: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pretended_gpu(monkeypatch):
        run(tmp_path, crops, "gpu")
    assert Event.made and all(each == {"blocking": True} for each in Event.made)


def test_decoding_threads_are_this_process_share_of_the_cores(
    crops: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 cores in the machine, 24 of them for this job, four processes: six each."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {*range(24)}, raising=False)
    for name, value in {"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    sizes, pool = [], loops.ThreadPoolExecutor

    def counted(workers: int, **more: Any) -> Any:
        sizes.append(workers)
        return pool(workers, **more)

    monkeypatch.setattr(loops, "ThreadPoolExecutor", counted)
    with pretended_gpu(monkeypatch):
        run(tmp_path, crops, "gpu")
        run(tmp_path, crops, "given", ExtractOptions(device="cuda", batch_size=8, cores=3))
    assert sizes == [6, 1, 3, 1]  # decoders and the writer


# -- Ray ----------------------------------------------------------------------------------------------------------


def test_an_actor_builds_its_encoder_once(crops: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all of its clips; on a GPU each would be compiled, recorded and measured again."""
    backbone = BACKBONES.build({"type": "slow_means"})
    built, encoder = [], type(backbone).encoder

    def counted(self: Any, *arguments: Any) -> Any:
        built.append(arguments)
        return encoder(self, *arguments)

    monkeypatch.setattr(type(backbone), "encoder", counted)
    worker = ray.Worker(
        str(HOME), {"type": "slow_means"}, str(tmp_path / "images"), str(tmp_path / "store"),
        ExtractOptions(plugins=[str(SLOW)]),
    )  # fmt: skip
    for clip in ("a", "b"):
        images = [image for image in crops if image.startswith(clip)]
        done = worker({"images": [json.dumps({"original": images})]})
        assert done["encoded"] == [len(images)] and done["error"] == [""]
    assert len(built) == 1


def test_an_encoding_serves_several_extractions(crops: list[str], tmp_path: Path) -> None:
    backbone = BACKBONES.build({"type": "slow_means"})
    options = ExtractOptions(batch_size=4)
    encode = encoding_of(backbone, options)
    for name, images in (("one", crops[:5]), ("two", crops[5:])):
        store = FeatureStore(tmp_path / name, backbone.fingerprint())
        assert extract(encode, tmp_path / "images", {"original": images}, store, options).encoded == len(images)


class Cluster:
    """The part of the package `ray` that says what a cluster has."""

    def __init__(self, **resources: float) -> None:
        self._resources = resources

    def is_initialized(self) -> bool:
        """Return True."""
        return True

    def cluster_resources(self) -> dict[str, float]:
        """Return the cluster's resources."""
        return self._resources


@pytest.mark.parametrize(
    ("name", "resources", "expected"),
    [
        (None, {"CPU": 4.0}, "cpu"),
        (None, {"CPU": 64.0, "GPU": 8.0}, "cuda"),
        ("cuda", {"CPU": 64.0, "GPU": 8.0}, "cuda"),
        ("cpu", {"CPU": 64.0, "GPU": 8.0}, "cpu"),
    ],
)
def test_the_cluster_says_whether_there_are_gpus(
    name: str | None, resources: dict[str, float], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that starts the extraction may have none."""
    use_cluster(monkeypatch, **resources)
    assert ray.cluster_device(name) == expected


@pytest.mark.parametrize(
    ("name", "words"),
    [("cuda", "no machine of the Ray cluster has a GPU"), ("cuda:1", "must be cpu, or cuda for"), ("mps", "must be")],
)
def test_devices_that_a_cluster_lacks(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cluster(monkeypatch, CPU=4.0)
    with pytest.raises(UserError, match=words):
        ray.cluster_device(name)


def use_cluster(monkeypatch: pytest.MonkeyPatch, **resources: float) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", Cluster(**resources))
    monkeypatch.setitem(sys.modules, "ray.data", SimpleNamespace())


def test_the_command_asks_the_cluster(crops: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a machine without a GPU."""
    import bench

    use_cluster(monkeypatch, CPU=64.0, GPU=8.0)
    devices = []

    def extract_with_ray(config: Any, root: Any, images: Any, store: Any, options: ExtractOptions) -> Any:
        devices.append(options.device)
        raise UserError("far enough")

    monkeypatch.setattr(ray, "extract_with_ray", extract_with_ray)
    command = ["extract", "--images", str(tmp_path / "images"), "--backbone", "slow_means", "--plugin", str(SLOW)]
    for more in ([], ["--device", "cuda"]):
        assert bench.main([*command, "-o", str(tmp_path / "store"), "--engine", "ray", *more]) == 2
    assert devices == ["cuda", "cuda"]
