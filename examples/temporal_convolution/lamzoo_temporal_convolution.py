"""Head `temporal_convolution`: dilated convolutions over the window, read out at the key frame."""

import torch
from torch import Tensor, nn

from heads.base import Head, Window
from registry import HEADS


@HEADS.register_module(name="temporal_convolution")
class TemporalConvolution(Head):
    """Linear -> residual convolutions over time, each twice as wide in reach as the one before -> the key frame.

    A convolution reads zeros in the place of absent frames, so that they have no say; what it writes there is read by
    nobody but the readout, so that an absent key frame is judged by its neighbours.

    Args:
        feature_dim: D, numbers a frame.
        window: T, frames a window.
        width: of the convolutions.
        depth: how many; two of them with dilations 1 and 2 see the seven frames of a window.
        dropout: probability after each of them.
    """

    def __init__(
        self, feature_dim: int, window: int = 7, width: int = 128, depth: int = 2, dropout: float = 0.3
    ) -> None:
        super().__init__(feature_dim, window)
        self.input = nn.Linear(feature_dim, width)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, kernel_size=3, dilation=2**layer, padding=2**layer) for layer in range(depth)
        )
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, 2)

    def forward(self, window: Window) -> Tensor:
        present = window.present[:, None]
        x = self.input(window.zeroed()).transpose(1, 2)  # (B, width, T)
        for convolution in self.convolutions:
            x = x + self.dropout(torch.relu(convolution(x * present)))
        return self.output(x[:, :, self.window // 2])
