"""Figures compared with the published program, scikit-learn and plain loops."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve

from benchmarks.evaluation.bootstrap import STEPS, best_threshold, bootstrap_interval, resampled
from benchmarks.evaluation.metrics import NAMES, lam_map
from registry import UserError

GOLDEN = Path(__file__).parents[2] / "golden" / "metrics"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


def golden_rows(case):
    truth = pd.read_csv(GOLDEN / f"{case}_gt.csv", header=None)
    predictions = pd.read_csv(GOLDEN / f"{case}_pred.csv", header=None)
    rows = truth.merge(predictions, on=list(range(7)), validate="one_to_one")
    return rows.iloc[:, -1].to_numpy(), rows.iloc[:, 7].to_numpy(), rows[0].to_numpy()


def ap_by_loop(scores, labels):
    """VOC average precision, one distinct score at a time: the best precision at each recall or a higher one."""
    points = []
    for threshold in sorted(set(scores), reverse=True):
        listed = [label for score, label in zip(scores, labels, strict=True) if score >= threshold]
        points.append((sum(listed) / sum(labels), sum(listed) / len(listed)))
    area, before = 0.0, 0.0
    for number, (recall, _) in enumerate(points):
        area += (recall - before) * max(precision for _, precision in points[number:])
        before = recall
    return area


def ap_of_order(labels):
    """VOC average precision of rows in a given order, one at a time, as the published program treats ties."""
    return ap_by_loop(range(len(labels), 0, -1), list(labels))


def evenly_mixed(scores, labels):
    """Row numbers from the best score down; in a tie the k-th of p alike stands at (k - 1/2) / p, not looking first."""
    places = []
    for row, (score, label) in enumerate(zip(scores, labels, strict=True)):
        alike = [i for i in range(len(scores)) if scores[i] == score and labels[i] == label]
        places.append((-score, (alike.index(row) + 0.5) / len(alike), label, row))
    return [row for *_, row in sorted(places)]


@pytest.mark.parametrize("case", [name for name, facts in EXPECTED.items() if not facts["tied_scores"]])
def test_published_figures(case):
    scores, labels, _ = golden_rows(case)
    figures = lam_map(scores, labels)
    facts = EXPECTED[case]
    assert figures.map == pytest.approx(facts["mAP"], abs=1e-9)
    assert figures.ap_looking == pytest.approx(facts["AP"]["looking"], abs=1e-9)
    assert figures.ap_not_looking == pytest.approx(facts["AP"]["not_looking"], abs=1e-9)
    assert figures.accuracy == pytest.approx(facts["accuracy_at_0_5"], abs=1e-12)
    assert (figures.rows, figures.positives) == (facts["rows"], facts["positives"])


def test_tied_scores_lie_between_the_best_and_the_worst_order():
    scores, labels, _ = golden_rows("coarse")
    figures = lam_map(scores, labels)
    assert figures.accuracy == pytest.approx(EXPECTED["coarse"]["accuracy_at_0_5"], abs=1e-12)
    # Each class alone, and mAP with one order of the rows for both, as they stand in a file.
    orders = {}
    for name, key in (("looking first", -labels), ("looking last", labels)):
        looking = ap_of_order(labels[np.lexsort((key, -scores))])
        not_looking = ap_of_order(1 - labels[np.lexsort((key, scores))])
        orders[name] = (looking, not_looking, (looking + not_looking) / 2)
    for value, *ends in zip((figures.ap_looking, figures.ap_not_looking, figures.map), *orders.values(), strict=True):
        assert min(ends) < value < max(ends)


SOME = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), st.integers(0, 1)), min_size=1, max_size=30
)


@given(SOME, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_any_ties_in_any_order(rows, random):
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    figures = lam_map(scores, labels)
    order = list(range(len(rows)))
    random.shuffle(order)
    assert lam_map(scores[order], labels[order]) == figures
    assert figures.accuracy == pytest.approx(np.mean([(s >= 0.5) == y for s, y in rows]))
    if labels.min() == labels.max():
        assert figures.map is figures.ap_looking is figures.ap_not_looking is None
        assert "undefined" in figures.note and "frames" in figures.note
        return
    assert figures.ap_looking == pytest.approx(ap_of_order(labels[evenly_mixed(scores, labels)]), abs=1e-12)
    mixed = evenly_mixed(1 - scores, labels)
    assert figures.ap_not_looking == pytest.approx(ap_of_order(1 - labels[mixed]), abs=1e-12)
    assert figures.map == (figures.ap_looking + figures.ap_not_looking) / 2


@given(st.lists(st.integers(0, 1), min_size=2, max_size=40), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_scikit_learns_curve_with_the_envelope_is_ours(labels, random):
    """Without ties; scikit-learn's average precision is the same staircase without the envelope, so never above."""
    labels = np.array(labels)
    if labels.min() == labels.max():
        return
    ranks = list(range(len(labels)))
    random.shuffle(ranks)
    scores = (np.array(ranks) + 1) / (len(ranks) + 1)
    figures = lam_map(scores, labels)
    assert figures.ap_looking == pytest.approx(ap_by_loop(scores, labels), abs=1e-12)
    for value, own, ranked in ((figures.ap_looking, labels, scores), (figures.ap_not_looking, 1 - labels, 1 - scores)):
        assert average_precision_score(own, ranked) <= value + 1e-12
        precision, recall, _ = precision_recall_curve(own, ranked)
        envelope = np.maximum.accumulate(precision[:-1])
        assert -np.diff(recall) @ envelope == pytest.approx(value, abs=1e-12)


def test_equal_to_scikit_learn_where_precision_only_falls():
    # Positives first, then alternating with ever more negatives: 1, 1, 2/3, 3/4 rises once, so take two blocks.
    labels = np.array([1, 1, 1, 0, 0, 0, 0])
    scores = np.array([0.9, 0.8, 0.7, 0.7, 0.3, 0.2, 0.1])
    assert lam_map(scores, labels).ap_looking == pytest.approx(average_precision_score(labels, scores))
    # By hand: precisions 1, 1, 3/4 at recalls 1/3, 2/3, 1 -> (1 + 1 + 0.75) / 3.
    assert lam_map(scores, labels).ap_looking == pytest.approx(2.75 / 3)


def test_scores_at_the_edges_of_their_range():
    """The two zeros are one score, and the smallest numbers are two."""
    tiny = 5e-324
    scores = np.array([0.0, -0.0, tiny, 2 * tiny, np.nextafter(1, 0), 1.0, 0.0])
    labels = np.array([1, 0, 1, 0, 1, 0, 0])
    figures = lam_map(scores, labels)
    order = evenly_mixed(scores + 0.0, labels)
    assert figures.ap_looking == pytest.approx(ap_of_order(labels[order]), abs=1e-15)
    assert figures == lam_map(scores[::-1], labels[::-1]) == lam_map(np.abs(scores), labels)


def test_one_frame_and_none():
    one = lam_map([0.5], [1])
    assert one.map is None and one.accuracy == 1.0 and one.note == "AP is undefined: no not-looking frames"
    none_looks = lam_map([0.5, 0.1], [0, 0])
    assert none_looks.map is None and none_looks.accuracy == 0.5 and "no looking frames" in none_looks.note
    none = lam_map([], [])
    assert none.map is None and none.accuracy is None and none.rows == 0
    assert json.loads(json.dumps(none.to_dict()))["AP.looking"] is None


def test_confusion_counts():
    figures = lam_map([0.9, 0.5, 0.49, 0.1, 0.7], [1, 1, 1, 0, 0])
    counts = (figures.true_positives, figures.false_positives, figures.true_negatives, figures.false_negatives)
    assert counts == (2, 1, 1, 1)
    values = figures.to_dict()
    assert [*values][:4] == [*NAMES] and values["confusion"]["false_positives"] == 1 and values["positives"] == 3


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, float("nan")], [0, 1], "1 scores are NaN or outside"),
        ([0.1, 1.5], [0, 1], "first is 1.5"),
        ([-0.1, 0.5], [0, 1], "first is -0.1"),
        ([0.1, 0.2], [0, -1], "first is -1"),
        ([0.1, 0.2], [0], "shape"),
    ],
)
def test_refuses(scores, labels, message):
    with pytest.raises(UserError, match=message):
        lam_map(scores, labels)


def resampled_by_loop(scores, labels, clips, counts):
    rows = [i for name, count in counts.items() for _ in range(int(count)) for i in np.flatnonzero(clips == name)]
    return lam_map(scores[rows], labels[rows])


def test_bootstrap_is_that_of_the_repeated_rows(monkeypatch):
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, 60)
    scores = random.permutation(60) / 60  # no ties: they are mixed before clips are drawn, not after
    clips = np.array(list("abcdef"))[random.integers(0, 6, 60)]
    interval = bootstrap_interval(scores, labels, clips, repeats=50, seed=7)
    names = np.unique(clips)
    draws = np.random.default_rng(7).multinomial(len(names), [1 / len(names)] * len(names), size=50)
    each = [resampled_by_loop(scores, labels, clips, dict(zip(names, row, strict=True))).to_dict() for row in draws]
    # Six clips have five degrees of freedom: Student's 2.571 in place of 1.960, times sqrt(6 / 5).
    tail = stats.norm.cdf(-stats.t.ppf(0.975, 5) * np.sqrt(6 / 5))
    assert 0.002 < tail < 0.003
    for name in NAMES:
        expected = np.quantile([one[name] for one in each], (tail, 1 - tail))
        assert interval.bounds[name] == pytest.approx(tuple(expected), abs=1e-12)
    monkeypatch.setattr("benchmarks.evaluation.bootstrap.BLOCK", 7)  # one resample at a time
    assert bootstrap_interval(scores, labels, clips, repeats=50, seed=7) == interval
    order = random.permutation(60)
    assert bootstrap_interval(scores[order], labels[order], clips[order], repeats=50, seed=7) == interval


@pytest.mark.parametrize("levels", [1, 3])
def test_wide_ties_are_mixed_in_each_resample(levels):
    """Constant scores and three levels, over clips of very unequal shares of looks; each resample as repeated rows."""
    random = np.random.default_rng(levels)
    clips = np.repeat(np.arange(6), 40)
    labels = (random.random(240) < np.repeat([0.0, 0.1, 0.1, 0.2, 0.6, 0.9], 40)).astype(int)
    scores = random.integers(0, levels, 240) / levels
    draws = random.multinomial(6, [1 / 6] * 6, size=50).astype(float)
    found = resampled(scores, labels, clips, draws)
    for number, draw in enumerate(draws):
        expected = resampled_by_loop(scores, labels, clips, dict(enumerate(draw))).to_dict()
        assert found[:, number] == pytest.approx([expected[name] for name in NAMES], abs=1e-12)
    whole = lam_map(scores, labels).map
    low, high = bootstrap_interval(scores, labels, clips).bounds["mAP"]
    assert low <= whole <= high


def test_bootstrap_of_more_distinct_scores_than_bins(monkeypatch):
    random = np.random.default_rng(5)
    labels = (random.random(3000) < 0.2).astype(int)
    scores = 1 / (1 + np.exp(-random.normal(2 * labels, 1.2)))
    scores[:20] = 0.125  # one distinct score wider than a bin
    clips = random.integers(0, 12, 3000)
    exact = bootstrap_interval(scores, labels, clips, repeats=100)
    monkeypatch.setattr("benchmarks.evaluation.bootstrap.RANK_BINS", 1000)
    merged = bootstrap_interval(scores, labels, clips, repeats=100)
    for name in NAMES:
        assert merged.bounds[name] == pytest.approx(exact.bounds[name], abs=2e-3)
    assert merged.bounds["mAP"] != exact.bounds["mAP"] and merged.bounds["accuracy"] == exact.bounds["accuracy"]


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    # 40 clips of 20 frames whose accuracy varies from clip to clip; the truth is 0.7 by construction.
    random = np.random.default_rng(0)
    inside = 0
    for number in range(60):
        right = np.repeat(random.uniform(0.4, 1.0, 40), 20) > random.random(800)
        labels = random.integers(0, 2, 800)
        scores = np.where(right, labels, 1 - labels) * 0.8 + 0.1
        low, high = bootstrap_interval(scores, labels, np.repeat(np.arange(40), 20), 200, seed=number).bounds[
            "accuracy"
        ]
        inside += low <= 0.7 <= high
    assert 50 <= inside <= 60  # 95 % of 60 is 57


def test_bootstrap_over_seeds():
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 400)
    clips = random.integers(0, 20, 400)
    good = 0.3 * labels + 0.7 * random.random(400)
    bad = random.random(400)
    single = bootstrap_interval(good, labels, clips)
    assert bootstrap_interval(good[None], labels, clips) == single
    # Equal seeds add no spread; different ones do, and the mean lies between them.
    assert bootstrap_interval(np.stack([good, good]), labels, clips).bounds == single.bounds
    both = bootstrap_interval(np.stack([good, bad]), labels, clips)
    width = {name: both.bounds[name][1] - both.bounds[name][0] for name in NAMES}
    assert width["mAP"] > 2 * (single.bounds["mAP"][1] - single.bounds["mAP"][0])
    assert both.seeds == 2 and both.clips == 20


def test_bootstrap_without_enough_to_draw_from():
    one = bootstrap_interval([0.1, 0.9], [0, 1], ["a", "a"])
    assert one.bounds["mAP"] is None and "only one" in one.note
    # All positives in one of two clips: half the draws miss a class, and the rest is no interval of anything.
    two = bootstrap_interval([0.1, 0.2, 0.9], [0, 0, 1], ["a", "a", "b"], repeats=400)
    assert 150 < two.undefined < 250 and "lack a class" in two.note
    json.dumps(two.to_dict(), allow_nan=False)
    with pytest.raises(UserError, match="one clip per row"):
        bootstrap_interval([0.1, 0.9], [0, 1], ["a"])


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_bootstrap_bounds_are_ordered_and_hold_most_resamples(seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, 40)
    assume(0 < labels.sum() < 40)
    interval = bootstrap_interval(random.random(40), labels, random.integers(0, 8, 40), repeats=40, seed=seed)
    for pair in interval.bounds.values():
        assert pair is None or 0 <= pair[0] <= pair[1] <= 1


def reached(scores: Sequence[float] | np.ndarray) -> np.ndarray:
    """The frames with a score at or above each threshold."""
    return np.array(scores)[:, None] >= STEPS


@pytest.mark.slow
def test_best_threshold_is_that_of_a_plain_search() -> None:
    random = np.random.default_rng(4)
    for _ in range(20):
        labels = random.integers(0, 2, 40)
        scores = np.clip(0.3 * labels + random.normal(0.3, 0.2, 40), 0, 1).round(2)
        found = best_threshold(reached(scores), labels, np.zeros(40))  # resamples of a single clip are that clip
        steps = np.arange(1, 100) / 100
        plain = np.array([f1_score(labels, scores >= t, zero_division=0) for t in steps])
        assert found == pytest.approx(steps[np.isclose(plain, plain.max())].mean(), abs=0.006)
    one, two = np.zeros(2), np.arange(2)
    assert best_threshold(reached([0.1, 0.9]), np.array([0, 0]), one) == 0.5
    assert 0.4 < best_threshold(reached([0.2, 0.8]), np.array([0, 1]), one) < 0.6  # the middle of those between
    assert best_threshold(reached([0.2, 0.8]), np.array([0, 1]), two) == best_threshold(
        reached([0.8, 0.2]), np.array([1, 0]), np.array(["b", "a"])
    )


def test_best_threshold_is_a_mean_over_drawn_clips() -> None:
    """Half of the clips have their best threshold about 0.3, half about 0.7; all together lie between."""
    scores, labels = np.tile([0.2, 0.4, 0.6, 0.8], 10), np.tile([0, 1, 1, 1, 0, 0, 0, 1], 5)
    clips = np.repeat(np.arange(10), 4)
    halves = [
        best_threshold(reached(scores[clips % 2 == half]), labels[clips % 2 == half], clips[clips % 2 == half])
        for half in (0, 1)
    ]
    assert halves == [pytest.approx(0.3, abs=0.02), pytest.approx(0.7, abs=0.02)]
    assert halves[0] < best_threshold(reached(scores), labels, clips) < halves[1]
    assert best_threshold(reached(scores), labels, clips) == best_threshold(reached(scores), labels, clips)
