"""GazePose's head: a BiLSTM over the window, and a transformer over the key frame's feature map.

The transformer's queries are priors: three bins of head pose and five facial landmarks. The binning functions are here
because checkpoints depend on them.
"""

import math
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional

from heads.base import Depth, Head, Share, Size, Window
from registry import HEADS, UserError

ATTENTION_HEADS = 8  # as published; tensor shapes do not determine it


def angle_bins(degrees: Tensor, bins: int = 91) -> Tensor:
    """Return bins of absolute angles: floor(|angle| / 1 degree), the last bin (90) if unknown or larger.

    Args:
        degrees: yaw, pitch or roll, any shape; NaN where unknown.
        bins: number of bins from 0 to 90 degrees inclusive.

    Returns:
        int64 of the same shape, in [0, bins - 1].

    Example:
        >>> angle_bins(torch.tensor([0.0, -3.7, 89.9, 120.0, float("nan")])).tolist()
        [0, 3, 89, 90, 90]
    """
    found = (degrees.abs() / (90 / (bins - 1))).floor()
    return found.nan_to_num(bins - 1).clamp(max=bins - 1).long()


def landmark_cells(x: Tensor, y: Tensor, grid: int = 41) -> Tensor:
    """Return the grid cells of landmarks: 20 * floor((x + 2) / 0.1) + floor((y + 2) / 0.1), as published.

    The grid has 41 cells per side, so with a factor of 20 cells of neighbouring columns share numbers. Published
    checkpoints depend on it.

    Args:
        x: relative to the midpoint of the eyes, in units of the crop, any shape; clipped to [-2, 2], NaN is 0.
        y: same as ``x``, downwards.
        grid: cells per side.

    Returns:
        int64 of the same shape, below ``grid ** 2``.

    Example:
        >>> landmark_cells(torch.tensor([-2.0, 0.05, 9.0]), torch.tensor([-2.0, -0.05, 9.0])).tolist()
        [0, 419, 840]
    """
    side = 4 / (grid - 1)
    column, row = (((value.nan_to_num(0).clamp(-2, 2) + 2) / side).floor().long() for value in (x, y))
    return (grid - 1) // 2 * column + row


def confidence_bins(confidence: Tensor, bins: int = 11) -> Tensor:
    """Return bins of landmark confidences: floor(confidence / 0.1).

    Args:
        confidence: any shape; clipped to [0, 1], NaN is 0.
        bins: number of bins from 0 to 1 inclusive.

    Returns:
        int64 of the same shape, in [0, bins - 1].

    Example:
        >>> confidence_bins(torch.tensor([0.0, 0.25, 1.0])).tolist()
        [0, 2, 10]
    """
    return (confidence.nan_to_num(0).clamp(0, 1) / (1 / (bins - 1))).floor().long()


def sine_positions(height: int, width: int, dim: int) -> Tensor:
    """Return sine position embeddings of a map, row by row: the first half encodes y, the second x.

    Coordinates run from 1 to the length of the side and are normalised to 2 pi; temperature 10000.

    Source: DETR (Carion et al., ECCV 2020).

    Returns:
        ``(height * width, dim)`` float32.
    """
    half = dim // 2
    temperatures = 10000 ** (2 * (torch.arange(half) // 2) / half)

    def along(length: int) -> Tensor:
        angles = torch.arange(1, length + 1)[:, None] / (length + 1e-6) * 2 * math.pi / temperatures
        return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1)  # (length, half)

    y, x = along(height), along(width)
    return torch.cat([y[:, None].expand(-1, width, -1), x[None].expand(height, -1, -1)], dim=2).flatten(0, 1)


class _EncoderLayer(nn.Module):
    """Pre-norm self-attention and feed-forward; positions are added to queries and keys, not to values."""

    def __init__(self, width: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, ATTENTION_HEADS, dropout, batch_first=True)
        self.linear1 = nn.Linear(width, feed_forward)
        self.linear2 = nn.Linear(feed_forward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        normed = self.norm1(x)
        asked = normed + positions
        x = x + self.dropout(self.self_attn(asked, asked, normed, need_weights=False)[0])
        hidden = self.dropout(functional.relu(self.linear1(self.norm2(x))))
        return x + self.dropout(self.linear2(hidden))


class _DecoderLayer(nn.Module):
    """Pre-norm self-attention, cross-attention to the encoder's output, and feed-forward."""

    def __init__(self, width: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, ATTENTION_HEADS, dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(width, ATTENTION_HEADS, dropout, batch_first=True)
        self.linear1 = nn.Linear(width, feed_forward)
        self.linear2 = nn.Linear(feed_forward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, queries: Tensor, memory: Tensor, positions: Tensor) -> Tensor:
        normed = self.norm1(x)
        asked = normed + queries
        x = x + self.dropout(self.self_attn(asked, asked, normed, need_weights=False)[0])
        asked = self.norm2(x) + queries
        x = x + self.dropout(self.multihead_attn(asked, memory + positions, memory, need_weights=False)[0])
        hidden = self.dropout(functional.relu(self.linear1(self.norm3(x))))
        return x + self.dropout(self.linear2(hidden))


class _Stack(nn.Module):
    """A sequence of layers and a final norm."""

    def __init__(self, layers: list[nn.Module], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, *others)
        return self.norm(x)


@HEADS.register_module(name="gazepose")
class GazePose(Head):
    """GazePose: BiLSTM over the window, and a transformer over the key frame's map queried by pose and landmarks.

    Parameters have the names of the published program. `import` infers the sizes from the tensors of a checkpoint; the
    defaults are DETR's.

    The window needs ``centre_map (B, 512, H, W)`` and two ``priors``:

    - ``head_pose_bins``: ``(B, 3)`` int64, yaw, pitch and roll from `angle_bins`.
    - ``landmarks``: ``(B, 15)`` float, five x, five y, five confidences of nose, left eye, right eye, left and right
      corner of the mouth (the person's left); x and y relative to the midpoint of the eyes in units of the crop, NaN
      where unknown.

    Args:
        feature_dim: D, features per frame; 256 for `gaze_resnet18`.
        window: T, frames per window.
        width: width of the transformer, a multiple of its 8 attention heads.
        feed_forward: hidden width of the feed-forward blocks.
        encoder_layers: layers over the map.
        decoder_layers: layers over the eight queries.
        dropout: probability in the transformer.
        pose_bins: bins per head pose angle.
        grid: cells per side of the landmark grid.
        confidence_bins: bins of landmark confidence.
        train_landmark_embeddings: False keeps the landmark embeddings at their initial values, as the published
            program did.
    """

    map_channels = 512
    needs_priors = ("head_pose_bins", "landmarks")

    def __init__(
        self,
        feature_dim: int,
        window: int = 7,
        width: Size = 256,
        feed_forward: Size = 2048,
        encoder_layers: Depth = 6,
        decoder_layers: Depth = 6,
        dropout: Share = 0.1,
        pose_bins: Annotated[int, Meta(ge=2, le=10_000)] = 91,
        grid: Annotated[int, Meta(ge=2, le=1_000)] = 41,
        confidence_bins: Annotated[int, Meta(ge=2, le=10_000)] = 11,
        train_landmark_embeddings: bool = True,
    ) -> None:
        super().__init__(feature_dim, window)
        if width % ATTENTION_HEADS:
            raise UserError(f"head gazepose: width {width} is not a multiple of its {ATTENTION_HEADS} heads")
        self.grid = grid
        self.confidence_bins = confidence_bins
        self.lstm = nn.LSTM(feature_dim, 256, num_layers=2, batch_first=True, bidirectional=True)
        self.headpos_emeb = nn.Parameter(torch.empty(8, width))  # the decoder's input; spelt as published
        nn.init.normal_(self.headpos_emeb)
        self.yaw_embed = nn.Embedding(pose_bins, width)
        self.pitch_embed = nn.Embedding(pose_bins, width)
        self.roll_embed = nn.Embedding(pose_bins, width)
        self.joint_embed = nn.Embedding(grid**2, width // 2).requires_grad_(train_landmark_embeddings)
        self.c_embed = nn.Embedding(confidence_bins, width // 2).requires_grad_(train_landmark_embeddings)
        encoder: list[nn.Module] = [_EncoderLayer(width, feed_forward, dropout) for _ in range(encoder_layers)]
        decoder: list[nn.Module] = [_DecoderLayer(width, feed_forward, dropout) for _ in range(decoder_layers)]
        self.transformer = nn.ModuleDict({"encoder": _Stack(encoder, width), "decoder": _Stack(decoder, width)})
        for parameter in self.transformer.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self.input_proj = nn.Conv2d(self.map_channels, width, kernel_size=1)
        self.fusion_layer = nn.Linear(8 * width, 512)
        self.combine_layer = nn.Linear(1024, 256)
        self.last_layer = nn.Linear(256, 2)

    def forward(self, window: Window) -> Tensor:
        self.require(window)
        assert window.centre_map is not None
        assert window.priors is not None
        states, _ = self.lstm(window.zeroed())  # (B, T, 512)

        x = self.input_proj(window.centre_map).flatten(2).transpose(1, 2)  # (B, H * W, width)
        height, breadth = window.centre_map.shape[-2:]
        positions = sine_positions(height, breadth, x.shape[2]).to(x)
        memory = self.transformer["encoder"](x, positions)
        learned = self.headpos_emeb.expand(len(x), -1, -1)
        decoded = self.transformer["decoder"](learned, self._queries(window.priors), memory, positions)  # (B, 8, width)

        fused = self.fusion_layer(decoded.flatten(1))
        combined = torch.cat([states[:, states.shape[1] // 2], fused], dim=1)
        return self.last_layer(self.combine_layer(combined))

    def _queries(self, priors: dict[str, Tensor]) -> Tensor:
        """Embed the priors: yaw, pitch, roll and five landmarks, ``(B, 8, width)``."""
        yaw, pitch, roll = priors["head_pose_bins"].unbind(1)
        x, y, confidence = priors["landmarks"].unflatten(1, (3, 5)).unbind(1)
        cells = self.joint_embed(landmark_cells(x, y, self.grid))
        landmarks = torch.cat([cells, self.c_embed(confidence_bins(confidence, self.confidence_bins))], dim=2)
        pose = torch.stack([self.yaw_embed(yaw), self.pitch_embed(pitch), self.roll_embed(roll)], dim=1)
        return torch.cat([pose, landmarks], dim=1)
