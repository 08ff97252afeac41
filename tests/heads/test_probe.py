"""The probes use the key frame only; scikit-learn fits the same layer."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from heads.base import Window
from registry import HEADS


def test_probe_ignores_the_neighbours() -> None:
    head = HEADS.build({"type": "probe", "feature_dim": 3})
    features = torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(0))
    present = torch.ones(4, 7, dtype=torch.bool)
    before = head(Window(features, present))
    features[:, [0, 1, 2, 4, 5, 6]] = 9.0
    assert torch.equal(head(Window(features, present)), before)


def test_sklearn_probe_is_scikit_learns_own_probability() -> None:
    random = np.random.default_rng(0)
    x = random.normal(2, [1, 5, 0.1], (200, 3))
    labels = (x[:, 0] + 0.2 * x[:, 1] + random.normal(0, 1, 200) > 3.2).astype(int)
    features = torch.zeros(200, 7, 3)
    features[:, 3] = torch.from_numpy(x).float()
    window = Window(features, torch.ones(200, 7, dtype=torch.bool))
    head = HEADS.build({"type": "probe_sklearn", "feature_dim": 3, "c": 0.3})
    head.fit(window, torch.from_numpy(labels), torch.tensor([0.2, 0.8]))
    with torch.no_grad():
        ours = head(window).softmax(1)[:, 1].numpy()
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, class_weight={0: 0.2, 1: 0.8}, max_iter=2000))
    x = x.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(ours, reference.fit(x, labels).predict_proba(x)[:, 1], atol=1e-4)
