"""InternLSTM's head gives the published program's numbers, at its published size."""

import copy
import json
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn.functional import relu
from torch.nn.parallel import DistributedDataParallel

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


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_input_dropout_leaves_features_out_of_whole_windows(kind: str) -> None:
    """The first layer gets features times 0 or 2, equal in all frames of a window and different between windows."""
    sizes = {"feature_dim": 40, "projection": 5, "hidden": 4, "mlp": (3,), "dropout": 0.0, "input_dropout": 0.5}
    head = HEADS.build({"type": kind, **sizes})
    seen = []
    head.fc1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    window = Window(torch.rand(3, 7, 40) + 1, torch.ones(3, 7, dtype=torch.bool))
    head.train()
    head(window)
    factor = seen[0].transpose(0, 1) / window.features
    assert set(factor.round().unique().tolist()) == {0, 2}
    torch.testing.assert_close(factor, factor[:, :1].expand(-1, 7, -1))
    assert not torch.equal(factor[0], factor[1])
    head.eval()
    head(window)
    assert torch.equal(seen[1].transpose(0, 1), window.features)


# -- the steps that are left out and the products that are shared change no number ---------------------------------

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}
SIZES = {"feature_dim": 6, "projection": 5, "hidden": 4, "mlp": (7, 3), "dropout": 0.0}


def small(kind: str, layers: int = 2):
    torch.manual_seed(layers)
    return HEADS.build({"type": kind, "layers": layers, **SIZES})


def made_up(frames: int, count: int = 9) -> Window:
    torch.manual_seed(frames)
    return Window(torch.randn(count, frames, 6), torch.rand(count, frames) > 0.2)


def plain(head, kind: str, layers: int, window: Window) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return logits of torch's own layer over all frames, and gradients of the sum of their squares."""
    cell = CELLS[kind](5, 4, layers, batch_first=True, bidirectional=True)
    cell.load_state_dict(head.get_submodule(kind).state_dict())
    others = {name: value for name, value in head.named_parameters() if not name.startswith(kind)}
    copies = {name: value.detach().clone().requires_grad_() for name, value in others.items()}
    features = torch.where(window.present[..., None], window.features, 0.0)
    states, _ = cell(nn.functional.linear(features, copies["fc1.weight"], copies["fc1.bias"]))
    x = states[:, features.shape[1] // 2]
    for number in (1, 2, 3):
        x = nn.functional.linear(x, copies[f"last_layer{number}.weight"], copies[f"last_layer{number}.bias"])
        x = relu(x) if number < 3 else x
    x.square().sum().backward()
    gradients = {name: value.grad for name, value in copies.items()}
    return x.detach(), gradients | {f"{kind}.{name}": value.grad for name, value in cell.named_parameters()}


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", CELLS)
def test_logits_and_gradients_are_those_of_torchs_layer(kind: str, layers: int, frames: int) -> None:
    head, window = small(kind, layers), made_up(frames)
    logits, gradients = plain(head, kind, layers, window)
    found = head.train()(window)
    found.square().sum().backward()
    torch.testing.assert_close(found, logits, atol=1e-6, rtol=0)
    assert {name for name, _ in head.named_parameters()} == gradients.keys()
    for name, value in head.named_parameters():
        torch.testing.assert_close(value.grad, gradients[name], atol=1e-5, rtol=0, msg=lambda text: f"{name}: {text}")  # noqa: B023
    with torch.no_grad():
        torch.testing.assert_close(head.eval()(window), logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize("frames", [1, 4, 7])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", CELLS)
def test_frames_that_windows_share_are_projected_once_to_the_same_logits(kind: str, layers: int, frames: int) -> None:
    head = small(kind, layers)
    features = torch.cat([torch.randn(10, 6), torch.zeros(1, 6)])  # the last one stands for absent frames
    rows = torch.arange(8)[:, None] + torch.arange(frames) - 2
    rows[(rows < 0) | (rows > 9)] = 10
    present = rows < 10
    wanted = head(Window(features[rows], present))
    found = head.judge(head.encode(features), rows, present)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    gradients = [torch.autograd.grad(logits.sum(), list(head.parameters())) for logits in (found, wanted)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=0)
    with torch.inference_mode():
        torch.testing.assert_close(head.judge(head.encode(features), rows, present), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", CELLS)
def test_copies_pickles_and_other_processes_have_the_same_weights(kind: str, tmp_path: Path) -> None:
    head, window = small(kind), made_up(7)
    wanted = head(window)
    for other in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert torch.equal(other(window), wanted)
    loss = wanted.square().sum()
    loss.backward()
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        twin = copy.deepcopy(head)
        twin.zero_grad()
        DistributedDataParallel(twin)(window).square().sum().backward()
    finally:
        distributed.destroy_process_group()
    for one, other in zip(head.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("kind", CELLS)
def test_mixed_precision_has_gradients_of_float32(kind: str) -> None:
    head, window = small(kind), made_up(7)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(window)
    torch.testing.assert_close(found.float(), head(window), atol=0.02, rtol=0.02)
    found.float().square().sum().backward()
    assert all(value.grad.dtype == torch.float32 and value.grad.isfinite().all() for value in head.parameters())


@pytest.mark.gpu("a CUDA device, and torch with cuDNN")
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", CELLS)
def test_on_a_gpu_too(kind: str, layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    head, window = small(kind, layers), made_up(7)
    logits, gradients = plain(head, kind, layers, window)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as that weights do not lie in one piece
        found = head.cuda()(window.to("cuda"))
        found.square().sum().backward()
    torch.testing.assert_close(found.cpu(), logits, atol=1e-6, rtol=0)
    for name, value in head.named_parameters():
        torch.testing.assert_close(value.grad.cpu(), gradients[name], atol=1e-5, rtol=0)
