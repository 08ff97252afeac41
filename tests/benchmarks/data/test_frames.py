"""Windows against the published programs' and against a loop that looks every neighbour up by name."""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.data.frames import concat, frame_table, numbered, repeated, tracks
from benchmarks.data.windows import image_windows, key_frames, windows
from registry import UserError

GOLDEN = Path(__file__).parents[2] / "golden"


def table(rows, **columns):
    """A frame table of (clip, track, frame) rows, with an image each."""
    clip, track, frame = zip(*rows, strict=True) if rows else ((), (), ())
    fill = {
        "person": "1",
        "x1": 0.0,
        "y1": 0.0,
        "x2": 9.0,
        "y2": 9.0,
        "label": 0,
        "image": "a.jpg",
        "unique_id": "",
    } | columns
    return frame_table({"clip": list(clip), "track": list(track), "frame": list(frame), **fill})


ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["t", "u"]), st.integers(0, 25)),
    min_size=1,
    max_size=40,
    unique=True,
)


def test_windows_of_the_published_test_index():
    golden = json.loads((GOLDEN / "test_windows.json").read_text())
    parts = [name.split("/") for name in golden["files"]]
    frames = table([(clip, track, int(name.split("_")[0])) for clip, track, name in parts])
    name_of = {(c, t, int(n.split("_")[0])): n.split("_")[1].removesuffix(".jpg") for c, t, n in parts}
    ids = [name_of[key] for key in zip(frames["clip"], frames["track"], frames["frame"], strict=True)]
    found = windows(frames)
    filled = image_windows(found)
    assert len(golden["windows"]) == len(frames) == len(found)
    for case in golden["windows"]:
        row = ids.index(case["unique_id"])
        assert [ids[i] if i >= 0 else None for i in found[row]] == case["window"]
        assert [ids[i] for i in filled[row]] == case["image_window"]


@given(ROWS, st.randoms(use_true_random=False), st.integers(0, 5), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_windows_agree_with_looking_each_neighbour_up(rows, random, radius, stride):
    frames = table(rows)
    frames["image"] = np.where(np.array([random.random() < 0.8 for _ in rows]), "x.jpg", "")
    shuffled = frames.sample(frac=1, random_state=random.randint(0, 99)).reset_index(drop=True)
    for given_order in (frames, shuffled):
        keys = list(zip(given_order["clip"], given_order["track"], given_order["frame"], strict=True))
        row_of = {key: i for i, key in enumerate(keys) if given_order["image"][i]}
        expected = [[row_of.get((c, t, f + d), -1) for d in range(-radius, radius + 1)] for c, t, f in keys]
        np.testing.assert_array_equal(windows(given_order, radius), expected)
        centres = key_frames(given_order, stride)
        np.testing.assert_array_equal(windows(given_order, radius, centres), np.array(expected)[centres])
        # Position within the track, counted in frame order.
        for i, (c, t, f) in enumerate(keys):
            assert centres[i] == (sum(k[:2] == (c, t) and k[2] < f for k in keys) % stride == 0)


@given(ROWS, st.randoms(use_true_random=False), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_windows_of_all_rows_agree_with_looking_each_neighbour_up(rows, random, radius):
    frames = table(rows)
    random.shuffle(rows)
    row_of = {key: i for i, key in enumerate(rows)}
    expected = [[row_of.get((c, t, f + d), -1) for d in range(-radius, radius + 1)] for c, t, f in rows]
    shuffled = pd.DataFrame(rows, columns=["clip", "track", "frame"]).assign(image="x.jpg")
    np.testing.assert_array_equal(windows(shuffled, radius), expected)
    np.testing.assert_array_equal(windows(shuffled, radius, centres=np.ones(len(rows), bool)), expected)
    number = {key: i for i, key in enumerate(sorted({row[:2] for row in rows}))}
    assert tracks(shuffled).tolist() == [number[row[:2]] for row in rows]
    assert tracks(frames).tolist() == sorted(tracks(shuffled).tolist())


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "10", "9"]), st.integers(1, 4)), max_size=12))
@settings(max_examples=100, deadline=None)
def test_numbering_and_repeating_text(runs):
    values = [value for value, count in runs for _ in range(count)]
    order = sorted(set(values))
    column = pd.Series(values, dtype=object).astype(str)
    made = repeated([value for value, _ in runs], [count for _, count in runs])
    pd.testing.assert_series_equal(pd.Series(made), column)
    for given_as in (column, np.array(values, dtype=object)):
        codes, count = numbered(given_as, sort=True)
        assert codes.tolist() == [order.index(value) for value in values]
        assert count == len(order)
        assert numbered(given_as)[0].tolist() == [list(dict.fromkeys(values)).index(value) for value in values]


def test_present_overrides_missing_images():
    frames = table([("c", "t", 1), ("c", "t", 2)], image="")
    assert windows(frames, 1).tolist() == [[-1, -1, -1], [-1, -1, -1]]
    assert windows(frames, 1, present=np.ones(2, bool)).tolist() == [[-1, 0, 1], [0, 1, -1]]


def test_windows_of_nothing():
    frames = table([])
    assert windows(frames).shape == (0, 7) and key_frames(frames).shape == (0,) and tracks(frames).shape == (0,)
    one = table([("c", "t", 10**9)])
    assert windows(one).tolist() == [[-1, -1, -1, 0, -1, -1, -1]]
    assert windows(one, centres=np.zeros(1, bool)).shape == (0, 7)


def test_frame_numbers_that_cannot_be_frames():
    assert windows(table([("c", "t", 0), ("d", "t", 2**31 - 1)]), 1).tolist() == [[-1, 0, -1], [-1, 1, -1]]
    for frame in (2**31, 2**62, -(2**31)):
        with pytest.raises(UserError, match=f"frame {frame}; a frame number is below"):
            table([("c", "t", 0), ("d", "t", frame)])


@pytest.mark.parametrize(
    ("window", "filled"),
    [
        ([-1, -1, -1, 5, -1, -1, -1], [5, 5, 5, 5, 5, 5, 5]),
        ([1, -1, -1, 4, -1, 6, 7], [1, 1, 1, 4, 6, 7, 7]),  # the published case of the golden file's frame 34
        ([1, -1, 3, 4, -1, -1, 7], [1, 1, 3, 4, 7, 7, 7]),
        ([-1, 2, -1, -1, -1, 6, -1], [2, 2, 2, 2, 6, 6, 6]),  # no centre: the earlier of the two nearest
        ([-1, -1, -1, -1, -1, -1, -1], [-1] * 7),
    ],
)
def test_image_windows(window, filled):
    assert image_windows(np.array([window])).tolist() == [filled]


def test_key_frames_restart_in_each_track_and_go_by_position():
    frames = table([("c", "t", f) for f in (47, 48, 60, 61, 90)] + [("c", "u", f) for f in (5, 6, 7)])
    assert frames["frame"][key_frames(frames, 2)].tolist() == [47, 60, 90, 5, 7]
    with pytest.raises(UserError, match="stride 0"):
        key_frames(frames, 0)


def test_frame_table_sorts_and_sets_types():
    columns = {"clip": ["b", "a"], "track": ["1", "1"], "frame": ["3", "2"], "person": [1, 2], "label": [1, -1]}
    columns |= {
        "x1": 0,
        "y1": 0,
        "x2": "4.5",
        "y2": 1,
        "image": "",
        "unique_id": ["007", "9"],
        "keyframe": [True, False],
    }
    frames = frame_table(columns)
    assert frames["clip"].tolist() == ["a", "b"] and frames["frame"].tolist() == [2, 3]
    assert frames["unique_id"].tolist() == ["9", "007"] and frames["person"].tolist() == ["2", "1"]
    assert frames["frame"].dtype == frames["label"].dtype == np.int64 and frames["x2"].dtype == np.float64
    assert frames["keyframe"].tolist() == [False, True] and frames.index.tolist() == [0, 1]
    joined = concat([frames, frames.assign(clip="c", frame=[1, 2])])
    assert joined["clip"].tolist() == ["a", "b", "c", "c"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": [1, 1]}, "frame 1 of clip c, track t is listed twice"),
        ({"frame": [1, 1.5]}, "frame has fractions"),
        ({"frame": [1, "x"]}, "x"),
        ({"label": 2}, "label 2"),
        ({"x1": "left"}, "left"),
    ],
)
def test_frame_table_refuses(change, message):
    columns = {
        "clip": "c",
        "track": "t",
        "frame": [1, 2],
        "person": "",
        "x1": 0,
        "y1": 0,
        "x2": 1,
        "y2": 1,
        "label": 0,
        "image": "",
        "unique_id": "",
    }
    with pytest.raises(UserError, match=message) as caught:
        frame_table(columns | change, "here.csv")
    assert str(caught.value).startswith("here.csv: ") and "\n" not in str(caught.value)


def test_frame_table_needs_every_column():
    with pytest.raises(UserError, match="no column person, x1"):
        frame_table({"clip": [], "track": [], "frame": []})


def test_windows_take_linear_time():
    def seconds(tracks_of_1000):
        frame = np.tile(np.cumsum(np.random.default_rng(0).integers(1, 4, 1000)), tracks_of_1000)
        track = np.repeat([f"{i:04d}" for i in range(tracks_of_1000)], 1000).astype(object)
        frames = pd.DataFrame({"clip": "c", "track": track, "frame": frame, "image": "x"})
        began = time.perf_counter()
        windows(frames)
        return time.perf_counter() - began

    # Generous for a busy machine (0.1 s alone): 10 times the rows may not take 100 times as long.
    assert min(seconds(200) for _ in range(3)) < 40 * max(min(seconds(20) for _ in range(3)), 0.005)
