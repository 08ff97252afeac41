"""Recurrent heads: InternLSTM's bidirectional LSTM, and a GRU in its place.

Only the last layer's state at the key frame is used. On a CPU each direction of the last layer runs over its half of
the window only: 4 + 4 steps instead of 14 for a window of 7 frames, with the same result.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from heads.base import Depth, Head, Share, Size, Window, in_float32
from registry import HEADS


class _Recurrent(Head):
    """Linear -> bidirectional recurrent layers -> state at the key frame -> multi-layer perceptron.

    Parameters have the names of InternLSTM's published program, so its checkpoints load unchanged. There is no
    nonlinearity after ``fc1``.
    """

    cell: type[nn.LSTM] | type[nn.GRU]
    cell_name: str

    def __init__(
        self,
        feature_dim: int,
        window: int = 7,
        projection: Size = 1000,
        hidden: Size = 1000,
        layers: Depth = 2,
        mlp: tuple[Size, ...] = (1024, 512, 512),
        dropout: Share = 0.5,
        input_dropout: Share = 0.0,
    ) -> None:
        super().__init__(feature_dim, window)
        self.fc1 = nn.Linear(feature_dim, projection)
        self.add_module(self.cell_name, self.cell(projection, hidden, layers, bidirectional=True))
        widths = (2 * hidden, *mlp, 2)
        for index in range(len(widths) - 1):
            self.add_module(f"last_layer{index + 1}", nn.Linear(widths[index], widths[index + 1]))
        self.depth = len(mlp)
        self.dropout = dropout
        self.input_dropout = input_dropout

    def forward(self, window: Window) -> Tensor:
        kept = functional.dropout1d(window.zeroed().transpose(1, 2), self.input_dropout, self.training)
        return self._classify(self._key_frame_state(self.fc1(kept.permute(2, 0, 1))))

    def encode(self, features: Tensor) -> Tensor:
        """Return ``fc1`` of each frame, ``(N, projection)``."""
        return self.fc1(features)

    def judge(self, encoded: Tensor, rows: Tensor, present: Tensor) -> Tensor:
        return self._classify(self._key_frame_state(encoded[rows.t()]))

    def _key_frame_state(self, x: Tensor) -> Tensor:
        """State ``(B, 2 H)`` of the last layer at the key frame, for frames ``(T, B, P)``."""
        layers: Any = self.get_submodule(self.cell_name)
        centre = len(x) // 2
        if x.is_cuda:  # cuDNN runs all layers in one call, for which the weights must be contiguous
            return in_float32(layers, x)[centre]
        *lower, ahead, behind = layers.all_weights
        if lower:
            x = self._run(x, [weight for direction in lower for weight in direction], bidirectional=True)
        return torch.cat(
            [
                self._run(x[: centre + 1], ahead, bidirectional=False)[-1],
                self._run(x[centre:].flip(0), behind, bidirectional=False)[-1],
            ],
            dim=1,
        )

    def _run(self, x: Tensor, weights: list[Tensor], bidirectional: bool) -> Tensor:
        """Outputs of the layers with these weights, from a zero state."""
        count = len(weights) // 4  # layers x directions; each has two matrices and two biases
        zeros = x.new_zeros(count, x.shape[1], weights[1].shape[1])
        layers = count // 2 if bidirectional else count
        options = (True, layers, 0.0, self.training, bidirectional, False)
        if self.cell is nn.LSTM:
            return torch.lstm(x, (zeros, zeros), weights, *options)[0]
        return torch.gru(x, zeros, weights, *options)[0]

    def _classify(self, x: Tensor) -> Tensor:
        for index in range(self.depth):
            x = functional.relu(self.get_submodule(f"last_layer{index + 1}")(x))
            x = functional.dropout(x, self.dropout, self.training)
        return self.get_submodule(f"last_layer{self.depth + 1}")(x)


@HEADS.register_module(name="lstm")
class LSTMHead(_Recurrent):
    """InternLSTM's head: 3200 -> 1000 -> BiLSTM -> 2 at its published size. Absent frames are zero vectors.

    Args:
        feature_dim: D, features per frame.
        window: T, frames per window.
        projection: width of the linear layer before the LSTM.
        hidden: width of each direction of the LSTM.
        layers: LSTM layers.
        mlp: widths of the hidden layers between the state and the two logits.
        dropout: probability after each hidden layer.
        input_dropout: probability of dropping a feature in all frames of a window at once (Gal and Ghahramani 2016,
            "A theoretically grounded application of dropout in recurrent neural networks").
    """

    cell = nn.LSTM
    cell_name = "lstm"


@HEADS.register_module(name="gru")
class GRUHead(_Recurrent):
    """`LSTMHead` with a GRU in place of the LSTM; same arguments."""

    cell = nn.GRU
    cell_name = "gru"
