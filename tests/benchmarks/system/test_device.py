from pathlib import Path

import pytest
import torch

from benchmarks.system.device import default_device, take_device
from benchmarks.system.launch import Launch
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


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices that became torch's current one, on a machine with four GPUs."""
    chosen: list[str] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(str(device)))
    return chosen


def test_a_numbered_gpu_becomes_the_current_one(current: list[str]) -> None:
    assert take_device("cuda:2") == "cuda:2" and current == ["cuda:2"]
    assert take_device("cpu") == "cpu" and take_device(None) == "cuda" and current == ["cuda:2"]


def test_each_process_of_torchrun_takes_its_own_gpu_first(current: list[str]) -> None:
    assert take_device(None, Launch(6, 8, 2, 4)) == "cuda:2" and current == ["cuda:2"]
    assert take_device("cpu", Launch(6, 8, 2, 4)) == "cpu"
    with pytest.raises(UserError, match="--device cuda:1: torchrun's processes take one GPU each; use --device cuda"):
        take_device("cuda:1", Launch(6, 8, 2, 4))
    with pytest.raises(UserError, match="WORLD_SIZE is 8, but LOCAL_RANK is not set"):
        take_device("cuda", Launch(6, 8, None, 8))


@pytest.mark.parametrize(
    "command", [["extract", "--recipe", "probe"], ["--recipe", "gazelstm"]], ids=["extract", "run"]
)
@pytest.mark.parametrize("device", [[], ["--device", "cuda:3"]], ids=["default", "cuda:3"])
def test_commands_take_it_before_anything_touches_cuda(
    command: list[str], device: list[str], current: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    import bench

    def touched(*arguments: object, **named: object) -> None:
        raise UserError(f"reached with {current}")

    for name, value in {"WORLD_SIZE": "8", "RANK": "6", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("benchmarks.system.processes.join", touched)
    monkeypatch.setattr("benchmarks.pipeline.extract.extract_features", touched)
    out = ["--out", str(tmp_path)]
    assert bench.main([*command, *device, *out]) == 2
    wanted = "torchrun's processes take one GPU each" if device else "reached with ['cuda:2']"
    assert wanted in capsys.readouterr().err
