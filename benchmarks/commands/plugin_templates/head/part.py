"""Head `my_part`: the mean of the present frames, and one linear layer. Replace it with your head."""

from torch import Tensor, nn

from heads.base import Head, Window
from registry import HEADS


@HEADS.register_module(name="my_part")
class MyPart(Head):
    """Mean over the window -> two logits.

    Args:
        feature_dim: D, numbers per frame; set by the backbone.
        window: T, frames per window; set by the recipe.
        dropout: probability before the linear layer; `--set head.dropout=0.2` changes it.
    """

    def __init__(self, feature_dim: int, window: int = 7, dropout: float = 0.5) -> None:
        super().__init__(feature_dim, window)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(feature_dim, 2)

    def forward(self, window: Window) -> Tensor:
        # Absent frames are zero vectors here, and must not count: divide by the number of present frames.
        count = window.present.sum(1, keepdim=True).clamp(min=1)
        return self.classify(self.dropout(window.zeroed().sum(1) / count))
