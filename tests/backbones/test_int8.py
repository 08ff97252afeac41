"""Weights in 8 bits: against torch's own quantisation."""

import torch

from backbones.int8 import from_int8, to_int8


def test_rounding_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((8, 3, 3, 3), (5, 7)):
        weight = torch.randn(shape, generator=generator) * torch.logspace(-3, 1, shape[0]).view(
            -1, *[1] * len(shape[1:])
        )
        stored = to_int8({"weight": weight})
        assert stored["weight"].dtype == torch.int8
        scale = weight.abs().flatten(1).max(1).values / 127
        torch.testing.assert_close(stored["weight.scale"], scale)
        zero = torch.zeros(shape[0])
        theirs = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)
        torch.testing.assert_close(from_int8(stored)["weight"], theirs)
        moved = (from_int8(stored)["weight"] - weight).abs().flatten(1).max(1).values
        assert (moved <= scale * 0.5001).all()


def test_what_is_not_rounded() -> None:
    state = {
        "bias": torch.tensor([0.1, 1e-9]),
        "batches": torch.tensor(7),
        "steps": torch.ones(2, 2, dtype=torch.int64),
        "zero": torch.zeros(2, 3),
    }
    stored = to_int8(state)
    assert stored.keys() == {*state, "zero.scale"}
    restored = from_int8(stored)
    assert restored.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(restored[name], tensor)
        assert restored[name].dtype == tensor.dtype


def test_other_files_stay_as_they_are() -> None:
    """A parameter may be called `scale`, and integers may have no scale."""
    state = {
        "norm": torch.ones(2, 2),
        "norm.scale": torch.ones(2),
        "codes": torch.ones(2, 2, dtype=torch.int8),
        "other": torch.ones(2, 2, dtype=torch.int8),
        "other.scale": torch.ones(3),  # not one per channel
    }
    found = from_int8(state)
    assert found.keys() == state.keys()
    assert all(found[name] is state[name] for name in state)
