"""The fit, its cross-validation and its figures against scikit-learn and arithmetic."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

from benchmarks.calibration.fit import (
    Held,
    MarkedFaces,
    best_cut,
    best_fit,
    cross_validate,
    fit,
    group_faces,
)
from benchmarks.calibration.gain import auc, balanced_accuracy, measure_gain
from registry import UserError


def drawn(count: int = 120, seed: int = 0, features: int = 0, useful: float = 0.0, tracks: int = 12) -> MarkedFaces:
    """Faces whose log odds of looking are 0.5 x those of the model, plus 2, plus what their first feature adds."""
    random = np.random.default_rng(seed)
    said, own = random.normal(-3, 3, count), random.normal(0, 1, (count, features))
    true = 0.5 * said + 2 + (useful * own[:, 0] if features else 0)
    labels = (random.random(count) < 1 / (1 + np.exp(-true))).astype(int)
    groups = np.arange(count) * tracks // count
    return MarkedFaces(1 / (1 + np.exp(-said)), own, labels, np.ones(count), groups, "tracks")


def test_many_faces_give_the_calibration_they_were_drawn_with() -> None:
    found = fit(drawn(40_000, features=2, useful=1.5), True)
    assert [found.slope, found.bias] == pytest.approx([0.5, 2.0], abs=0.06)
    assert found.weights == pytest.approx([1.5, 0.0], abs=0.06)


def test_the_fit_is_scikit_learns_on_standardised_inputs() -> None:
    faces = drawn(60)
    x = np.log(faces.scores / (1 - faces.scores))
    scaled = ((x - x.mean()) / x.std())[:, None]
    wanted = LogisticRegression(C=1.0).fit(scaled, faces.labels).predict_proba(scaled)[:, 1]
    assert fit(faces).scores(faces) == pytest.approx(wanted, abs=1e-6)


def test_a_model_that_is_wrong_throughout_keeps_its_order_out_of_the_fit() -> None:
    faces = drawn(200)
    turned = MarkedFaces(1 - faces.scores, faces.features, faces.labels, faces.weights, faces.groups, "tracks")
    found = fit(turned)
    assert found.slope == 0
    assert found.scores(turned) == pytest.approx(np.full(200, faces.labels.mean()))


def test_features_are_fitted_only_where_they_help() -> None:
    assert len(best_fit(drawn(120, features=3, useful=2.0)).weights) == 3
    assert len(best_fit(drawn(120, features=20)).weights) == 0


def test_the_best_cut_lies_between_the_classes() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.8] * 10)
    labels = np.array([0, 0, 0, 1, 1, 1] * 10)
    faces = MarkedFaces(scores, np.empty((60, 0)), labels, np.ones(60), np.repeat(np.arange(10), 6), "tracks")
    # The mean of the log odds of 0.3 and 0.6 is -0.221, which is 0.445.
    assert best_cut(scores, faces) == 0.445


def test_weights_move_the_best_cut() -> None:
    """Looking: 0.4, 0.8. Not: 0.2, 0.6, of which the last stands for nine, or the first looking face does."""
    scores, labels = np.array([0.2, 0.4, 0.6, 0.8] * 5), np.array([0, 1, 0, 1] * 5)
    groups = np.repeat(np.arange(5), 4)
    for weights, low, high in (([1, 1, 9, 1], 0.6, 0.8), ([1, 9, 1, 1], 0.2, 0.4)):
        faces = MarkedFaces(scores, np.empty((20, 0)), labels, np.tile(weights, 5) / 3, groups, "tracks")
        assert low < best_cut(scores, faces) < high


def test_figures_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(1)
    scores, labels = random.random(80).round(1), random.integers(0, 2, 80)
    weights = random.random((3, 80))
    for row, (area, balanced) in zip(
        weights,
        zip(auc(scores, labels, weights), balanced_accuracy(scores >= 0.5, labels, weights), strict=True),
        strict=True,
    ):
        assert area == pytest.approx(roc_auc_score(labels, scores, sample_weight=row))
        assert balanced == pytest.approx(balanced_accuracy_score(labels, scores >= 0.5, sample_weight=row))
    faces = MarkedFaces(scores.clip(0.05, 0.95), np.empty((80, 0)), labels, weights[0], np.arange(80) % 8, "tracks")
    gain = measure_gain(faces, np.full(80, 0.5), Held(faces.scores, scores >= 0.5, scores >= 0.5))
    assert gain.before[2].value == pytest.approx(log_loss(labels, faces.scores, sample_weight=weights[0]))
    assert [each.value for each in gain.difference] == [0, 0, 0]
    assert not gain.calibrated_is_better and not gain.moved_is_better


def test_no_face_has_a_say_in_its_own_score() -> None:
    """Turning the labels of one track around moves the scores of all tracks but those held out with it."""
    faces = drawn(120)
    before = cross_validate(faces)
    labels = faces.labels.copy()
    labels[faces.groups == 3] = 1 - labels[faces.groups == 3]
    after = cross_validate(MarkedFaces(faces.scores, faces.features, labels, faces.weights, faces.groups, "tracks"))
    same = before.scores[faces.groups == 3] == after.scores[faces.groups == 3]
    other = before.scores[faces.groups != 3] == after.scores[faces.groups != 3]
    assert same.all() or not other.all()
    assert (~other).mean() > 0.5


def test_sixty_faces_are_enough_to_gain() -> None:
    """In 8 draws of 60 faces from a world of its own, most calibrations beat the model, also on new faces."""
    better = []
    for seed in range(8):
        faces, new = drawn(60, seed), drawn(4000, 1000 + seed)
        gain = measure_gain(faces, np.full(60, 0.5), cross_validate(faces))
        found = best_fit(faces)
        loss = log_loss(new.labels, found.scores(new))
        better.append(gain.calibrated_is_better and loss < log_loss(new.labels, new.scores))
    assert sum(better) >= 7


def test_a_calibrated_model_gains_nothing() -> None:
    """Where the model's own scores are the truth, a calibration is found better in few of 15 draws."""
    found = 0
    for seed in range(15):
        faces = drawn(60, seed)
        log_odds = 0.5 * np.log(faces.scores / (1 - faces.scores)) + 2
        true = MarkedFaces(
            1 / (1 + np.exp(-log_odds)), faces.features, faces.labels, faces.weights, faces.groups, "tracks"
        )
        found += measure_gain(true, np.full(60, 0.5), cross_validate(true)).calibrated_is_better
    assert found <= 4


def test_intervals_contain_the_truth() -> None:
    """Of 20 draws of 120 faces in 24 tracks, about 19 intervals of the AUC contain that of many faces."""
    many = drawn(200_000, 99)
    true = roc_auc_score(many.labels, many.scores)
    inside = 0
    for seed in range(20):
        faces = drawn(120, seed, tracks=24)
        before = measure_gain(faces, np.full(120, 0.5), Held(faces.scores, faces.labels > 0, faces.labels > 0)).before[
            0
        ]
        inside += before.low <= true <= before.high
    assert inside >= 16


def test_groups_are_tracks_or_blocks_of_time() -> None:
    labels = np.tile([0, 1], 30)
    order = np.arange(60)
    groups, over = group_faces(np.repeat(np.arange(6), 10), order, labels)
    assert (over, groups.tolist()) == ("tracks", np.repeat(np.arange(6), 10).tolist())
    groups, over = group_faces(np.repeat(np.arange(3), 20), order, labels)
    assert (over, groups.tolist()) == ("blocks of time", np.repeat(np.arange(10), 6).tolist())
    # Six tracks, but all looks are in one: without it a fit has one class.
    labels = (np.arange(60) % 6 == 2).astype(int)
    _, over = group_faces(np.arange(60) % 6, order, labels)
    assert over == "blocks of time"


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1] * 5 + [0] * 14, "5 faces are marked looking and 14 not looking; at least 20 are needed"),
        ([1] * 30, "30 faces are marked looking and 0 not looking"),
        ([1] * 4 + [0] * 50, "4 faces are marked looking"),
        ([1] * 5 + [0] * 55, "all faces of one class lie close together in time"),
    ],
)
def test_too_few_marks_are_refused(labels: list[int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        group_faces(np.zeros(len(labels), dtype=int), np.arange(len(labels)), np.array(labels))
