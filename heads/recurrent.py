"""Recurrent heads: InternLSTM's bidirectional LSTM, and the same with gated recurrent units."""

from torch import Tensor, nn
from torch.nn import functional

from heads.base import Head, Window
from registry import HEADS


class _Recurrent(Head):
    """Linear -> bidirectional recurrent layers -> the key frame's state -> multi-layer perceptron.

    Parameters carry the names of InternLSTM's published program, so that its checkpoints load as they are. There is no
    nonlinearity after ``fc1``.
    """

    cell: type[nn.LSTM] | type[nn.GRU]
    cell_name: str

    def __init__(
        self,
        feature_dim: int,
        window: int = 7,
        projection: int = 1000,
        hidden: int = 1000,
        layers: int = 2,
        mlp: tuple[int, ...] = (1024, 512, 512),
        dropout: float = 0.5,
    ) -> None:
        super().__init__(feature_dim, window)
        self.fc1 = nn.Linear(feature_dim, projection)
        cell = self.cell(projection, hidden, layers, batch_first=True, bidirectional=True)
        self.add_module(self.cell_name, cell)
        widths = (2 * hidden, *mlp, 2)
        for index in range(len(widths) - 1):
            self.add_module(f"last_layer{index + 1}", nn.Linear(widths[index], widths[index + 1]))
        self.depth = len(mlp)
        self.dropout = dropout

    def forward(self, window: Window) -> Tensor:
        features = window.zeroed()
        states, _ = self.get_submodule(self.cell_name)(self.fc1(features))  # (B, T, 2 * hidden)
        x = states[:, features.shape[1] // 2]
        for index in range(self.depth):
            x = functional.relu(self.get_submodule(f"last_layer{index + 1}")(x))
            x = functional.dropout(x, self.dropout, self.training)
        return self.get_submodule(f"last_layer{self.depth + 1}")(x)


@HEADS.register_module(name="lstm")
class LSTMHead(_Recurrent):
    """InternLSTM's head: 3200 -> 1000 -> BiLSTM -> 2 at its published size. Absent frames are zero vectors.

    Args:
        feature_dim: D, numbers a frame.
        window: T, frames a window.
        projection: width of the linear layer before the LSTM.
        hidden: width of each direction of the LSTM.
        layers: LSTM layers.
        mlp: widths of the layers between the key frame's state and the two logits.
        dropout: probability after each of those.
    """

    cell = nn.LSTM
    cell_name = "lstm"


@HEADS.register_module(name="gru")
class GRUHead(_Recurrent):
    """`LSTMHead` with gated recurrent units in place of the LSTM; the same arguments."""

    cell = nn.GRU
    cell_name = "gru"
