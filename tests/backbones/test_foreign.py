"""Checkpoints of other programs as weights of a backbone: read, or named for what they are."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from backbones.checkpoints import all_finite
from registry import BACKBONES, UserError

MODEL = "resnet10t"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return timm.create_model(MODEL).state_dict()


def build(path: Path) -> torch.nn.Module:
    return BACKBONES.build({"type": f"timm:{MODEL}", "weights": str(path)}).network


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        build(path)
    message = str(caught.value)
    assert str(path) in message and message.isprintable() and len(message) < 400
    return message


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.int64(7), np.bool_(True)], ids=repr)
def test_numbers_of_numpy_beside_the_tensors(tmp_path: Path, state: dict, number: np.generic) -> None:
    path = tmp_path / "best.pth"
    torch.save({"state_dict": state, "best_metric": number, "epoch": 3}, path)
    network = build(path)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("archive", [True, False])
def test_later_protocols_are_named_with_the_way_out(tmp_path: Path, state: dict, protocol: int, archive: bool) -> None:
    path = tmp_path / "best.pth"
    content = {"state_dict": state, "text": "x" * 300, "bytes": b"y" * 300}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=archive)
    assert f"is a pickle of protocol {protocol}, and only protocol 2 is read" in refused(path)
    assert "save it again with torch.save(state_dict, FILE), without pickle_protocol" in refused(path)
    path.write_bytes(pickle.dumps({"a": [1.0]}, protocol=protocol))
    assert f"is a pickle of protocol {protocol}" in refused(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_programs_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), str(path))
    assert "is a TorchScript program, which is not run: save the model's state_dict() with torch.save" in refused(path)
    torch.save(torch.nn.Linear(2, 2), path)
    assert "holds a pickled torch.nn.modules.linear.Linear, which is neither a tensor nor a number" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.npy", b"")
    assert "is a zip archive that torch.save did not write" in refused(path)
    for start, what in ((b"\x89HDF\r\n\x1a\n", "an HDF5 file"), (b"GGUF\3\0\0\0", "a GGUF file")):
        path.write_bytes(start + bytes(range(200)))
        assert f"is {what}; expected" in refused(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_where_they_are_read(tmp_path: Path, state: dict, value: float) -> None:
    path = tmp_path / "best.pth"
    spoilt = {name: tensor.clone() for name, tensor in state.items()}
    spoilt["conv1.0.weight"].view(-1)[5] = value
    torch.save(spoilt, path)
    count = spoilt["conv1.0.weight"].numel()
    assert f"tensor 'conv1.0.weight' has 1 of {count} values that are NaN or infinite; use another" in refused(path)
    spoilt["layer1.0.conv1.weight"].fill_(value)
    torch.save(spoilt, path)
    assert "NaN or infinite, as have 1 other tensors; use another" in refused(path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_finite_in_every_dtype(dtype: torch.dtype) -> None:
    values = torch.linspace(-3, 3, 1001).to(dtype)
    assert (
        all_finite(values) and all_finite(values[:0]) and all_finite(torch.tensor(torch.finfo(dtype).max, dtype=dtype))
    )
    for place in (0, 500, 1000):
        for value in (float("nan"), float("inf"), float("-inf")):
            spoilt = values.clone()
            spoilt[place] = value
            assert not all_finite(spoilt) and not torch.isfinite(spoilt).all()
    assert all_finite(torch.tensor([2**40]))
