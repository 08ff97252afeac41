"""Head `my_part`: the mean of the frames that are there, and one linear layer. Yours goes in its place."""

from torch import Tensor, nn

from heads.base import Head, Window
from registry import HEADS


@HEADS.register_module(name="my_part")
class MyPart(Head):
    """Mean over the window -> two logits.

    Args:
        feature_dim: D, numbers a frame; the backbone decides.
        window: T, frames a window; the recipe decides.
        dropout: probability before the linear layer. `--set head.dropout=0.2` reaches it.
    """

    def __init__(self, feature_dim: int, window: int = 7, dropout: float = 0.5) -> None:
        super().__init__(feature_dim, window)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(feature_dim, 2)

    def forward(self, window: Window) -> Tensor:
        # Absent frames are zero vectors here, and must have no say: divide by the number of those that are there.
        count = window.present.sum(1, keepdim=True).clamp(min=1)
        return self.classify(self.dropout(window.zeroed().sum(1) / count))
