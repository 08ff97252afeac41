"""Quantisation to E4M3 against its definition, and the layer against the one it stands in for."""

import pytest
import torch
from torch import nn

from backbones import fp8
from registry import UserError


def test_quantise_by_hand() -> None:
    # The largest of a row becomes 448. E4M3 has three binary places: above 256 steps of 32, above 64 steps of 8.
    rows = torch.tensor([[448.0, 101.0, -300.0, 0.0], [0.0, 0.0, 0.0, 0.0], [-2.0, 1.0, 0.1, 1e-9]])
    numbers, scale = fp8.quantise(rows)
    assert numbers.dtype == torch.float8_e4m3fn
    assert scale.shape == (3, 1)
    assert numbers[0].tolist() == [448, 104, -288, 0]  # 101 lies between 96 and 104, -300 between -288 and -320
    assert numbers[1].tolist() == [0, 0, 0, 0]
    torch.testing.assert_close((numbers.float() * scale)[2], rows[2], atol=0.01, rtol=0.07)


@pytest.mark.parametrize("exponent", [-20, 0, 20])
def test_rounding_is_to_a_sixteenth_whatever_the_size(exponent: int) -> None:
    rows = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)) * 2.0**exponent
    numbers, scale = fp8.quantise(rows)
    assert torch.isfinite(numbers.float()).all()
    large = rows.abs() > rows.abs().amax(1, keepdim=True) / 1000  # smaller ones are among the subnormal numbers
    error = ((numbers.float() * scale - rows).abs() / rows.abs())[large]
    assert error.max() <= 1 / 16 + 1e-6
    assert numbers.float().abs().amax(1).eq(fp8.LARGEST).all()


def test_a_row_has_its_own_scale() -> None:
    """With one scale for the tensor, the small row would be nothing but zeros."""
    rows = torch.tensor([[1e5, 1e4], [1e-3, 1e-4]])
    numbers, scale = fp8.quantise(rows)
    torch.testing.assert_close(numbers.float() * scale, rows, rtol=0.07, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_near_the_one_it_stands_in_for(bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(128, 48, bias=bias).bfloat16()
    x = torch.randn(3, 7, 128).bfloat16()
    quantised = fp8.Linear(linear)
    got, wanted = quantised(x), linear.float()(x.float())
    assert got.shape == (3, 7, 48)
    assert got.dtype == torch.bfloat16
    assert not list(quantised.parameters())
    error = (got.float() - wanted).norm() / wanted.norm()
    assert 0.005 < error < 0.05  # 24 dB are 0.06, what others measured on a linear layer


def test_widths_that_no_tensor_core_takes() -> None:
    with pytest.raises(UserError, match="multiples of 16, not 24 and 32: use bfloat16"):
        fp8.Linear(nn.Linear(24, 32))


def test_gpus_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    with pytest.raises(UserError, match=r"A100 \(compute capability 8.0\) has no fp8; it takes 8.9: use bfloat16"):
        fp8.check_device(torch.device("cuda"))
    fp8.check_device(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    fp8.check_device(torch.device("cuda"))
