"""Scores of windows that share frames, compared with one window after another."""

import numpy as np
import pytest
import torch

from benchmarks.features.windows import FeatureData
from benchmarks.scoring.predict import score_windows
from heads.base import Window
from registry import HEADS
from tests.contracts import FIXED_FEATURES

SMALL = {
    "lstm": {"projection": 10, "hidden": 8, "mlp": (9, 8, 7)},
    "gru": {"projection": 10, "hidden": 8, "mlp": (9, 8, 7)},
    "transformer": {"width": 16, "heads": 2, "mlp": 24},
}
ON_FEATURES = [name for name in HEADS.names() if HEADS.get(name).map_channels is None and name not in FIXED_FEATURES]


def neighbours(count: int) -> np.ndarray:
    """Windows around each of `count` frames; some frames are absent, and one window has none."""
    rows = np.arange(count)[:, None] + np.arange(-3, 4)
    rows[(rows < 0) | (rows >= count) | (rows % 5 == 2)] = -1
    rows[4] = -1
    return rows


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("name", ON_FEATURES)
def test_scores_are_those_of_one_window_after_another(name: str, batch_size: int | None) -> None:
    torch.manual_seed(0)
    head = HEADS.build({"type": name, "feature_dim": 6, **SMALL.get(name, {})}).eval()
    features, rows = torch.randn(20, 6), neighbours(20)
    found = score_windows(head, FeatureData(features, rows, np.full(20, -1)), batch_size=batch_size)
    for window, score in zip(rows, found, strict=True):
        frames = torch.stack([features[row] if row >= 0 else torch.full((6,), float("nan")) for row in window])
        with torch.no_grad():
            logits = head(Window(frames[None], torch.from_numpy(window >= 0)[None]))[0].double()
        assert score == pytest.approx(float(1 / (1 + (logits[0] - logits[1]).exp())), abs=1e-6)


def test_each_frame_of_a_batch_is_encoded_once() -> None:
    seen = []

    class Counted(type(HEADS.build({"type": "probe", "feature_dim": 6}))):
        def encode(self, features: torch.Tensor) -> torch.Tensor:
            seen.append(len(features))
            return features

    score_windows(Counted(6), FeatureData(torch.randn(20, 6), neighbours(20), np.full(20, -1)), batch_size=10)
    # Frames 0 to 12 and 7 to 19 without the absent ones, and one vector of zeros for all of these.
    assert seen == [len({*range(13)} - {2, 7, 12}) + 1, len({*range(7, 20)} - {7, 12, 17}) + 1]


def test_features_of_16_bits_are_kept_so_and_scored_in_32() -> None:
    torch.manual_seed(0)
    head = HEADS.build({"type": "lstm", "feature_dim": 6, **SMALL["lstm"]})
    features, rows = torch.randn(20, 6).bfloat16(), neighbours(20)
    narrow, wide = (FeatureData(kind, rows, np.zeros(20, np.int64)) for kind in (features, features.float()))
    assert narrow[:3][0].features.dtype == torch.bfloat16
    assert torch.equal(narrow[:3][0].to("cpu").features, wide[:3][0].features)
    np.testing.assert_array_equal(score_windows(head, narrow), score_windows(head, wide))
