"""Linear probes of the key frame alone: the baseline for temporal heads."""

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from heads.base import Head, Window
from registry import HEADS


@HEADS.register_module(name="probe")
class Probe(Head):
    """One linear layer on the key frame's features, trained by gradient descent like the temporal heads."""

    def __init__(self, feature_dim: int, window: int = 7) -> None:
        super().__init__(feature_dim, window)
        self.linear = nn.Linear(feature_dim, 2)

    def forward(self, window: Window) -> Tensor:
        features = window.zeroed()
        return self.linear(features[:, features.shape[1] // 2])


@HEADS.register_module(name="probe_sklearn")
class SklearnProbe(Probe):
    """`Probe` fitted by scikit-learn's logistic regression on standardised features.

    The standardisation is folded into the linear layer, so the parameters are those of `Probe`. The logits are
    ``(-z, z) / 2`` for scikit-learn's decision value z; their softmax is ``predict_proba``.

    Args:
        feature_dim: D, features per frame.
        window: T, frames per window.
        c: inverse strength of the L2 penalty.
    """

    def __init__(self, feature_dim: int, window: int = 7, c: Annotated[float, Meta(gt=0, le=1e6)] = 1.0) -> None:
        super().__init__(feature_dim, window)
        self.c = c

    @torch.no_grad()
    def fit(self, window: Window, labels: Tensor, class_weight: Tensor) -> None:
        """Fit the weights to all training windows.

        Args:
            window: all training windows.
            labels: ``(B,)`` int64, 0 or 1.
            class_weight: ``(2,)``, weight of each class in the loss.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        features = window.zeroed()
        scaler = StandardScaler()
        x = scaler.fit_transform(features[:, features.shape[1] // 2].double().cpu().numpy())
        weights = {label: float(weight) for label, weight in enumerate(class_weight)}
        model = LogisticRegression(C=self.c, class_weight=weights, max_iter=2000).fit(x, labels.cpu().numpy())
        # z = w (x - mean) / scale + b
        slope = torch.from_numpy(model.coef_[0] / scaler.scale_)
        offset = torch.tensor(model.intercept_[0]) - (slope * torch.from_numpy(scaler.mean_)).sum()
        self.linear.weight.copy_(torch.stack([-slope, slope]) / 2)
        self.linear.bias.copy_(torch.stack([-offset, offset]) / 2)
