"""Bouts against a brute-force loop, and their F1 by hand."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.video.bouts import Bout, BoutOptions, bout_f1, bouts_of, with_durations
from benchmarks.video.scorer import ScoredFace

NOWHERE = np.zeros(4)


def rows_of(scores: dict[str, list[float | None]], step: float = 0.1) -> list[ScoredFace]:
    """Rows by frame; None where the track is absent."""
    length = max(map(len, scores.values()))
    found = [(n, track, of[n]) for n in range(length) for track, of in scores.items() if n < len(of)]
    return [ScoredFace(n * step, n, track, NOWHERE, score) for n, track, score in found if score is not None]


def test_a_bout_by_hand() -> None:
    # Frames 2, 3 and 5 look, from 0.2 to 0.6 s. The gap of 0.1 s is merged, and its score counts in the mean.
    rows = rows_of({"a": [0.1, 0.2, 0.9, 0.8, 0.3, 0.7, 0.1]})
    (bout,) = bouts_of(rows, 0.1, BoutOptions(merge=0.1))
    assert bout == ("a", pytest.approx(0.2), pytest.approx(0.6), pytest.approx((0.9 + 0.8 + 0.3 + 0.7) / 4))
    two = bouts_of(rows, 0.1, BoutOptions(least=0.05, merge=0.05))
    assert [(round(b.start, 3), round(b.end, 3)) for b in two] == [(0.2, 0.4), (0.5, 0.6)]
    assert len(bouts_of(rows, 0.1, BoutOptions(least=0.15, merge=0.05))) == 1


def test_a_cost_of_changes_joins_and_drops_looks() -> None:
    # Without a cost two looks of 0.2 s, 0.3 s apart; the scores between them count less than the cost of two changes.
    scores = [0.1] * 8 + [0.95] * 2 + [0.45] * 3 + [0.95] * 2 + [0.1] * 8
    options = BoutOptions(threshold=0.5, least=0.2, merge=0.2)
    rows = rows_of({"a": scores, "b": [0.1] * 10 + [0.6] * 2 + [0.1] * 10})
    assert [(b.track, round(b.start, 3)) for b in bouts_of(rows, 0.1, options)] == [("a", 0.8), ("b", 1.0), ("a", 1.3)]
    (bout,) = bouts_of(rows, 0.1, replace(options, cost=0.1))
    assert bout == ("a", pytest.approx(0.8), pytest.approx(1.5), pytest.approx(np.mean(scores[8:15])))
    # Half a second without a face: the decoding restarts.
    rows = rows_of({"a": [0.95] * 3 + [None] * 5 + [0.45] * 3})
    assert [(b.start, round(b.end, 3)) for b in bouts_of(rows, 0.1, replace(options, cost=0.1))] == [(0.0, 0.3)]


def test_a_frame_lasts_until_the_next_one_where_the_rate_varies() -> None:
    # Ten frames a second, from 2.0 s five a second: the typical frame follows after five of the nine last intervals.
    times = [*(np.arange(20) / 10).tolist(), *(2.0 + np.arange(20) / 5).tolist()]
    rows = [ScoredFace(time, n, "a", NOWHERE, 0.9) for n, time in enumerate(times)]
    lasts = [seconds for _, seconds in with_durations(rows, 0.1)]
    np.testing.assert_allclose(lasts, [0.1] * 25 + [0.2] * 15)
    (bout,) = bouts_of(rows, 0.1, BoutOptions(merge=0.1))
    assert (bout.start, bout.end) == (0.0, pytest.approx(6.0))
    rows = [ScoredFace(0.0, 0, "a", NOWHERE, 0.9), ScoredFace(0.5, 2, "a", NOWHERE, 0.9)]  # frame 1 has no face
    assert len(bouts_of(rows, 0.1, BoutOptions(least=0))) == 2


def test_nobody_looks_during_a_pause_of_the_video() -> None:
    # 15 frames, half a minute without any, 15 frames; the track goes through it, as boxes of one's own may.
    times = [*(np.arange(15) / 30).tolist(), *(30 + np.arange(15) / 30).tolist()]
    rows = [ScoredFace(time, n, "a", NOWHERE, 0.9) for n, time in enumerate(times)]
    found = bouts_of(rows, 1 / 30, BoutOptions(least=0.4))
    assert [(round(b.start, 6), round(b.end, 6)) for b in found] == [(0.0, 0.5), (30.0, 30.5)]
    assert sum(seconds for _, seconds in with_durations(rows, 1 / 30)) == pytest.approx(1.0)
    # Evidence is weighed by the time that a frame lasts, so half a second against is not outweighed by the pause.
    scores = [0.9] * 14 + [0.6] + [0.1] * 15
    rows = [row._replace(score=score) for row, score in zip(rows, scores, strict=True)]
    (bout,) = bouts_of(rows, 1 / 30, BoutOptions(cost=0.1))
    assert (bout.start, bout.end) == (0.0, pytest.approx(0.5))


@pytest.mark.parametrize("seed", range(3))
def test_durations_match_a_plain_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    times = np.cumsum(random.choice([0.03, 0.04, 0.1, 2.0], 80)).tolist()
    shown = [n for n in range(80) if random.random() < 0.8]
    rows = [ScoredFace(times[n], n, track, NOWHERE, 0.5) for n in shown for track in "ab"]
    known, wanted = [0.05] * 9, []
    for n, after in zip(shown, [*shown[1:], None], strict=True):
        typical = sorted(known[-9:])[4]
        interval = None if after is None else times[after] - times[n]
        if after == n + 1:
            known.append(interval)
            wanted.append(interval if interval <= 1.5 * typical else typical)
        else:
            wanted.append(typical if interval is None else min(interval, typical))
    np.testing.assert_allclose([lasts for _, lasts in with_durations(rows, 0.05)], np.repeat(wanted, 2))


def brute(looks: np.ndarray, merge: int, least: int) -> list[tuple[int, int]]:
    """First and last frame of each bout: closes gaps of up to `merge` frames, then drops short bouts."""
    places = np.flatnonzero(looks)
    out: list[list[int]] = []
    for place in places:
        if out and place - out[-1][1] - 1 <= merge:
            out[-1][1] = place
        else:
            out.append([place, place])
    return [(a, b) for a, b in out if b - a + 1 >= least]


@pytest.mark.parametrize("seed", range(5))
def test_bouts_match_a_plain_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = {track: random.random(200).tolist() for track in "ab"}
    found = bouts_of(rows_of(scores), 0.1, BoutOptions(threshold=0.6, least=0.3))
    for track in "ab":
        wanted = brute(np.array(scores[track]) >= 0.6, merge=2, least=3)
        assert wanted, "the test is vacuous"
        got = [b for b in found if b.track == track]
        assert [(round(b.start * 10), round(b.end * 10) - 1) for b in got] == wanted
        means = [np.mean(scores[track][a : b + 1]) for a, b in wanted]
        np.testing.assert_allclose([b.score for b in got], means)


def test_f1_by_hand() -> None:
    true = [Bout("a", 0, 1, 1), Bout("a", 2, 3, 1), Bout("b", 0, 1, 1)]
    # One covers 0.5 to 1.5 of 0 to 1: 0.5 of 1.5; one is exact; one is of another track.
    found = [Bout("a", 0.5, 1.5, 1), Bout("b", 0, 1, 1), Bout("c", 2, 3, 1)]
    assert bout_f1(true, found, 0.3) == pytest.approx(2 * 2 / 6)
    assert bout_f1(true, found, 0.5) == pytest.approx(2 * 1 / 6)
    # One long bout over two true ones is one hit, whichever it is matched to.
    assert bout_f1(true[:2], [Bout("a", 0, 3, 1)], 0.3) == pytest.approx(2 * 1 / 3)
    assert bout_f1([], [], 0.5) == 1
    assert bout_f1(true, [], 0.5) == 0
