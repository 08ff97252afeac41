"""`calibrate`: from marks in a file to a model folder that `predict` takes."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench
from benchmarks.calibration import calibrate as module
from benchmarks.calibration.choice import choose_faces
from benchmarks.calibration.finished import EDGES, FinishedRun, read_run
from benchmarks.calibration.marks import box_text
from benchmarks.evaluation.calibration import log_odds, recalibrate
from benchmarks.video.decode import Frame
from benchmarks.video.pipeline import header_of
from benchmarks.video.scorer import ScoredFace, Scorer
from benchmarks.video.track import TrackedFrame
from registry import UserError
from tests.benchmarks.calibration import parts
from tests.benchmarks.calibration.test_page import copied, edit
from tests.benchmarks.video.parts import av, draw, model, squares
from tests.conftest import check_refused
from zoo.calibration import ScoreCalibration
from zoo.cards import load_card
from zoo.models import open_model, write_folder


def truth(row: Any) -> str:
    return "looking" if parts.looks(int(row["frame"]), float(row["x1"])) else "not looking"


def mark(run: FinishedRun, path: Path, label: Callable[[Any], str] = truth, count: int = 60) -> Path:
    """Writes what the page would save."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["time", "frame", "track", "box", "label"])
        for place in choose_faces(run.rows, run.threshold, count):
            row = run.rows.iloc[place]
            box = box_text(row[EDGES].to_numpy(dtype=np.float64))
            writer.writerow([f"{row['time']:.6f}", row["frame"], row["track"], box, label(row)])
    return path


@pytest.fixture(scope="module")
def labels(walk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mark(read_run(walk / "out"), tmp_path_factory.mktemp("marks") / "labels.csv")


@pytest.fixture(scope="module")
def mine(walk: Path, labels: Path) -> Path:
    """A model calibrated on 60 true marks."""
    assert bench.main(["calibrate", str(walk / "out"), str(labels), "-o", str(walk / "mine")]) == 0
    return walk / "mine"


def test_features_and_marks_make_a_better_model(
    walk: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The model prefers red, the marks say blue: its AUC is far from 1, and that of the calibrated one is near it."""
    done = module.calibrate([module.read_marked_run(walk / "out", labels)], "cpu")
    assert (done.tracks, done.faces.over, done.faces.features.shape) == (10, "tracks", (60, 3))
    assert done.fit is not None and len(done.fit.weights) == 3
    before, after, difference = done.gain.before, done.gain.after, done.gain.difference
    assert before[0].value < 0.85 < 0.95 < after[0].value
    assert difference[1].low > 0 and difference[2].high < 0
    for estimate in (*before, *after):
        assert estimate.low <= estimate.value <= estimate.high
    assert bench.main(["calibrate", str(walk / "out"), str(labels), "-o", str(tmp_path / "m")]) == 0
    said = capsys.readouterr().out
    assert "60 marked faces of 10 tracks" in said and "held out by tracks\n" in said
    assert f"{after[0].value:.3f} [{after[0].low:.3f}, {after[0].high:.3f}]" in said
    assert "predict VIDEO --model" in said


def test_features_are_those_of_predict(walk: Path, labels: Path) -> None:
    """The colours of the squares, of which the video's compression changes little."""
    marked = module.read_marked_run(walk / "out", labels)
    done = module.calibrate([marked], "cpu")
    for found, (_, row) in zip(done.faces.features, marked.run.rows.iloc[marked.places].iterrows(), strict=True):
        wanted = np.array(parts.colours(int(row["frame"]))[0 if row["x1"] < 60 else 1]) / 255
        assert np.abs(found - wanted).max() < 0.06


def test_the_folder_says_what_the_model_was_calibrated_on(walk: Path, mine: Path) -> None:
    config = json.loads((mine / "config.json").read_text())
    own = config["calibration"]
    assert (own["faces"], own["tracks"], len(own["weights"])) == (60, 10, 3)
    assert own["weights"][2] > abs(own["weights"][0])  # blue counts
    assert config["cost"] == pytest.approx(0.1 * own["slope"]) if own["slope"] else config["cost"] == 0.1
    card = load_card(mine / "card.json")
    sha256 = json.loads((walk / "out/run.json").read_text())["settings"]["video"]["sha256_of_ends"]
    assert "Calibrated on 60 marked faces of 10 tracks" in card.training and sha256 in card.training
    assert "cross-validated over tracks" in card.limits[-1]
    assert [figure.metric for figure in card.figures] == [
        "AUC, cross-validated", "balanced accuracy, cross-validated", "log loss, cross-validated",
    ]  # fmt: skip
    assert all(figure.split == "walk.mp4 marked" and "95 % interval" in figure.source for figure in card.figures)
    assert "no figure here shows" not in (mine / "README.md").read_text()
    opened = open_model(str(mine))
    assert (
        "was trained on rendered faces only and was calibrated on 60 marked faces of 10 tracks" in header_of(opened)[1]
    )


@pytest.mark.slow
def test_a_calibrated_model_can_be_calibrated_again(walk: Path, mine: Path, tmp_path: Path) -> None:
    """Its second calibration comes after the first: both together are again slope, bias and weights."""
    again = parts.predicted(walk / "walk.mp4", mine, tmp_path / "again")
    run = read_run(again)

    def red(row: Any) -> str:
        return "looking" if parts.colours(int(row["frame"]))[0 if row["x1"] < 60 else 1][0] > 185 else "not looking"

    done = module.calibrate([module.read_marked_run(again, mark(run, tmp_path / "labels.csv", red))], "cpu")
    assert done.fit is not None
    module.write_calibrated(done, tmp_path / "twice")
    twice = open_model(str(tmp_path / "twice"))
    third = read_run(parts.predicted(walk / "walk.mp4", tmp_path / "twice", tmp_path / "third"))
    x = np.stack([row.features for row in scored(twice, run) if row.features is not None])
    wanted = done.fit.slope * log_odds(run.rows["score"].to_numpy()) + done.fit.bias
    wanted += x @ done.fit.weights if len(done.fit.weights) else 0
    # Six decimals say enough where neither is close to 0 or 1.
    inside = (np.abs(log_odds(run.rows["score"].to_numpy())) < 8) & (np.abs(wanted) < 8)
    assert inside.sum() > 20
    np.testing.assert_allclose(log_odds(third.rows["score"].to_numpy())[inside], wanted[inside], atol=0.05)


def scored(judge: Any, run: FinishedRun) -> list[ScoredFace]:
    """All faces of a run with their features."""
    scorer, rows = Scorer(judge, keep_features=True), []
    by_frame = dict(iter(run.rows.groupby("frame")))
    for frame in run.open_video().frames():
        if frame.number in by_frame:
            here = by_frame[frame.number]
            rows += scorer.push(TrackedFrame(frame, here["track"].tolist(), here[EDGES].to_numpy(dtype=np.float64)))
    return [*rows, *scorer.finish()]


def test_scores_follow_the_formula() -> None:
    """Of a model with windows, two views and smoothing: slope x log odds + weights . features of the frame + bias."""
    random = np.random.default_rng(0)
    plain = model()
    calibration = ScoreCalibration(0.7, -0.4, tuple(random.normal(0, 0.1, 48).tolist()), 60, 9)
    rows = []
    for judge in (
        plain,
        replace(plain, calibration=calibration),
        replace(plain, calibration=replace(calibration, weights=())),
    ):
        scorer, found = Scorer(judge, keep_features=True), []
        for number in range(12):
            shown = av.VideoFrame.from_ndarray(draw(squares(number)), format="rgb24")
            boxes = np.array([[x, y, x + 24, y + 24] for x, y, _ in squares(number)], dtype=np.float64)
            found += scorer.push(TrackedFrame(Frame(number, number / 15, number, 0, shown), ["1", "2"], boxes))
        rows.append([*found, *scorer.finish()])
    for old, new, affine in zip(*rows, strict=True):
        assert old.features is not None and old.features.shape == (48,)
        np.testing.assert_array_equal(old.features, new.features)
        z = 0.7 * log_odds(old.score) - 0.4
        assert affine.score == pytest.approx(1 / (1 + np.exp(-z)), abs=1e-9)
        assert new.score == pytest.approx(1 / (1 + np.exp(-z - old.features @ np.array(calibration.weights))), abs=1e-9)


def test_without_few_features_only_log_odds_are_fitted(walk: Path, tmp_path: Path) -> None:
    """tiny_means has 48 features; the second run's scores are those of the first, by slope and bias."""
    judge = model(views=("original",), smoothing=None)
    judge = replace(judge, card=load_card(walk / "tint/card.json"))
    backbone = {"type": "tiny_means", "scale": 3.0}
    head = {"type": "lstm", "projection": 8, "hidden": 8, "layers": 1, "mlp": [8, 8, 8]}
    write_folder(tmp_path / "squares", judge, backbone, head, origin="tests", licence="MIT")
    run = read_run(parts.predicted(walk / "walk.mp4", tmp_path / "squares", tmp_path / "out"))
    median = run.rows["score"].median()
    path = mark(run, tmp_path / "labels.csv", lambda row: "looking" if row["score"] > median else "not looking")
    assert bench.main(["calibrate", str(run.folder), str(path), "-o", str(tmp_path / "mine")]) == 0
    own = open_model(str(tmp_path / "mine"))
    assert own.calibration is not None and own.calibration.weights == () and own.calibration.slope > 0
    again = read_run(parts.predicted(walk / "walk.mp4", tmp_path / "mine", tmp_path / "again"))
    wanted = recalibrate(run.rows["score"].to_numpy(), own.calibration.slope, own.calibration.bias)
    np.testing.assert_allclose(again.rows["score"], wanted, atol=2e-4)
    assert np.mean((again.rows["score"] >= own.threshold) == (run.rows["score"] > median)) > 0.9


def test_only_the_threshold_may_move(walk: Path, labels: Path, tmp_path: Path) -> None:
    done = module.calibrate([module.read_marked_run(walk / "out", labels)], "cpu")
    module.write_calibrated(replace(done, fit=None, threshold=0.123), tmp_path / "moved")
    config = json.loads((tmp_path / "moved/config.json").read_text())
    assert config["threshold"] == 0.123 and config["cost"] == 0.1
    assert config["calibration"] == {"slope": 1.0, "bias": 0.0, "weights": [], "faces": 60, "tracks": 10}
    card = load_card(tmp_path / "moved/card.json")
    assert "Only its threshold was moved" in card.training
    assert [figure.metric for figure in card.figures] == ["balanced accuracy, cross-validated"]
    opened = open_model(str(tmp_path / "moved"))
    assert opened.calibration is not None and not opened.calibration.changes_scores


def test_nothing_gained_writes_nothing(walk: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Labels drawn from the model's own scores leave little to gain; at least one of five draws shows no gain."""
    run, status = read_run(walk / "out"), 0
    random = np.random.default_rng(0)
    for number in range(5):
        drawn = mark(
            run, tmp_path / "l.csv", lambda row: "looking" if random.random() < row["score"] else "not looking"
        )
        status = bench.main(["calibrate", str(walk / "out"), str(drawn), "-o", str(tmp_path / str(number))])
        said = capsys.readouterr().out
        assert (status == 1) == ("nothing is gained" in said) == (not (tmp_path / str(number)).exists())
        if status == 1:
            assert "no model is written, keep using tint" in said and "log loss" in said
            break
    assert status == 1


def test_marks_of_few_tracks_are_held_out_by_time(walk: Path, labels: Path, tmp_path: Path) -> None:
    run = read_run(walk / "out")
    header, *lines = mark(run, tmp_path / "l.csv", count=75).read_text().splitlines()
    few = [line for line in lines if line.split(",")[2] in "1234"]
    (tmp_path / "l.csv").write_text("\n".join([header, *few]) + "\n")
    done = module.calibrate([module.read_marked_run(walk / "out", tmp_path / "l.csv")], "cpu")
    assert done.faces.over == "blocks of time"
    assert "held out by blocks of time, because their tracks are too few" in done.summary()


def test_faces_marked_cannot_say_are_left_out(walk: Path, labels: Path, tmp_path: Path) -> None:
    lines = labels.read_text().splitlines()
    changed = [lines[0], *(line.rpartition(",")[0] + ",cannot say" for line in lines[1:8]), *lines[8:]]
    (tmp_path / "l.csv").write_text("\n".join(changed))
    marked = module.read_marked_run(walk / "out", tmp_path / "l.csv")
    assert (len(marked.labels), marked.unsure) == (53, 7)


def test_several_runs_of_one_model(walk: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    home = copied(walk, tmp_path / "home")
    other = tmp_path / "home/walk.mp4"
    parts.make(other, 100, parts.RATE, content=lambda frame: parts.picture(frame + 36))
    shutil.rmtree(home / "out")
    parts.predicted(other, home / "tint", home / "out")
    shifted = read_run(home / "out")
    second = mark(shifted, tmp_path / "second.csv", lambda row: truth({"frame": row["frame"] + 36, "x1": row["x1"]}))
    pair = [str(walk / "out"), str(labels)]
    assert bench.main(["calibrate", *pair, str(home / "out"), str(second), "-o", str(tmp_path / "m")]) == 0
    assert "of 16 tracks" in capsys.readouterr().out
    check_refused(["calibrate", *pair, *pair, "-o", str(tmp_path / "n")], "is given twice", capsys)
    check_refused(["calibrate", *pair, str(home), "-o", str(tmp_path / "n")], "has no partner", capsys)
    edit(home, lambda run: run["settings"]["model"].update(rate=1.0))
    check_refused(
        ["calibrate", *pair, str(home / "out"), str(second), "-o", str(tmp_path / "n")], "by different models", capsys
    )
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", "is empty; mark faces on"),
        (lambda text: " \n\n", "is empty"),
        (lambda text: text.splitlines()[0], "has no marks"),
        (lambda text: text.replace("time,frame", "frame,time2"), "lacks time; its first line must be time,frame,"),
        (lambda text: text.replace("label", "labels"), "lacks label"),
        (lambda text: text.replace("looking", "lookin"), "lookin'; did you mean '"),
        (lambda text: text.replace(",looking", ",1"), "has the label '1' (known: looking, not looking, cannot say)"),
        (lambda text: text + "nan,1,1,1 2 3 4,looking\n", "line 62 has a time, frame or box that is not a number"),
        (lambda text: text + "1,1,1,1 2 inf 4,looking\n", "line 62 has a time, frame or box"),
        (lambda text: text + "1,1,1,1 2 3,looking\n", "line 62 has a time, frame or box"),
        (lambda text: text + "1,1,1,1 2 3 4 5,looking\n", "line 62 has a time, frame or box"),
        (lambda text: text + "1,1,../../x,1 2 3 4,looking\n", "line 62 has a face that"),
        (lambda text: text + "1,1\n", "cannot be read as CSV: line 62 has 2 fields instead of 5"),
        (lambda text: text + text.splitlines()[1].rpartition(",")[0] + ",cannot say\n", "has two labels for track"),
        (lambda text: text.replace("looking", "\0"), "l.csv"),
        (lambda text: "\n".join(text.splitlines()[:12]), "at least 20 are needed"),
        (lambda text: text.replace(",not looking", ",looking"), "60 faces are marked looking and 0 not looking"),
    ],
)  # fmt: skip
def test_wrong_labels_are_refused(
    walk: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture, change: Callable[[str], str], said: str
) -> None:
    (tmp_path / "l.csv").write_text(change(labels.read_text()))
    arguments = ["calibrate", str(walk / "out"), str(tmp_path / "l.csv"), "-o", str(tmp_path / "new")]
    check_refused(arguments, said, capsys)
    assert not (tmp_path / "new").exists()


def test_bytes_folders_and_missing_files_are_no_labels(
    walk: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "x.csv").write_bytes(bytes(range(256)) * 8)
    for path, said in ((tmp_path / "x.csv", "cannot be read"), (tmp_path, "folder"), (tmp_path / "y", "no such file")):
        check_refused(["calibrate", str(walk / "out"), str(path), "-o", str(tmp_path / "new")], said, capsys)


def test_labels_of_another_run_are_refused(
    walk: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    home = copied(walk, tmp_path / "home")
    shutil.rmtree(home / "out")
    parts.make(home / "walk.mp4", 90, parts.RATE, content=lambda frame: np.roll(parts.picture(frame), 3, axis=1))
    parts.predicted(home / "walk.mp4", home / "tint", home / "out")
    arguments = ["calibrate", str(home / "out"), str(labels), "-o", str(tmp_path / "new")]
    check_refused(arguments, "does not have; give the labels of this run", capsys)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda home: shutil.rmtree(home / "tint"), "which is no folder here; run predict again with the model's"),
        (lambda home: edit(home, lambda run: run["inputs"].update(model="../evil")), "scored by the model ../evil"),
        (lambda home: edit(home, lambda run: run["inputs"].update(model="OWNER/NAME")), "which is no folder here"),
        (lambda home: (home / "walk.mp4").write_bytes(b"x"), "has changed since"),
        (lambda home: set_rate(home / "tint/config.json"), "has changed since"),
    ],
)  # fmt: skip
def test_a_model_or_video_that_changed_is_refused(
    walk: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture, change: Callable[[Path], Any], said: str
) -> None:
    home = copied(walk, tmp_path / "home")
    change(home)
    check_refused(["calibrate", str(home / "out"), str(labels), "-o", str(tmp_path / "new")], said, capsys)


def set_rate(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rate": 7.0}))


def test_a_folder_that_exists_is_left_alone(
    walk: Path, labels: Path, mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Also the second time in a row."""
    before = (mine / "config.json").read_bytes()
    capsys.readouterr()
    arguments = ["calibrate", str(walk / "out"), str(labels), "-o"]
    check_refused([*arguments, str(mine)], "exists and is not an empty folder; delete it, or name another", capsys)
    assert (mine / "config.json").read_bytes() == before
    (tmp_path / "file").touch()
    check_refused([*arguments, str(tmp_path / "file")], "is not a folder; name another with -o", capsys)


def test_an_interrupted_calibration_leaves_no_folder_behind(
    walk: Path, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    real = module.copy_model

    def stopped(name: str, folder: Path, changed: Any) -> None:
        real(name, folder, changed)
        (folder / "config.json").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "copy_model", stopped)
    arguments = ["calibrate", str(walk / "out"), str(labels), "-o", str(tmp_path / "new")]
    assert bench.main(arguments) == 130
    assert not list((tmp_path / "new").glob("*"))
    monkeypatch.undo()
    assert bench.main(arguments) == 0


@pytest.mark.parametrize(
    ("calibration", "said"),
    [
        ({"slope": -1.0}, "calibration.slope: expected float >= 0.0"),
        ({"bias": 1e9}, "calibration.bias"),
        ({"weights": [1.0]}, "the calibration has 1 weights, the backbone 3 features"),
        ({"weights": ["x"]}, "calibration.weights[0]: expected float"),
        ({"faces": 0}, "calibration.faces"),
    ],
)
def test_a_damaged_calibration_is_refused(mine: Path, tmp_path: Path, calibration: dict, said: str) -> None:
    shutil.copytree(mine, tmp_path / "m")
    config = json.loads((mine / "config.json").read_text())
    config["calibration"] |= calibration
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=re.escape(said)):
        open_model(str(tmp_path / "m"))
