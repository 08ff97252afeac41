"""ONNX files give torch's outputs when run with onnxruntime alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from heads.base import Window
from registry import UserError
from tests.contracts import uniform
from zoo import onnx_files
from zoo.cards import load_cards
from zoo.model import LookingAtMeModel
from zoo.models import Model, open_model

runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


def session(path: Path) -> object:
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.slow
def test_the_shipped_model(tmp_path: Path) -> None:
    model = open_model("internlstm_nano")
    errors = onnx_files.write_onnx(model, tmp_path)
    assert errors.keys() == {"head.onnx", "backbone.onnx"}
    assert max(errors.values()) <= 1e-5
    features, present = uniform("features", (3, 7, 128)).astype(np.float32), np.ones((3, 7), bool)
    present[0, :3] = present[1, 3] = False
    (found,) = session(tmp_path / "head.onnx").run(None, {"features": features, "present": present})
    image = uniform("image", (1, 3, 112, 112)).astype(np.float32)
    (vector,) = session(tmp_path / "backbone.onnx").run(None, {"image": image})
    with torch.no_grad():
        wanted = model.network.head(Window(torch.from_numpy(features), torch.from_numpy(present))).numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)
        encoded = model.network.backbone(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(vector, encoded, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "head", [{"type": "transformer", "width": 8, "heads": 2, "mlp": 8}, {"type": "probe"}], ids=str
)
def test_other_heads(tmp_path: Path, head: dict) -> None:
    torch.manual_seed(0)
    network = LookingAtMeModel.build({"type": "tiny_means"}, head).eval()
    model = Model("other", load_cards()["internlstm_nano"], network, ("original",), 15.0, 0.0, None, True)
    assert onnx_files.write_onnx(model, tmp_path)["head.onnx"] <= 1e-5


def test_a_graph_with_other_outputs_is_not_kept(tmp_path: Path) -> None:
    class Counting(torch.nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features.sum((1, 2), keepdim=True) / len(features)  # a number that the exporter writes down

    example = {"features": torch.ones(2, 7, 4)}
    with pytest.raises(UserError, match="head.onnx would differ from torch"):
        onnx_files.write_graph(
            Counting(), example, [{"features": torch.ones(5, 7, 4)}], "logits", tmp_path / "head.onnx"
        )
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--onnx needs the package onnx: pip install"):
        onnx_files.check_packages()
