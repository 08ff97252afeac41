"""Prediction files: published ones, refused ones; averages and smoothing compared with loops."""

import os
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from benchmarks.scoring.files import (
    is_test,
    match,
    read_groundtruth,
    read_prediction_file,
    write_groundtruth,
    write_predictions,
)
from benchmarks.scoring.fuse import average_scores, average_tables
from benchmarks.scoring.smooth import smooth_scores
from registry import UserError

TTA = Path(__file__).parents[2] / "golden" / "metrics" / "tta"
HEADER = "clip,frame,x1,y1,x2,y2,track,label,score"
VAL_LINES = ["c,3,1.5,2,3,4,t,1,0.25", "c,4,1.5,2,3,4,t,1,0.5", "d,3,0,0,1,1,t,1,1"]
VAL_TRUTH = ["c,3,1.5,2,3,4,t,0", "c,4,1.5,2,3,4,t,1", "d,3,0,0,1,1,t,1"]
TEST_LINES = ["v,007,t,1,0.1", "v,10e5,t,1,0.2"]


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_published_test_time_average(tmp_path):
    tables = [read_prediction_file(TTA / f"pred_{view}.csv") for view in ("original", "flipped")]
    expected = read_prediction_file(TTA / "pred_averaged.csv")
    for order in (tables, tables[::-1], [t.sample(frac=1, random_state=3).reset_index(drop=True) for t in tables]):
        fused = average_tables(order, ["a", "b"])
        pd.testing.assert_frame_equal(fused, expected, rtol=0, atol=1e-12)
    write_predictions(tmp_path / "out.csv", fused, "test")
    assert (tmp_path / "out.csv").read_bytes() == (TTA / "pred_averaged.csv").read_bytes()


def test_reading_keeps_ids_and_digits(tmp_path):
    table = read_prediction_file(write(tmp_path / "p.csv", ["v,007,1e3,1,0.30000000000000004", "v,10e5,NA,1,1e-300"]))
    assert table["unique_id"].tolist() == ["007", "10e5"] and table["track"].tolist() == ["1e3", "NA"]
    assert table["score"].tolist() == [0.1 + 0.2, 1e-300]
    table = read_prediction_file(write(tmp_path / "v.csv", VAL_LINES))
    assert table.columns.tolist() == ["clip", "frame", "x1", "y1", "x2", "y2", "track", "score"]
    assert table["frame"].dtype == np.int64 and table["x1"].tolist() == [1.5, 1.5, 0]
    table.loc[0, ["x1", "score", "clip"]] = [7, 0.5, "other"]  # the caller's own
    assert table["score"].tolist() == [0.5, 0.5, 1] and table["clip"][0] == "other"
    truth = read_groundtruth(write(tmp_path / "g.csv", VAL_TRUTH))
    assert truth["label"].tolist() == [0, 1, 1] and truth["label"].dtype == np.int64
    windows_file = tmp_path / "w.csv"
    windows_file.write_bytes("\r\n".join(VAL_LINES).encode())  # no newline at the end either
    assert read_prediction_file(windows_file)["score"].tolist() == [0.25, 0.5, 1.0]


def test_blanks_after_commas_do_not_count(tmp_path):
    tight = read_prediction_file(write(tmp_path / "p.csv", VAL_LINES))
    for form in (", ", ",  "):
        spaced = write(tmp_path / "s.csv", ["", *(f" {line}".replace(",", form) for line in VAL_LINES)])
        pd.testing.assert_frame_equal(read_prediction_file(spaced), tight)
    inside = read_prediction_file(write(tmp_path / "i.csv", ["my clip,007,a b,1,0.5"]))
    assert inside["clip"].tolist() == ["my clip"] and inside["track"].tolist() == ["a b"]


def test_ids_may_have_commas_quotes_and_line_ends(tmp_path):
    """Fused and written, they are what was read."""
    lines = ['"a,b",1,1,2,3,4,"t,""1""",1,0.25', '"a,b",2,1,2,3,4,"t\n2",1,0.5', "c,1,1,2,3,4,t,1,1"]
    table = read_prediction_file(write(tmp_path / "p.csv", lines))
    assert table["clip"].tolist() == ["a,b", "a,b", "c"] and table["track"].tolist() == ['t,"1"', "t\n2", "t"]
    assert table["score"].tolist() == [0.25, 0.5, 1]
    fused = average_tables([table, table[::-1].reset_index(drop=True)], "ab")
    write_predictions(tmp_path / "f.csv", fused, "val")
    pd.testing.assert_frame_equal(read_prediction_file(tmp_path / "f.csv"), fused)
    assert fused["score"].to_numpy()[match(table, fused, ("p", "f"))].tolist() == [0.25, 0.5, 1]
    truth = read_groundtruth(write(tmp_path / "g.csv", [line.rpartition(",1,")[0] + ",1" for line in lines[::-1]]))
    assert match(truth, table, ("g", "p")).tolist() == [2, 1, 0]
    alone = read_prediction_file(write(tmp_path / "t.csv", ['"x\ny,z",007,t,1,0.5']))
    assert alone["clip"].tolist() == ["x\ny,z"] and is_test(alone)


@pytest.mark.parametrize("rows", [131_071, 131_072, 131_073])  # pandas parses 131,072 rows of five columns at a time
def test_long_rows_between_blocks_are_refused(tmp_path, rows):
    path = tmp_path / "p.csv"
    path.write_text("".join(f"v,{row},t,1,0.5\n" for row in range(rows)) + "v,w,1,t,1,0.5\n")
    with pytest.raises(UserError, match=f"line {rows + 1} has 6 fields instead of 5"):
        read_prediction_file(path)


def test_pipes_and_names_that_look_compressed(tmp_path):
    tight = read_prediction_file(write(tmp_path / "p.csv", VAL_LINES))
    pd.testing.assert_frame_equal(read_prediction_file(write(tmp_path / "p.csv.gz", VAL_LINES)), tight)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        writer = threading.Thread(target=write, args=(tmp_path / "pipe", VAL_LINES), daemon=True)
        writer.start()
        pd.testing.assert_frame_equal(read_prediction_file(tmp_path / "pipe"), tight)
        writer.join()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_writing_loses_nothing(tmp_path_factory, scores):
    folder = tmp_path_factory.mktemp("round")
    boxes = {name: np.random.default_rng(0).random(len(scores)) * 1000 for name in ("x1", "y1", "x2", "y2")}
    val = pd.DataFrame({"clip": "c", "frame": range(len(scores)), **boxes, "track": "007", "score": scores})
    write_predictions(folder / "v.csv", val.assign(label=1, image="x"), "val")
    pd.testing.assert_frame_equal(read_prediction_file(folder / "v.csv"), val, check_exact=True)
    test = pd.DataFrame({"clip": "c", "unique_id": [f"{i:05d}" for i in val["frame"]], "track": "1", "score": scores})
    write_predictions(folder / "t.csv", test, "test")
    pd.testing.assert_frame_equal(read_prediction_file(folder / "t.csv"), test, check_exact=True)
    truth = test.drop(columns="score").assign(label=1)
    write_groundtruth(folder / "g.csv", truth, "test")
    pd.testing.assert_frame_equal(read_groundtruth(folder / "g.csv"), truth)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "empty; a prediction file has 9 (clip,frame,x1,y1,x2,y2,track,1,score) or 5 (video,unique_id,track,1"),
        (["a,b,c"], "3 columns; a prediction file has 9"),
        (VAL_TRUTH, "8 columns; a prediction file has 9"),
        ([HEADER, *VAL_LINES], "row 1, column frame: 'frame' is not a number; these files have no header"),
        ([*VAL_LINES, "e,1,1,1,1"], "line 4 has 5 fields instead of 9"),
        ([*VAL_LINES, "e"], "line 4 has 1 field instead of 9"),
        ([*VAL_LINES, "e,1,1,1,1,1,t,1,0.5,7"], "line 4 has 10 fields instead of 9"),
        ([*VAL_LINES, "e,1,1,1,1,1,t,1,0.5,"], "line 4 has 10 fields instead of 9"),
        ([*VAL_LINES, '"e,f",1,1,1,1,1,t,1'], "line 4 has 8 fields instead of 9"),
        ([*VAL_LINES, "e,f,1,1,1,1,1,t,1,0.5"], "line 4 has 10 fields instead of 9"),
        (['"e,f",1,1,1,1,1,t,0.5'], "8 columns; a prediction file has 9"),
        ([VAL_LINES[0], "e,x,1,1,1,1,t,1,0.5", "e,y,1,1,1,1,t,1,0"], "row 2 (and 1 more), column frame: 'x' is no"),
        ([VAL_LINES[0], "e,1,1,1,1,1,t,1,"], "row 2, column score: empty"),
        (["e,1.5,1,1,1,1,t,1,0.5"], "row 1: frame 1.5 is not a whole number"),
        (["e,inf,1,1,1,1,t,1,0.5"], "row 1: frame inf is not a whole number"),
        (["e,1e300,1,1,1,1,t,1,0.5"], "row 1: frame 1e+300 is not a whole number"),
        ([VAL_LINES[0], f"e,{2**31},1,1,1,1,t,1,0.5"], "row 2: frame 2147483648.0 is not a whole number below 2^31"),
        ([f"e,{2**53 + 1},1,1,1,1,t,1,0.5"], "row 1: frame 9007199254740992.0 is not a whole number below 2^31"),
        (["e,1,1,inf,1,1,t,1,0.5"], "row 1: y1 inf is not a number below 2^31"),
        (["e,1,1,1,-3e9,1,t,1,0.5"] * 2, "row 1 (and 1 more): x2 -3000000000.0 is not a number below 2^31"),
        (["e,1,1,1,1,1,t,0,0.5"], "row 1: the column before the score must be 1"),
        (["v,1,t,1,1.5"], "row 1: score 1.5 is not in [0, 1]"),
        (["v,1,t,1,-0.5"], "score -0.5"),
        (["v,1,t,1,nan", "v,2,t,1,nan"], "row 1 (and 1 more), column score: 'nan' is not a number"),
        (["v,1,t,1,inf"], "score inf"),
        ([*VAL_LINES, VAL_LINES[0]], "1 repeated rows: clip c, track t, frame 3"),
        (["v,1,t,1,0.5"] * 3, "2 repeated rows, the first: video v, track t, unique id 1"),
    ],
)  # fmt: skip
def test_predictions_refused(tmp_path, lines, message):
    path = write(tmp_path / "p.csv", lines)
    with pytest.raises(UserError) as caught:
        read_prediction_file(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert message in str(caught.value)


def test_groundtruth_refused(tmp_path):
    with pytest.raises(UserError, match="p.csv: No such file"):
        read_groundtruth(tmp_path / "p.csv")
    with pytest.raises(UserError, match=r"9 columns; a ground truth file has 8 \(clip,frame,x1,y1,x2,y2,track,label\)"):
        read_groundtruth(write(tmp_path / "p.csv", VAL_LINES))
    with pytest.raises(UserError, match="row 2: label 2 is neither 1"):
        read_groundtruth(write(tmp_path / "p.csv", ["v,1,t,0", "v,2,t,2"]))


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("tu"), st.sampled_from([0, 1, 2, 2**31 - 1])), max_size=12
    )
)
@settings(max_examples=60, deadline=None)
def test_rows_that_come_twice_are_counted(tmp_path_factory, keys):
    """In any order, next to each other or not."""
    path = write(tmp_path_factory.mktemp("d") / "p.csv", [f"{c},{f},0,0,1,1,{t},1,0.5" for c, t, f in keys] or ["x"])
    twice = len(keys) - len(set(keys))
    if not keys or twice:
        with pytest.raises(UserError, match=f"{twice} repeated rows" if keys else "1 columns"):
            read_prediction_file(path)
    else:
        assert len(read_prediction_file(path)) == len(keys)


def tables(tmp_path, first, second):
    return read_groundtruth(write(tmp_path / "g.csv", first)), read_prediction_file(write(tmp_path / "p.csv", second))


def test_match_goes_by_key(tmp_path):
    truth, predictions = tables(tmp_path, VAL_TRUTH, VAL_LINES[::-1])
    assert match(truth, predictions, ("g", "p")).tolist() == [2, 1, 0]
    rounded = [VAL_LINES[0].replace("1.5", "1.5000004"), *VAL_LINES[1:]]
    truth, predictions = tables(tmp_path, VAL_TRUTH, rounded)
    assert match(truth, predictions, ("g", "p")).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (VAL_LINES[:2], "p lacks 1 of the 3 rows of g: clip d, track t, frame 3"),
        (VAL_LINES[:1], "p lacks 2 of the 3 rows of g, the first: clip c, track t, frame 4"),
        ([*VAL_LINES, "c,9,1,1,1,1,u,1,0.5"], "p has 1 rows that g lacks: clip c, track u, frame 9"),
        (
            [*VAL_LINES[:2], "e,3,0,0,1,1,t,1,1"],
            "p lacks 1 of the 3 rows of g: clip d, track t, frame 3; p has 1 rows that g lacks: clip e, track t",
        ),
        (
            [VAL_LINES[0].replace("1.5", "2.5"), *VAL_LINES[1:]],
            "g and p have different boxes in 1 of 3 rows, by up to 1 pixels",
        ),
        (TEST_LINES, "g is in validation format and p in test format"),
    ],
)
def test_match_refuses(tmp_path, lines, message):
    truth, predictions = tables(tmp_path, VAL_TRUTH, lines)
    with pytest.raises(UserError) as caught:
        match(truth, predictions, ("g", "p"))
    assert message in str(caught.value)


KEYS = st.tuples(st.sampled_from("ab"), st.sampled_from("tu"), st.integers(0, 9))


@given(st.lists(KEYS, unique=True, max_size=15), st.lists(KEYS, unique=True, max_size=15))
@settings(max_examples=100, deadline=None)
def test_match_agrees_with_a_dictionary(first, second):
    def table(keys):
        frame = pd.DataFrame(keys, columns=["clip", "track", "frame"])
        return frame.astype({"clip": str, "track": str, "frame": int}).assign(x1=0.0, y1=0.0, x2=1.0, y2=1.0)

    if set(first) == set(second):
        assert match(table(first), table(second), ("a", "b")).tolist() == [second.index(key) for key in first]
    else:
        with pytest.raises(UserError) as caught:
            match(table(first), table(second), ("a", "b"))
        for count, words in (
            (len(set(first) - set(second)), "b lacks {}"),
            (len(set(second) - set(first)), "b has {}"),
        ):
            assert (words.format(count) in str(caught.value)) == (count > 0)


def test_fusions_by_hand():
    scores = np.array([[0.2, 0.8, 0.5], [0.4, 0.4, 1.0]])
    np.testing.assert_allclose(average_scores(scores), [0.3, 0.6, 0.75])
    # logit(0.2) + logit(0.4) = ln(1/4) + ln(2/3) = ln(1/6); half of it is ln(1/sqrt 6).
    assert average_scores(scores, "logit")[0] == pytest.approx(1 / (1 + np.sqrt(6)))
    ranks = np.stack([(rankdata(row) - 0.5) / 3 for row in scores]).mean(axis=0)
    np.testing.assert_allclose(average_scores(scores, "rank"), ranks)
    certain = average_scores(np.array([[0.0, 1.0], [1.0, 1.0]]), "logit")
    assert certain[0] == pytest.approx(0.5) and 0.999 < certain[1] <= 1


def test_fuse_refuses_other_rows(tmp_path):
    a, b = (
        read_prediction_file(write(tmp_path / f"{n}.csv", lines))
        for n, lines in (("a", TEST_LINES), ("b", TEST_LINES[:1]))
    )
    with pytest.raises(UserError, match="b.csv lacks 1 of the 2 rows of a.csv: video v, track t, unique id 10e5"):
        average_tables([a, b], ["a.csv", "b.csv"])


def smoothed_by_loop(keys, scores, how, window):
    out = []
    for clip, track, frame in keys:
        near = {
            f - frame: score
            for (c, t, f), score in zip(keys, scores, strict=True)
            if (c, t) == (clip, track) and abs(f - frame) <= window // 2
        }
        if how == "median":
            out.append(np.median(list(near.values())))
        else:
            weight = {d: np.exp(-0.5 * (d / (window / 4)) ** 2) for d in near}
            out.append(sum(weight[d] * near[d] for d in near) / sum(weight.values()))
    return out


@given(
    st.lists(KEYS, unique=True, min_size=1, max_size=25),
    st.sampled_from(["median", "gaussian"]),
    st.sampled_from([1, 3, 5, 9]),
    st.integers(0, 999),
)
@settings(max_examples=100, deadline=None)
def test_smoothing_agrees_with_a_loop(keys, how, window, seed):
    scores = np.random.default_rng(seed).random(len(keys))
    frames = pd.DataFrame(keys, columns=["clip", "track", "frame"])
    result = smooth_scores(frames, scores, how, window)
    np.testing.assert_allclose(result, smoothed_by_loop(keys, scores, how, window), atol=1e-12)
    assert result.min() >= scores.min() - 1e-12 and result.max() <= scores.max() + 1e-12


def test_smoothing_does_not_bridge_gaps():
    frames = pd.DataFrame({"clip": "c", "track": "t", "frame": [1, 2, 3, 10, 23, 36]})
    scores = np.array([0.0, 1.0, 0.0, 0.9, 0.1, 0.9])
    assert smooth_scores(frames, scores, "median", 3).tolist() == [0.5, 0.0, 0.5, 0.9, 0.1, 0.9]
    for window in (4, 0):
        with pytest.raises(UserError, match="odd"):
            smooth_scores(frames, scores, "median", window)
