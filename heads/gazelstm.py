"""GazeLSTM's head: Ego4D's Looking-At-Me baseline after its ResNet-18 trunk."""

from torch import Tensor, nn

from heads.base import Head, Size, Window, in_float32
from registry import HEADS


@HEADS.register_module(name="gazelstm")
class GazeLSTM(Head):
    """Two-layer BiLSTM of width 256, its state at the key frame, then linear 512 -> 128 -> 2.

    Parameters have the names of the published program. There is no nonlinearity between the linear layers. The
    program was published for windows of pixels, where absent frames are filled from present ones; over features an
    absent frame is a zero vector.

    Args:
        feature_dim: D, features per frame; 256 for `gaze_resnet18`.
        window: T, frames per window.
        bottleneck: width between the two linear layers; None for a single one, 512 -> 2.
    """

    def __init__(self, feature_dim: int, window: int = 7, bottleneck: Size | None = 128) -> None:
        super().__init__(feature_dim, window)
        self.lstm = nn.LSTM(feature_dim, 256, num_layers=2, batch_first=True, bidirectional=True)
        if bottleneck is None:
            self.last_layer = nn.Linear(512, 2)
        else:
            self.last_layer1 = nn.Linear(512, bottleneck)
            self.last_layer2 = nn.Linear(bottleneck, 2)
        self.bottleneck = bottleneck

    def forward(self, window: Window) -> Tensor:
        states = in_float32(self.lstm, window.zeroed())  # (B, T, 512)
        state = states[:, states.shape[1] // 2]
        return self.last_layer(state) if self.bottleneck is None else self.last_layer2(self.last_layer1(state))
