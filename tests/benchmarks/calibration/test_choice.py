"""Which faces are chosen to be marked, and what each of them stands for."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.calibration.choice import APART, SHARES, choose_faces, strata_of, stratum_weights


def table(seed: int = 0, frames: int = 3000, tracks: int = 8) -> pd.DataFrame:
    """Faces of tracks of unequal length at 30 frames per second; one score in ten is high."""
    random = np.random.default_rng(seed)
    parts = []
    for track in range(tracks):
        length = frames // (track + 1)
        number = np.arange(length) + 50 * track
        score = np.where(random.random(length) < 0.1, random.uniform(0.6, 1, length), random.uniform(0, 0.5, length))
        parts.append(pd.DataFrame({"time": number / 30, "frame": number, "track": str(track), "score": score}))
    return pd.concat(parts, ignore_index=True)


def test_strata_by_hand() -> None:
    """Log odds of the scores, less that of 0.5: -4.6, -2.2, 0, 0.4, 1.4, 2.2, 4.6, -0.8; two of eight are nearest."""
    scores = np.array([0.01, 0.1, 0.5, 0.6, 0.8, 0.9, 0.99, 0.3])
    assert strata_of(scores, 0.5).tolist() == [2, 2, 0, 0, 1, 1, 1, 2]


def test_weights_give_every_stratum_its_share_of_the_run() -> None:
    """20 faces near, 30 above, 50 below; marked 4, 1 and 5: each stands for 5, 30 and 10, of a mean of 10."""
    strata = np.repeat([0, 1, 2], [20, 30, 50])
    marked = np.array([0, 1, 2, 3, 20, 50, 60, 70, 80, 90])
    weights = stratum_weights(strata, marked)
    assert weights.tolist() == [0.5] * 4 + [3.0] + [1.0] * 5


def test_the_choice_is_spread_over_scores_tracks_and_times() -> None:
    rows = table()
    chosen = choose_faces(rows, 0.4, 120)
    assert len(set(chosen.tolist())) == 120
    counts = np.bincount(strata_of(rows["score"].to_numpy(), 0.4)[chosen], minlength=3)
    assert np.abs(counts - 120 * np.array(SHARES)).max() <= 2
    of_track = rows.iloc[chosen].groupby("track")
    # The longest track has eight times the frames of the shortest, but no track more than three times its marks.
    assert of_track.size().min() >= 7 and of_track.size().max() <= 24
    for _, marked in of_track:
        times = np.sort(marked["time"].to_numpy())
        assert (np.floor(times[1:] / APART) > np.floor(times[:-1] / APART)).all()
    longest = np.sort(of_track.get_group("0")["time"].to_numpy())
    assert longest[0] < 25 and longest[-1] > 75 and np.diff(longest).max() < 30  # of 100 seconds


def test_the_order_follows_neither_score_nor_time() -> None:
    rows = table()
    chosen = rows.iloc[choose_faces(rows, 0.4, 120)]
    place = np.arange(120)
    for name in ("score", "time"):
        assert abs(np.corrcoef(place, chosen[name])[0, 1]) < 0.3


def test_the_choice_is_the_same_every_time() -> None:
    assert choose_faces(table(), 0.4, 50).tolist() == choose_faces(table(), 0.4, 50).tolist()


@pytest.mark.parametrize(
    ("rows", "count", "expected"),
    [
        (table(frames=12, tracks=1), 120, 2),  # 0.4 seconds of one face
        (table(frames=1, tracks=1), 5, 1),
        (table(frames=30, tracks=8), 3, 3),  # fewer than tracks
        (table().assign(score=0.5), 60, 60),  # a model that says one thing
        (table().assign(score=0.0), 60, 60),
    ],
)
def test_few_faces_and_constant_scores(rows: pd.DataFrame, count: int, expected: int) -> None:
    assert len(choose_faces(rows, 0.5, count)) == expected


def test_weighted_marks_estimate_the_whole_run() -> None:
    """The share of looking faces among the marks is too high by choice; weighted it is that of the run."""
    plain, weighted = [], []
    for seed in range(8):
        rows = table(seed)
        chosen = choose_faces(rows, 0.4, 120)
        high = rows["score"].to_numpy()[chosen] >= 0.6
        weights = stratum_weights(strata_of(rows["score"].to_numpy(), 0.4), chosen)
        plain.append(high.mean())
        weighted.append((high * weights).mean())
    assert np.mean(plain) > 0.14
    assert np.mean(weighted) == pytest.approx(0.1, abs=0.02)
