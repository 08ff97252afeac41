"""Transformer head: attention over the frames that are there."""

import torch
from torch import Tensor, nn

from heads.base import Head, Window
from registry import HEADS, UserError


@HEADS.register_module(name="transformer")
class TransformerHead(Head):
    """Pre-norm transformer encoder over the window, read out at the key frame.

    Positions in the window have learned embeddings; absent frames are masked out of the attention.

    Args:
        feature_dim: D, numbers a frame.
        window: T, frames a window.
        width: width of the encoder.
        depth: layers.
        heads: attention heads; must divide ``width``.
        mlp: width of the hidden layer of each block.
        dropout: probability in attention, in each block and before the last layer.
    """

    def __init__(
        self,
        feature_dim: int,
        window: int = 7,
        width: int = 256,
        depth: int = 2,
        heads: int = 4,
        mlp: int = 1024,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(feature_dim, window)
        if width % heads:
            raise UserError(f"head transformer: width {width} is no multiple of heads {heads}")
        self.input = nn.Linear(feature_dim, width)
        self.position = nn.Parameter(torch.empty(window, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, mlp, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, 2)

    def forward(self, window: Window) -> Tensor:
        centre = self.window // 2
        absent = ~window.present
        absent[:, centre] = False  # a row with nothing to attend to is NaN; an absent key frame is a zero vector
        x = self.encoder(self.input(window.zeroed()) + self.position, src_key_padding_mask=absent)
        return self.output(self.dropout(x[:, centre]))
