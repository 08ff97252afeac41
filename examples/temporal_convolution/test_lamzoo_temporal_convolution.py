"""temporal_convolution fulfils lamzoo's contract of heads and equals a sum written out by hand."""

import lamzoo_temporal_convolution
import torch
from torch import Tensor

from heads.base import Window
from tests.contracts import check_head


def test_contract() -> None:
    """The contract of heads."""
    check_head(dict(type="temporal_convolution", width=16))


def test_against_a_sum_over_present_frames() -> None:
    """At time t, a convolution with dilation d reads the frames t - d, t and t + d."""
    torch.manual_seed(0)
    head = lamzoo_temporal_convolution.TemporalConvolution(feature_dim=3, window=7, width=4, depth=2).eval()
    features, present = torch.randn(7, 3), torch.tensor([True, True, False, True, True, False, True])
    x: list[Tensor] = [head.input(features[t]) if present[t] else head.input(torch.zeros(3)) for t in range(7)]
    for layer, dilation in ((0, 1), (1, 2)):
        weight, bias = head.convolutions[layer].weight, head.convolutions[layer].bias
        summed = []
        for t in range(7):
            y = bias
            for tap, at in enumerate((t - dilation, t, t + dilation)):
                if 0 <= at < 7 and present[at]:
                    y = y + weight[:, :, tap] @ x[at]
            summed.append(x[t] + torch.relu(y))
        x = summed
    torch.testing.assert_close(head(Window(features[None], present[None]))[0], head.output(x[3]))
