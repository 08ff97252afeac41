"""Floors and ceilings: scores of angles, held against loops over the files that the angles are read from."""

import csv
import io
import json
import math
import os
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bench
from benchmarks.config.ensemble import resolve_row
from benchmarks.config.reference import Reference, resolve_reference
from benchmarks.data import synthlam
from benchmarks.data.dataset import Ego4D, SynthLAM
from benchmarks.pipeline import run as pipeline
from benchmarks.pipeline.row import rows_of
from benchmarks.pipeline.session import Session
from benchmarks.rows.schema import Result, read_result
from benchmarks.scoring.reference import angle_scores, head_angles
from registry import UserError
from tests.conftest import check_refused

NAMES = ("chance", "pose_prior", "truth")
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Result]:
    """The three rows on SynthLAM, with nothing at hand that trains, encodes or decodes."""

    def refuse(*arguments: object, **_: object) -> None:
        pytest.fail(f"opened {arguments}")

    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "benchmarks.pipeline.run.load_source",
            "benchmarks.pipeline.run.score_recipe",
            "benchmarks.data.pictures.open_picture",
            "benchmarks.pixels.properties.sharpness",
            "PIL.Image.open",
            "registry.BACKBONES.build",
            "registry.HEADS.build",
        ):
            patch.setattr(name, refuse)
        found = pipeline.run([resolve_row(name) for name in NAMES], Session(SynthLAM(), out=out, seeds=5))
    return {result["name"]: result for result in found}


def written(out: Path, name: str, split: str) -> Iterator[dict[str, str]]:
    with (out / "results" / "synthlam" / name / "predictions.csv").open(newline="") as file:
        yield from (row for row in csv.DictReader(file) if row["split"] == split)


def average_precision(ranked: list[int]) -> float:
    """VOC 2010, written out: the highest precision at this or any later hit, averaged over the hits."""
    hits, precisions = 0, []
    for place, hit in enumerate(ranked, start=1):
        hits += hit
        if hit:
            precisions.append(hits / place)
    return sum(max(precisions[number:]) for number in range(len(precisions))) / len(precisions)


def map_of(angles: list[float], labels: list[int]) -> tuple[float, float]:
    """Lowest and highest mAP of frames ranked by angle, smallest first: ties in the worst and in the best order."""
    bounds = []
    for sign in (1, -1):
        order = sorted(range(len(labels)), key=lambda number: (angles[number], sign * labels[number]))
        looking = [labels[number] for number in order]
        bounds.append((average_precision(looking) + average_precision([1 - each for each in looking[::-1]])) / 2)
    return bounds[0], bounds[1]


def labels_and_angles(out: Path, name: str, split: str, angle_of: dict[str, float]) -> tuple[list[int], list[float]]:
    """Of the key frames in a row's file; 180 degrees where the angle is unknown."""
    rows = list(written(out, name, split))
    keys = [":".join((row["clip"], row["track"], row["frame"])) for row in rows]
    return [int(row["label"]) for row in rows], [angle_of.get(key, 180.0) for key in keys]


@pytest.mark.parametrize("split", ["val", "test"])
def test_pose_prior_is_the_angle_of_the_poses_in_the_file(results: dict, out: Path, split: str) -> None:
    """The direction of a head turned by pitch, then by yaw, as a vector; its angle to the camera by the dot product."""
    angles = {}
    for key, pose in json.loads((synthlam.root() / "priors" / "head_pose.json").read_text()).items():
        if pose is not None:
            clip, track, *_, frame = key.split(":")
            yaw, pitch = math.radians(pose[0]), math.radians(pose[1])
            head = (math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch))
            angles[f"{clip}:{track}:{int(frame)}"] = math.degrees(math.acos(head[2] / math.hypot(*head)))
    labels, own = labels_and_angles(out, "pose_prior", split, angles)
    assert own.count(180.0) > 20  # frames without a pose
    low, high = map_of(own, labels)
    found = results["pose_prior"]["splits"][split]["metrics"]["mAP"]["mean"]
    assert low <= found <= high and high - low < 0.01


@pytest.mark.parametrize("split", ["val", "test"])
def test_truth_is_the_renderers_angle(results: dict, out: Path, split: str) -> None:
    with (synthlam.root() / "truth.csv").open(newline="") as file:
        angles = {":".join((r["clip"], r["track"], r["frame"])): float(r["gaze_angle"]) for r in csv.DictReader(file)}
    labels, own = labels_and_angles(out, "truth", split, angles)
    low, high = map_of(own, labels)
    found = results["truth"]["splits"][split]["metrics"]["mAP"]["mean"]
    assert low - 1e-9 <= found <= high + 1e-9 and high - low < 0.05
    if split == "test":  # each angle is known, so only equal ones are tied; the README says 92.8
        assert high - low < 0.001 and round(100 * found, 1) == 92.8


@pytest.mark.parametrize("split", ["val", "test"])
def test_chance_is_the_map_of_evenly_mixed_labels(results: dict, out: Path, split: str) -> None:
    """Puts looking frame k of P at (k - 1/2) / P of the list, and the other frames in the same way; exact fractions."""
    labels = [int(row["label"]) for row in written(out, "chance", split)]
    positives = sum(labels)
    places = [
        (Fraction(2 * number + 1, 2 * count), label)
        for label, count in ((1, positives), (0, len(labels) - positives))
        for number in range(count)
    ]
    looking = [label for _, label in sorted(places)]  # the other class first where places are equal
    expected = (average_precision(looking) + average_precision([1 - each for each in looking])) / 2
    metric = results["chance"]["splits"][split]["metrics"]["mAP"]
    assert metric["mean"] == pytest.approx(expected, abs=1e-12)
    # In the limit of many frames AP is the share of each class, so mAP is 1/2. The interval covers no luck of a draw.
    assert metric["mean"] == pytest.approx(0.5, abs=0.01)
    assert metric["interval"][0] <= metric["mean"] <= metric["interval"][1]
    accuracy = results["chance"]["splits"][split]["metrics"]["accuracy"]["mean"]
    assert accuracy == pytest.approx(1 - positives / len(labels))


def test_the_key_frames_are_those_of_the_other_rows(results: dict) -> None:
    (probe,), _, references = rows_of([resolve_row(name) for name in ("probe", *NAMES)], Session(SynthLAM()))
    for row in references:
        for split in ("val", "test"):
            np.testing.assert_array_equal(row.key_frames[split].rows, probe.key_frames[split].rows)
            np.testing.assert_array_equal(row.key_frames[split].centres, probe.key_frames[split].centres)
            result = results[row.name]
            assert result["splits"][split]["windows"] == len(probe.key_frames[split].centres)
            assert result["splits"][split]["stride"] == probe.strides[split]
        assert result["seeds"] == [0] and result["training"] == [] and "train" not in result["splits"]


def test_an_angle_falls_from_one_to_nothing_and_no_pose_is_the_lowest() -> None:
    angles = np.linspace(0, 180, 1801)
    scores = angle_scores(angles)
    assert scores[0] == 1 and (np.diff(scores) < 0).all() and scores[-1] > angle_scores(np.array([np.nan]))[0] == 0
    assert scores[angles == 6.0] == 0.5
    assert np.isnan(head_angles(np.array([[np.nan, 0, 0], [0, np.nan, 0]], dtype=np.float32))).all()


@pytest.mark.slow
def test_done_before_limited_and_dry(
    results: dict, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(pipeline, "score_reference", lambda *_: pytest.fail("scored again"))
    again = pipeline.run([resolve_row(name) for name in NAMES], Session(SynthLAM(), out=out, seeds=2))
    assert [result["splits"] for result in again] == [results[name]["splits"] for name in NAMES]
    assert "pose_prior: done before" in capsys.readouterr().err
    assert bench.main(["--recipe", "pose_prior", "--limit", "40", "--dry-run", "--out", str(tmp_path)]) == 0
    expected = "pose_prior+limit=40: scores without training; key frames: 40 val, 40 test\n"
    assert capsys.readouterr().out == expected and list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert bench.main(["--recipe", "pose_prior", "--limit", "40", "--out", str(tmp_path)]) == 0
    assert "Head pose alone (floor) (partial)" in capsys.readouterr().out
    limited = read_result(tmp_path / "results" / "synthlam" / "pose_prior+limit=40" / "result.json")
    assert [split["windows"] for split in limited["splits"].values()] == [40, 40]


def test_the_folder_is_that_of_a_row(results: dict, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = out / "results" / "synthlam" / "pose_prior"
    files = ["--groundtruth", str(folder / "groundtruth_test.csv"), "--predictions", str(folder / "seed0" / "test.csv")]
    assert bench.main(["score", *files, "--json"]) == 0
    expected = results["pose_prior"]["splits"]["test"]["metrics"]["mAP"]["mean"]
    assert json.loads(capsys.readouterr().out)["mAP"] == pytest.approx(expected, abs=1e-12)
    assert bench.main(["show", str(folder)]) == 0
    assert "head yaw" in capsys.readouterr().out
    assert bench.main(["report", "-o", str(tmp_path / "report.html"), "--out", str(out)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert all(f"{name} (" in page for name in ("Chance", "Head pose alone", "True gaze"))
    again = resolve_row(str(folder / "config.py"))
    assert isinstance(again, Reference) and again.as_file() == resolve_reference("pose_prior").as_file()
    capsys.readouterr()
    check_refused(
        ["export", "pose_prior", "-o", str(tmp_path / "m"), "--out", str(out)], "no weights to export", capsys
    )


def test_compare_gives_a_fixed_row_no_spread(results: dict, out: Path, capsys: pytest.CaptureFixture) -> None:
    """Against a record of several seeds: the error of the seeds is that of the record alone."""
    assert bench.main(["compare", "probe", "pose_prior", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    record = read_result(ROOT / "benchmarks" / "records" / "synthlam" / "probe.json")
    per_seed = record["splits"]["test"]["metrics"]["mAP"]["per_seed"]
    floor = results["pose_prior"]["splits"]["test"]["metrics"]["mAP"]["mean"]
    assert found["difference"] == pytest.approx(np.mean(per_seed) - floor)
    assert "one seed" not in found["summary"]
    assert bench.main(["compare", "truth", "chance", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "truth is better" in printed and "one seed" not in printed


@pytest.mark.slow
def test_another_prior_or_truth_is_another_row(results: dict, out: Path, tmp_path: Path) -> None:
    """The identity has what determines the scores, so a changed file is not mistaken for the finished row."""
    copy = tmp_path / "data"
    shutil.copytree(synthlam.root(), copy, copy_function=os.link)
    rows = [resolve_row("pose_prior"), resolve_row("truth")]
    pipeline.run(rows, Session(SynthLAM(copy), out=tmp_path / "runs"))
    poses = json.loads((copy / "priors" / "head_pose.json").read_text())
    key = next(key for key, pose in poses.items() if pose is not None)
    poses[key][0] += 1
    table = pd.read_csv(copy / "truth.csv")
    for path in (copy / "priors" / "head_pose.json", copy / "truth.csv"):
        path.unlink()  # a link to the shipped file
    (copy / "priors" / "head_pose.json").write_text(json.dumps(poses))
    table.loc[0, "gaze_angle"] += 1
    table.to_csv(copy / "truth.csv", index=False)
    for row, words in zip(rows, ("priors.head_pose", "truth"), strict=True):
        with pytest.raises(UserError, match=f"comes from other settings \\({words}: "):
            pipeline.run([row], Session(SynthLAM(copy), out=tmp_path / "runs"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("clip,track,frame\na,b,1\n", "no column gaze_angle"),
        ("clip,track,frame,gaze_angle\na,b,1,2\na,b,1,3\n", "listed twice"),
        ("clip,track,frame,gaze_angle\na,b,1,wide\n", "not SynthLAM's ground truth"),
    ],
)
def test_a_broken_truth_is_one_line(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "truth.csv").write_text(content)
    with pytest.raises(UserError, match=words):
        synthlam.truth(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "chance", "--head", "gru"], "chance has no head, because nothing of it is trained"),
        (["--recipe", "chance", "--backbone", "internvit_nano"], "chance has no backbone"),
        (["--recipe", "chance", "--set", "training.lr=1"], "chance has windows and priors only"),
        (["--recipe", "chance", "--set", "priors=face_mesh"], "priors are set, but scorer chance takes none"),
        (["--recipe", "ensemble", "--set", "members=probe,chance"], "member chance is a reference row"),
        (
            ["--recipe", "pose_prior", "--dataset", "ego4d", "--root", "ROOT"],
            "pose_prior: it needs head pose; add --set",
        ),
        (["--recipe", "truth", "--dataset", "ego4d", "--root", "ROOT"], "true gaze angles, which dataset ego4d lacks"),
    ],
    ids=str,
)
def test_refused_in_one_line(
    arguments: list[str], message: str, lam_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = [str(lam_tree) if word == "ROOT" else word for word in arguments]
    check_refused([*words, "--out", str(tmp_path)], message, capsys)


def test_an_unknown_scorer_lists_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"_base_ = [{str(ROOT / 'benchmarks' / 'recipes' / 'chance.py')!r}]\nscorer = 'luck'\n")
    with pytest.raises(UserError, match="scorer is 'luck'; expected chance or pose_prior or truth"):
        resolve_row(str(path))


def test_chance_on_another_dataset_and_all_leaves_out_what_it_cannot_score(
    lam_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    row = resolve_row("chance", "ego4d", settings=["windows.stride.val=1"])
    result = pipeline.run([row], Session(Ego4D(lam_tree), out=tmp_path))[0]
    assert result["splits"]["val"]["metrics"]["mAP"]["mean"] == pytest.approx(0.5, abs=0.05)
    everything = ["--recipe", "all", "--dataset", "ego4d", "--root", str(lam_tree), "--dry-run", "--out", str(tmp_path)]
    bench.main(everything)
    said = io.StringIO(capsys.readouterr().err).readlines()
    assert any(line.startswith("pose_prior: left out, because it needs priors") for line in said)
    assert any(line.startswith("truth: left out, because it needs true gaze angles") for line in said)
    assert not any(line.startswith("chance: left out") for line in said)
    bench.main(["--recipe", "all", "--head", "gru", "--dry-run", "--out", str(tmp_path)])
    assert "chance: left out; --head gru: chance has no head" in capsys.readouterr().err
