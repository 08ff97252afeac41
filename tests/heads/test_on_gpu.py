"""The GPU's side of heads, on fake tensors: shapes and dtypes without a GPU."""

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from heads.base import Window
from registry import HEADS
from tests.pretended import on_fake_gpu


@pytest.fixture
def autocast(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Autocast to bfloat16 on `cuda`; `torch.autocast` itself refuses to begin without a driver."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    yield
    torch.set_autocast_enabled("cuda", False)
    torch.set_autocast_dtype("cuda", torch.float16)


@pytest.mark.parametrize("name", ["lstm", "gru", "gazelstm"])
def test_recurrent_layers_run_in_float32_under_autocast(
    name: str, autocast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuDNN computes them in float16 under autocast of any dtype."""
    seen = []

    def forward(layers: Any, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        seen.append((x.dtype, torch.is_autocast_enabled("cuda")))
        return x.new_zeros(*x.shape[:2], 2 * layers.hidden_size), None

    monkeypatch.setattr(torch.nn.GRU if name == "gru" else torch.nn.LSTM, "forward", forward)
    with FakeTensorMode():
        with torch.device("cuda"):
            head = HEADS.build({"type": name, "feature_dim": 8})
            window = Window(torch.zeros(2, 7, 8, dtype=torch.bfloat16), torch.ones(2, 7, dtype=torch.bool))
        logits = head(window)
        assert seen == [(torch.float32, False)]
        assert logits.shape == (2, 2) and logits.dtype == torch.bfloat16  # the linear layers do use autocast
        assert torch.is_autocast_enabled("cuda")


@pytest.mark.parametrize("name", ["transformer", "probe"])
def test_other_heads_on_a_gpu(name: str) -> None:
    head = HEADS.build({"type": name, "feature_dim": 8}).eval()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        window = Window(torch.zeros(2, 7, 8), torch.ones(2, 7, dtype=torch.bool)).to("cuda")
        logits = on_fake_gpu(head, mode)(window)
        assert logits.shape == (2, 2) and logits.device.type == "cuda"
