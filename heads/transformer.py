"""Transformer head: attention over the present frames."""

import torch
from torch import Tensor, nn

from heads.base import Depth, Head, Share, Size, Window
from registry import HEADS, UserError


@HEADS.register_module(name="transformer")
class TransformerHead(Head):
    """Pre-norm transformer encoder over the window, read out at the key frame.

    Position embeddings are learned; absent frames are masked out of the attention.

    Args:
        feature_dim: D, features per frame.
        window: T, frames per window.
        width: width of the encoder.
        depth: number of layers.
        heads: attention heads; must divide ``width``.
        mlp: hidden width of the feed-forward blocks.
        dropout: probability in attention, in the feed-forward blocks and before the output layer.
    """

    def __init__(
        self,
        feature_dim: int,
        window: int = 7,
        width: Size = 256,
        depth: Depth = 2,
        heads: Size = 4,
        mlp: Size = 1024,
        dropout: Share = 0.1,
    ) -> None:
        super().__init__(feature_dim, window)
        if width % heads:
            raise UserError(f"head transformer: width {width} is not a multiple of heads {heads}")
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
        absent[:, centre] = False  # attention over no frame at all gives NaN; an absent key frame is a zero vector
        x = self.encoder(self.input(window.zeroed()) + self.position, src_key_padding_mask=absent)
        return self.output(self.dropout(x[:, centre]))
