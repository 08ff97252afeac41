"""Frames that look: the Viterbi path compared with brute force, and the stream with the whole sequence."""

import itertools

import numpy as np
import pytest

from benchmarks.evaluation.calibration import log_odds
from benchmarks.scoring.looks import COST, Decoder, looks_at, viterbi


@pytest.mark.parametrize("cost", [0.0, 0.3, 1.0, 5.0])
def test_the_path_found_is_the_best_of_all(cost: float) -> None:
    random = np.random.default_rng(0)
    paths = np.array(list(itertools.product([False, True], repeat=9)))
    changes = (paths[:, 1:] != paths[:, :-1]).sum(axis=1)
    for _ in range(50):
        evidence = random.normal(0, 1, 9)
        best = paths[(paths @ evidence - cost * changes).argmax()]
        assert viterbi(evidence, cost).tolist() == best.tolist()


def test_long_tracks_match_the_textbook_with_a_table_of_all_frames() -> None:
    random = np.random.default_rng(1)
    evidence = random.normal(0, 1, (400, 20)) + np.sin(np.arange(400) / 20)[:, None]
    for track in evidence.T:
        best, before = np.array([0.0, track[0]]), []  # of not looking, of looking
        for value in track[1:]:
            reached = best - 2.0 * (1 - np.eye(2))  # to each state (row) from each (column)
            before.append(reached.argmax(axis=1))
            best = reached.max(axis=1) + [0, value]
        path = [int(best.argmax())]
        for choice in reversed(before):
            path.append(int(choice[path[-1]]))
        found = viterbi(track, 2.0)
        assert 0.1 < found.mean() < 0.9
        assert found.tolist() == [state == 1 for state in path[::-1]]


def test_a_stream_decides_each_frame_once_and_not_too_late() -> None:
    """Evidence that favours neither state: the stream takes one after a while, the whole sequence waits."""
    evidence = [1e-3 * (-1) ** frame for frame in range(1, 200)]
    decoder, decided = Decoder(1.0, wait=10), 0
    for count, value in enumerate(evidence, start=1):
        decided += len(decoder.push(value))
        assert count - 10 <= decided < count
    assert decided + len(decoder.finish()) == 199
    assert decoder.finish() == []
    assert decoder.push(1.0) == []
    assert decoder.finish() == [True]
    whole = Decoder(1.0, wait=None)
    assert [look for value in evidence for look in whole.push(value)] == []
    assert len(whole.finish()) == 199


def test_without_cost_each_frame_is_decided_by_its_own_score() -> None:
    scores = np.random.default_rng(2).uniform(0, 1, 50).round(2)
    starts = np.arange(50) % 10 == 0
    thresholds = np.array([0.2, 0.5, 0.83])
    found = looks_at(thresholds, scores, starts, frame_time=1 / 15, cost=0.0)
    np.testing.assert_array_equal(found, scores[:, None] >= thresholds)
    assert looks_at(thresholds, scores[:0], starts[:0], frame_time=1 / 15, cost=1.0).shape == (0, 3)


def test_a_short_look_has_to_be_confident() -> None:
    """One frame in a track that does not look: its log odds must pay for a beginning and an end."""
    for score, looking in ((0.8, False), (0.99, True)):
        scores = np.array([0.1, 0.1, score, 0.1, 0.1])
        assert (log_odds(score) / 15 > 2 * COST) == looking
        starts = np.arange(5) == 0
        assert looks_at(np.array([0.5]), scores, starts, 1 / 15, COST)[2, 0] == looking
    starts = np.arange(5) >= 2  # a track that begins or ends with the look pays for one change less
    assert looks_at(np.array([0.5]), np.array([0.1, 0.1, 0.8, 0.1, 0.1]), starts, 1 / 15, COST)[2, 0]
