"""Frames that look: the way found is the best of all ways, whether frames come at once or one by one."""

import itertools

import numpy as np
import pytest

from benchmarks.scoring import looks
from benchmarks.scoring.looks import Decoder, log_odds, looks_at, viterbi


def streamed(evidence: np.ndarray, cost: float) -> list[bool]:
    decoder = Decoder(cost)
    told = [look for value in evidence for look in decoder.push(float(value))]
    return told + decoder.finish()


@pytest.mark.parametrize("cost", [0.0, 0.3, 1.0, 5.0])
def test_the_way_found_is_the_best_of_all(cost: float) -> None:
    random = np.random.default_rng(0)
    ways = np.array(list(itertools.product([False, True], repeat=9)))
    changes = (ways[:, 1:] != ways[:, :-1]).sum(axis=1)
    for _ in range(50):
        evidence = random.normal(0, 1, 9)
        best = ways[(ways @ evidence - cost * changes).argmax()]
        assert streamed(evidence, cost) == best.tolist()
        assert viterbi(evidence[:, None], cost)[:, 0].tolist() == best.tolist()


def test_frame_by_frame_is_as_at_once() -> None:
    random = np.random.default_rng(1)
    evidence = random.normal(0, 1, (400, 20)) + np.sin(np.arange(400) / 20)[:, None]
    at_once = viterbi(evidence, 2.0)
    assert 0.2 < at_once.mean() < 0.8
    for track in range(20):
        assert streamed(evidence[:, track], 2.0) == at_once[:, track].tolist()


def test_nothing_is_told_twice_or_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing speaks for either way, one is taken after a while; each frame is told once."""
    monkeypatch.setattr(looks, "WAIT", 10)
    decoder, told = Decoder(1.0), 0
    for frame in range(1, 200):
        told += len(decoder.push(1e-3 * (-1) ** frame))
        assert frame - 10 <= told < frame
    assert told + len(decoder.finish()) == 199
    assert decoder.finish() == []
    assert decoder.push(1.0) == []
    assert decoder.finish() == [True]


def test_without_cost_each_frame_is_judged_by_itself() -> None:
    scores = np.random.default_rng(2).uniform(0, 1, 50).round(2)
    starts = np.arange(50) % 10 == 0
    thresholds = np.array([0.2, 0.5, 0.83])
    found = looks_at(thresholds, scores, starts, frame_time=1 / 15, cost=0.0)
    np.testing.assert_array_equal(found, scores[:, None] >= thresholds)
    assert looks_at(thresholds, scores[:0], starts[:0], frame_time=1 / 15, cost=1.0).shape == (0, 3)


def test_a_short_look_has_to_be_sure() -> None:
    """One frame in a track that does not look: its log odds must pay for a beginning and an end."""
    for score, looking in ((0.8, False), (0.99, True)):
        scores = np.array([0.1, 0.1, score, 0.1, 0.1])
        assert (log_odds(score) / 15 > 2 * looks.COST) == looking
        starts = np.arange(5) == 0
        assert looks_at(np.array([0.5]), scores, starts, 1 / 15, looks.COST)[2, 0] == looking
    starts = np.arange(5) >= 2  # a track that begins with it pays for no beginning, nor one that ends for an end
    assert looks_at(np.array([0.5]), np.array([0.1, 0.1, 0.8, 0.1, 0.1]), starts, 1 / 15, looks.COST)[2, 0]
