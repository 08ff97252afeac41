"""Head `temporal_convolution`: dilated convolutions over the window, read out at the key frame."""

import torch
from torch import Tensor, nn

from heads.base import Head, Window
from registry import HEADS


@HEADS.register_module(name="temporal_convolution")
class TemporalConvolution(Head):
    """Linear layer, residual dilated convolutions over time, output at the key frame.

    Convolutions read zeros in place of absent frames. Their output at absent frames is used only at the key frame, so
    an absent key frame is judged by its neighbours.

    Args:
        feature_dim: D, features per frame.
        window: T, frames per window.
        width: channels of the convolutions.
        depth: number of convolutions, with dilations 1, 2, 4, ...; two cover the seven frames of a window.
        dropout: probability after each convolution.
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
