"""The commands that need no model, from the shell."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bench import main

HOME = Path(__file__).parents[3]
GOLDEN = HOME / "tests" / "golden"
METRICS = GOLDEN / "metrics"


@pytest.fixture
def bench(capsys):
    """Run the command line; returns stdout, or the one line of stderr where a failure is expected."""

    def run(*arguments, code=0, stderr=False):
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == code
        out, err = capsys.readouterr()
        if code:
            assert out == "" and err.startswith(f"bench.py {arguments[0]}: ") and err.count("\n") == 1, err
            return err
        return (out, err) if stderr else out

    return run


def files(case):
    return "--groundtruth", METRICS / f"{case}_gt.csv", "--predictions", METRICS / f"{case}_pred.csv"


def test_score_json(bench):
    values = json.loads(bench("score", *files("plain"), "--json"))
    expected = json.loads((METRICS / "expected.json").read_text())["plain"]
    assert values["mAP"] == pytest.approx(expected["mAP"], abs=1e-9)
    assert values["AP.looking"] == values["AP"]["looking"] == pytest.approx(expected["AP"]["looking"], abs=1e-9)
    assert values["AP.not_looking"] == pytest.approx(expected["AP"]["not_looking"], abs=1e-9)
    assert values["accuracy"] == pytest.approx(expected["accuracy_at_0_5"], abs=1e-12)
    low, high = values["interval"]["mAP"]
    assert low < values["mAP"] < high and values["interval"]["clips"] == 4


def test_score_text_is_in_percent(bench):
    text = bench("score", *files("imbalanced"))
    assert "mAP             65.99" in text and "not looking" in text and "(4 clips)" in text


def test_score_refuses_and_warns(tmp_path, bench):
    truth, predictions = tmp_path / "gt.csv", tmp_path / "pred.csv"
    truth.write_text("v,1,t,0\nv,2,t,0\n")
    predictions.write_text("v,1,t,1,0.5\nv,2,t,1,0.7\n")
    both = ("score", "--groundtruth", truth, "--predictions", predictions)
    assert "AP is undefined: no looking frames; with one class only there is no mAP" in bench(*both, code=2)
    truth.write_text("v,1,t,0\nv,2,t,1\n")
    out, err = bench(*both, "--json", stderr=True)
    assert json.loads(out)["mAP"] == 1.0 and json.loads(out)["interval"]["mAP"] is None
    assert "all scores are 0.5 or above" in err and "only one" in err
    predictions.write_text("v,1,t,1,0.5\n")
    assert "lacks 1 of the 2 rows" in bench(*both, code=2)


ROW, NEXT = "c,1,0,0,9,9,t", "c,2,0,0,9,9,t"


@pytest.mark.parametrize(
    ("truth", "predictions", "message"),
    [
        ([f"{ROW},0", f"{NEXT},1"], [f"{ROW},1,0.5"], "lacks 1 of the 2 rows of {g}: clip c, track t, frame 2"),
        ([f"{ROW},0"], [f"{ROW},1,0.5", f"{NEXT},1,0.5"], "has 1 rows that {g} lacks: clip c, track t, frame 2"),
        ([f"{ROW},0"] * 2, [f"{ROW},1,0.5"], "{g}: 1 repeated rows: clip c, track t, frame 1"),
        ([f"{ROW},0"], [f"{ROW},1,0.5"] * 3, "{p}: 2 repeated rows, the first: clip c, track t, frame 1"),
        ([f"{ROW},0"], [f"{ROW},1,nan"], "{p}: row 1, column score: 'nan' is not a number"),
        ([f"{ROW},0"], [f"{ROW},1,1.01"], "{p}: row 1: score 1.01 is not in [0, 1]"),
        (
            [f"{ROW},0"],
            ["c,1,0,0,9,8,t,1,0.5"],
            "different boxes in 1 of 1 rows, by up to 1 pixels: clip c, track t",
        ),
        ([f"{ROW},1"], [f"{ROW},1,0.5"], "{g}: AP is undefined: no not-looking frames; with one class only"),
        ([f"{ROW},2"], [f"{ROW},1,0.5"], "{g}: row 1: label 2 is neither 1 (looking) nor 0"),
        (["c,01,t,1"], [f"{ROW},1,0.5"], "{g} is in test format and {p} in validation format"),
    ],
)
def test_score_refuses_in_a_line(tmp_path, bench, truth, predictions, message):
    names = {"g": tmp_path / "gt.csv", "p": tmp_path / "pred.csv"}
    for path, lines in zip(names.values(), (truth, predictions), strict=True):
        path.write_text("".join(f"{line}\n" for line in lines))
    said = bench("score", "--groundtruth", names["g"], "--predictions", names["p"], code=2)
    assert message.format(**names) in said


def test_score_warns_below_one_half_as_above(tmp_path, bench):
    truth, predictions = tmp_path / "gt.csv", tmp_path / "pred.csv"
    truth.write_text("v,1,t,0\nv,2,t,1\n")
    for scores, said in (((0.1, 0.2), "all scores are below 0.5"), ((0.5, 1), "0.5 or above"), ((0.1, 0.5), "")):
        predictions.write_text("".join(f"v,{row},t,1,{score}\n" for row, score in enumerate(scores, 1)))
        _, err = bench("score", "--groundtruth", truth, "--predictions", predictions, stderr=True)
        assert said in err and ("all scores" in err) == bool(said)


def test_views_to_submission(tmp_path, bench):
    tta = METRICS / "tta"
    averaged, submission = tmp_path / "averaged.csv", tmp_path / "new" / "submission.json"
    said = bench("fuse", tta / "pred_original.csv", tta / "pred_flipped.csv", "-o", averaged)
    assert said == f"{averaged}: 60 rows, mean of 2 files\n"
    assert averaged.read_bytes() == (tta / "pred_averaged.csv").read_bytes()
    assert "60 results of 3 videos" in bench("submit", averaged, "-o", submission)
    assert submission.read_bytes() == (tta / "submission.json").read_bytes()
    assert "fuse needs two or more" in bench("fuse", averaged, "-o", tmp_path / "x.csv", code=2)
    assert "lacks" in bench("submit", averaged, "-o", tmp_path / "s.json", "--test-root", tree(tmp_path), code=2)
    assert not (tmp_path / "x.csv").exists() and not (tmp_path / "s.json").exists()


def tree(root):
    for frame in (1, 2, 3, 9):
        path = root / "videos_challenge" / "v" / "t" / f"{frame:05d}_{100 + frame}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_smooth(tmp_path, bench):
    test, smoothed = tmp_path / "test.csv", tmp_path / "smooth.csv"
    test.write_text("v,101,t,1,0.1\nv,109,t,1,0.9\nv,102,t,1,0.8\nv,103,t,1,0.3\n")
    assert "add --test-root" in bench("smooth", test, "-o", smoothed, code=2)
    bench("smooth", test, "-o", smoothed, "--window", 3, "--test-root", tree(tmp_path))
    assert smoothed.read_text() == "v,101,t,1,0.45\nv,109,t,1,0.9\nv,102,t,1,0.3\nv,103,t,1,0.55\n"
    said = bench("smooth", METRICS / "plain_pred.csv", "-o", smoothed, "--filter", "gaussian")
    assert "400 rows, gaussian over 5 frames" in said
    assert "window 4: must be an odd number" in bench(
        "smooth", test, "-o", smoothed, "--window", 4, "--test-root", tmp_path, code=2
    )


def test_prepare_and_index(tmp_path, bench):
    shutil.copytree(GOLDEN / "ego4d_tree", tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "split")
    report = bench("prepare", "--root", tmp_path, "--annotations-only", "--split-lists", "official")
    assert "6 clips of train, 4 clips of val" in report and "11c0bd3b-a937-499b-3f88-9cc4a2f72bec" in report
    output = tmp_path / "val.csv"
    said = bench("index", "--root", tmp_path, "--split", "val", "-o", output)
    assert said == f"{output}: 128 frames of 1 clips, 11 key frames at stride 13, 11 looking, 0 of unknown label\n"
    table = pd.read_csv(output, dtype={"person": str})
    assert ",".join(table.columns) == "clip,track,frame,person,x1,y1,x2,y2,label,unique_id,keyframe"
    names = {"clip_uid": "clip", "track_id": "track", "keyframe_stride13": "keyframe"}
    expected = pd.read_csv(GOLDEN / "ego4d_expected/index_val.csv").rename(columns=names)
    key = ["clip", "track", "frame"]
    both = table[expected.columns].sort_values(key, ignore_index=True), expected.sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(*both, check_exact=False, rtol=0, atol=1e-6)
    bench("index", "--root", tmp_path, "--split", "train", "--stride", "3", "-o", output)
    assert pd.read_csv(output)["keyframe"].sum() == 122
    assert "no segment is marked 'is_at_me'" in bench(
        "index", "--root", tmp_path, "--split", "val", "--label-policy", "is_at_me", "-o", output, code=2
    )


def test_prepare_says_which_list_names_a_clip_that_is_nowhere(tmp_path, capsys):
    shutil.copytree(GOLDEN / "ego4d_tree", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "split/val.list"
    path.write_text(path.read_text()[:-2])
    assert main(["prepare", "--root", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"{path} names clip " in said and "which is in no annotation file; correct the list, or delete it" in said


def test_prepare_says_which_videos_are_missing(tmp_path, capsys):
    pytest.importorskip("av")
    shutil.copytree(GOLDEN / "ego4d_tree", tmp_path, dirs_exist_ok=True)
    assert main(["prepare", "--root", str(tmp_path)]) == 2
    assert "videos: no such folder" in capsys.readouterr().err
    (tmp_path / "videos").mkdir()
    assert main(["prepare", "--root", str(tmp_path), "--workers", "1"]) == 1
    assert "videos missing: 7\n  0d6e60f2-de12-f7d7-206e-fd75c0bab817\n" in capsys.readouterr().out
    assert main(["prepare", "--root", str(tmp_path), "--workers", "0"]) == 2


def test_index_of_the_challenge_tree(tmp_path, bench):
    output = tmp_path / "test.csv"
    said = bench("index", "--root", tree(tmp_path), "--split", "test", "-o", output)
    assert "4 frames of 1 clips, 4 key frames at stride 1, 0 looking, 4 of unknown label" in said
    assert output.read_text().splitlines()[1] == "v,t,1,,,,,,-1,101,1"
    assert "no such folder" in bench("index", "--root", tmp_path / "x", "--split", "test", "-o", output, code=2)


def test_torch_is_not_imported_by_running_them(tmp_path):
    commands = [
        ["score", *map(str, files("plain"))],
        [
            "fuse",
            str(METRICS / "tta/pred_original.csv"),
            str(METRICS / "tta/pred_flipped.csv"),
            "-o",
            str(tmp_path / "f"),
        ],
        ["submit", str(tmp_path / "f"), "-o", str(tmp_path / "s")],
    ]
    script = f"""
import sys, bench
for command in {commands!r}:
    assert bench.main(command) == 0, command
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], cwd=HOME, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("command", ["index", "score", "fuse", "smooth", "submit", "prepare"])
def test_no_command_imports_torch(command):
    script = f"""
import sys
from benchmarks.commands import {command}
assert not ({{"torch", "numpy", "pandas"}} & set(sys.modules)), "importing a command must be quick"
import benchmarks.data.ego4d, benchmarks.data.prepare
import benchmarks.evaluation.metrics, benchmarks.scoring.files, benchmarks.scoring.submission
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], cwd=HOME, check=True)
    help_text = subprocess.run(
        [sys.executable, "bench.py", command, "--help"], cwd=HOME, check=True, capture_output=True, text=True
    ).stdout
    assert "example:" in help_text
