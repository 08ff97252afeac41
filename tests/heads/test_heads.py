"""Every registered head fulfils the contract, and so does a plug-in."""

import pytest
import torch

from heads.base import Head, Window
from registry import HEADS, UserError, load_plugin
from tests.contracts import FIXED_FEATURES, check_head, made_up_inputs

# The published sizes are too big for a quick test.
SMALL = {
    "lstm": {"projection": 10, "hidden": 8, "mlp": (9, 8, 7)},
    "gru": {"projection": 10, "hidden": 8, "mlp": (9, 8, 7)},
    "transformer": {"width": 16, "heads": 2, "mlp": 24},
    "gazepose": {"width": 16, "feed_forward": 24, "encoder_layers": 1, "decoder_layers": 1},
}


@pytest.mark.parametrize("name", HEADS.names())
def test_contract(name: str) -> None:
    check_head({"type": name, **SMALL.get(name, {})})


@pytest.mark.parametrize("name", sorted(set(HEADS.names()) - FIXED_FEATURES))
def test_other_window(name: str) -> None:
    check_head({"type": name, **SMALL.get(name, {})}, feature_dim=5, window=3)


@pytest.mark.parametrize("name", sorted(set(HEADS.names()) - {"probe", "probe_sklearn"} - FIXED_FEATURES))
def test_temporal_heads_see_the_neighbours(name: str) -> None:
    head = HEADS.build({"type": name, "feature_dim": 6, **SMALL.get(name, {})}).eval()
    window = Window(torch.ones(1, 7, 6), torch.ones(1, 7, dtype=torch.bool), **made_up_inputs(head, 1))
    before = head(window)
    window.features[0, 1] = -1
    assert not torch.allclose(head(window), before)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"type": "lstm", "feature_dim": 6, "window": 4}, "window must be an odd number"),
        ({"type": "lstm", "feature_dim": 0}, "feature_dim must be at least 1"),
        ({"type": "transformer", "feature_dim": 6, "width": 10, "heads": 4}, "not a multiple"),
        ({"type": "lstm", "feature_dim": 6, "hiden": 4}, "did you mean 'hidden'"),
        ({"type": "lstm"}, "needs the argument 'feature_dim'"),
    ],
)
def test_bad_arguments(config: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        HEADS.build(config)


def test_window_zeroed_and_moved() -> None:
    window = Window(
        torch.full((1, 3, 2), float("nan")),
        torch.tensor([[True, False, False]]),
        priors={"head_pose": torch.zeros(1, 3)},
    )
    assert window.zeroed()[0, 1:].eq(0).all()
    assert window.to("meta").features.device.type == "meta"
    assert window.to("meta").priors["head_pose"].device.type == "meta"
    assert window.to("meta").centre_map is None


PLUGIN = """
import torch
from heads.base import Head, Window
from registry import HEADS

@HEADS.register_module(name="mean_of_window")
class MeanOfWindow(Head):
    def __init__(self, feature_dim: int, window: int = 7) -> None:
        super().__init__(feature_dim, window)
        self.linear = torch.nn.Linear(feature_dim, 2)
    def forward(self, window: Window) -> torch.Tensor:
        return self.linear(window.zeroed().sum(1) / window.present.sum(1, keepdim=True).clamp(min=1))
"""


def test_plugin_head_of_ten_lines(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(HEADS, "_module_dict", dict(HEADS.module_dict))
    monkeypatch.setattr(HEADS, "places", dict(HEADS.places))
    file = tmp_path / "my_head.py"
    file.write_text(PLUGIN)
    load_plugin(file)
    check_head({"type": "mean_of_window"})
    assert HEADS.origin("mean_of_window") == f"{file}:6"


def test_contract_notices_a_head_that_reads_absent_frames(monkeypatch) -> None:
    monkeypatch.setattr(HEADS, "_module_dict", dict(HEADS.module_dict))
    monkeypatch.setattr(HEADS, "places", dict(HEADS.places))

    @HEADS.register_module(name="careless")
    class Careless(Head):
        def __init__(self, feature_dim: int, window: int = 7) -> None:
            super().__init__(feature_dim, window)
            self.linear = torch.nn.Linear(feature_dim, 2)

        def forward(self, window: Window) -> torch.Tensor:
            return self.linear(window.features.mean(1))

    with pytest.raises(AssertionError, match="absent frames have an effect"):
        check_head({"type": "careless"})
