import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from benchmarks.evaluation.calibration import log_odds
from benchmarks.evaluation.metrics import lam_map
from benchmarks.scoring.fuse import average_scores, fit_weights, fuse_members
from benchmarks.scoring.smooth import WINDOWS, choose_window, smooth_scores
from registry import UserError


def squash(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def members() -> tuple[np.ndarray, np.ndarray]:
    """Three members: one that knows something, one that knows more and is not confident, one that knows nothing."""
    random = np.random.default_rng(0)
    labels = (random.random(4000) < 0.15).astype(int)
    signal = 2.0 * labels - 1
    x = np.stack(
        [signal + 2 * random.normal(size=4000), 0.3 * (signal + random.normal(size=4000)), random.normal(size=4000)]
    )
    return squash(x), labels


def test_weights_are_those_of_the_logistic_regression(members: tuple) -> None:
    """scikit-learn's, on the same standardised logits and class weights; its C is 1 / (2 n ridge) of a mean loss."""
    scores, labels = members
    x = log_odds(scores)
    theirs = LogisticRegression(C=1 / (2 * 1e-3 * len(labels)), class_weight="balanced", tol=1e-6, max_iter=1000)
    theirs.fit((x / x.std(axis=1, keepdims=True)).T, labels)
    expected = np.maximum(theirs.coef_[0], 0) / x.std(axis=1)
    assert fit_weights(scores, labels) == pytest.approx(expected / expected.sum(), abs=0.02)


def test_the_ensemble_beats_its_members_and_their_plain_mean(members: tuple) -> None:
    scores, labels = members
    half = len(labels) // 2
    weights = fit_weights(scores[:, :half], labels[:half])
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    fused = lam_map(fuse_members(scores[:, half:], weights), labels[half:]).map
    assert fused > max(lam_map(member[half:], labels[half:]).map for member in scores)
    assert fused > lam_map(average_scores(scores[:, half:], "logit"), labels[half:]).map


def test_a_member_that_is_wrong_gets_no_weight_and_a_constant_one_moves_nothing(members: tuple) -> None:
    scores, labels = members
    assert fit_weights(np.stack([scores[0], 1 - scores[1]]), labels)[1] == pytest.approx(0, abs=1e-6)
    weights = fit_weights(np.stack([scores[0], np.full(4000, 0.3)]), labels)
    fused = fuse_members(np.stack([scores[0], np.full(4000, 0.3)]), weights)
    assert lam_map(fused, labels).map == pytest.approx(lam_map(scores[0], labels).map, abs=1e-9)
    assert fit_weights(1 - scores[:2], labels) == pytest.approx([0.5, 0.5])


def test_equal_weights_are_the_mean_logit(members: tuple) -> None:
    scores, _ = members
    np.testing.assert_allclose(fuse_members(scores, np.full(3, 1 / 3)), average_scores(scores, "logit"), atol=1e-15)


def test_certain_scores_stay_finite(members: tuple) -> None:
    scores, labels = members
    scores = np.stack([np.round(scores[0]), scores[1]])
    weights = fit_weights(scores, labels)
    assert np.isfinite(weights).all() and np.isfinite(fuse_members(scores, weights)).all()


def test_one_class_says_so(members: tuple) -> None:
    scores, labels = members
    with pytest.raises(UserError, match="one class only"):
        fit_weights(scores, np.zeros_like(labels))
    frames = pd.DataFrame(dict(clip="c", track="t", frame=np.arange(9)))
    with pytest.raises(UserError, match="one class only"):
        choose_window(frames, np.full((1, 9), 0.5), np.zeros(9, dtype=int), "median")


def test_the_window_is_the_best_of_all_on_these_scores() -> None:
    random = np.random.default_rng(1)
    labels = np.repeat(random.random(60) < 0.3, 12).astype(int)
    scores = squash(np.stack([2.0 * labels - 1 + 2 * random.normal(size=720) for _ in range(2)]))
    frames = pd.DataFrame(dict(clip="c", track="t", frame=np.arange(720)))
    by_hand = {
        window: np.mean([lam_map(smooth_scores(frames, s, "median", window), labels).map for s in scores])
        for window in WINDOWS
    }
    chosen = choose_window(frames, scores, labels, "median")
    assert chosen == max(by_hand, key=by_hand.get) and chosen > 1 and by_hand[chosen] > by_hand[1]


def test_no_smoothing_where_it_does_not_help() -> None:
    labels = np.tile([0, 1], 50)
    frames = pd.DataFrame(dict(clip="c", track="t", frame=np.arange(100)))
    assert choose_window(frames, labels[None] * 0.8 + 0.1, labels, "median") == 1
