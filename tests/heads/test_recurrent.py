"""InternLSTM's head gives the published program's numbers, at its published size."""

import json
from pathlib import Path

import pytest
import torch

from heads.base import Window
from registry import HEADS
from tests.contracts import uniform

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "internlstm_head.json").read_text())


@pytest.fixture(scope="module")
def head():
    built = HEADS.build({"type": "lstm", "feature_dim": 3200}).eval()
    state = {}
    for name, tensor in built.state_dict().items():
        numbers = uniform(name, tuple(tensor.shape), GOLDEN["salt"])
        is_bias = name.rpartition(".")[2].startswith("bias")
        scale = 0.1 if is_bias else (3 / numbers[0].size) ** 0.5
        state[name] = torch.from_numpy(scale * numbers).float()
    built.load_state_dict(state)
    return built


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    made = GOLDEN["input"]
    return torch.from_numpy(uniform(made["name"], tuple(made["shape"]), GOLDEN["salt"])).float()


def test_parameters_are_the_published_ones(head) -> None:
    assert {name: list(tensor.shape) for name, tensor in head.state_dict().items()} == GOLDEN["parameters"]


@torch.no_grad()
def test_logits(head, features) -> None:
    present = torch.ones(features.shape[:2], dtype=torch.bool)
    torch.testing.assert_close(head(Window(features, present)), torch.tensor(GOLDEN["logits"]), atol=1e-5, rtol=0)


@torch.no_grad()
def test_logits_with_absent_frames(head, features) -> None:
    present = torch.ones(features.shape[:2], dtype=torch.bool)
    present[:, :2] = False
    present[0, 5] = False
    wanted = torch.tensor(GOLDEN["logits_when_missing"]["logits"])
    torch.testing.assert_close(head(Window(features, present)), wanted, atol=1e-5, rtol=0)


def test_gru_is_the_same_with_another_cell() -> None:
    sizes = {"feature_dim": 6, "projection": 5, "hidden": 4, "layers": 1, "mlp": (3,)}
    lstm = HEADS.build({"type": "lstm", **sizes}).state_dict()
    gru = HEADS.build({"type": "gru", **sizes}).state_dict()
    assert {name.replace("gru.", "lstm.") for name in gru} == lstm.keys()
    assert gru["gru.weight_ih_l0"].shape == (3 * 4, 5)  # three gates
    assert lstm["lstm.weight_ih_l0"].shape == (4 * 4, 5)  # four
    assert set(gru) == {*(n for n in gru if n.startswith("gru.")), "fc1.weight", "fc1.bias"} | {
        f"last_layer{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")
    }


def test_dropout_acts_in_training_only() -> None:
    head = HEADS.build({"type": "lstm", "feature_dim": 6, "projection": 5, "hidden": 4, "mlp": (64, 64, 64)})
    window = Window(torch.ones(1, 7, 6), torch.ones(1, 7, dtype=torch.bool))
    head.train()
    assert not torch.equal(head(window), head(window))
    head.eval()
    assert torch.equal(head(window), head(window))
