import pytest
import torch

from benchmarks.system.device import default_device
from registry import UserError


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (1, "cuda"), (8, "cuda")])
def test_the_default_is_a_gpu_if_there_is_one(gpus: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert default_device(None) == device


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_devices_that_exist_are_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert default_device(name) == name


@pytest.mark.parametrize(
    "name", ["hpu", "meta", "privateuseone", "xla", "cuda:", "cuda:-1", "cpu:0", "CUDA", "", "mps:0"]
)
def test_other_names_get_a_line(name: str) -> None:
    with pytest.raises(UserError, match="must be cpu, cuda, cuda:N or mps"):
        default_device(name)


@pytest.mark.parametrize(
    ("name", "gpus", "message"),
    [
        ("cuda", 0, "torch finds no NVIDIA or AMD GPU; leave it out to use the CPU"),
        ("cuda:2", 2, "torch finds 2 GPUs, numbered from 0; leave it out to use the first one"),
        ("mps", 0, "torch finds no Apple GPU"),
    ],
)
def test_devices_that_are_missing_get_a_line(
    name: str, gpus: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"--device {name}: {message}"):
        default_device(name)
