import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bench
from benchmarks.config.ensemble import resolve_row
from benchmarks.config.recipe import Recipe
from benchmarks.config.resolve import resolve
from benchmarks.data.dataset import Ego4D, SynthLAM
from benchmarks.evaluation.bootstrap import bootstrap_interval
from benchmarks.evaluation.metrics import lam_map
from benchmarks.pipeline import run as pipeline
from benchmarks.pipeline.row import rows_of
from benchmarks.pipeline.session import Session
from benchmarks.rows import schema
from benchmarks.rows.folder import write_row_sums
from benchmarks.rows.predictions import read_predictions as read_predictions_of_row
from benchmarks.rows.trainings import cluster_of
from benchmarks.scoring.files import match, read_groundtruth, read_prediction_file
from benchmarks.scoring.smooth import WINDOWS, smooth_scores
from registry import HEADS, UserError
from tests.contracts import FIXED_FEATURES
from zoo.files.checksums import damaged

QUICK = ["windows.stride.train=2", "windows.stride.val=2", "training.epochs=8", "training.lr=0.05"]
SMALL = {"lstm": ["head.projection=8", "head.hidden=8", "head.mlp=[8,8,8]"], "probe": []}


def recipe(name: str, *settings: str, **arguments: object) -> Recipe:
    head = "probe" if name == "probe" or arguments.get("head") == "probe" else "lstm"
    arguments = {"backbone": "tiny_means", **arguments}
    return resolve(name, "ego4d", settings=[*QUICK, *SMALL[head], *settings], **arguments)


@pytest.fixture(scope="module")
def three(lam_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[schema.Result]]:
    """InternLSTM's three rows and the probe on the small data set."""
    out = tmp_path_factory.mktemp("runs")
    rows = [recipe(name) for name in ("internlstm", "internlstm_flip", "internlstm_flip_tta", "probe")]
    return out, pipeline.run(rows, Session(Ego4D(lam_tree), seeds=2, out=out))


def folder_of(out: Path, result: schema.Result) -> Path:
    return next(
        path.parent
        for path in out.glob("results/*/*/result.json")
        if json.loads(path.read_text())["name"] == result["name"]
    )


def test_it_learns(three: tuple) -> None:
    """Bright on the left is easy to see for a linear layer; chance is 0.5 for the mean of both classes' precision."""
    _, rows = three
    assert rows[3]["splits"]["test"]["metrics"]["mAP"]["mean"] > 0.85


def test_figures_are_those_of_the_predictions_written(three: tuple) -> None:
    out, rows = three
    for row in rows:
        written = pd.read_csv(
            folder_of(out, row) / "predictions.csv", dtype={"clip": str, "track": str, "unique_id": str}
        )
        for split, figures in row["splits"].items():
            for number, seed in enumerate(row["seeds"]):
                own = written[(written["split"] == split) & (written["seed"] == seed)]
                assert len(own) == figures["windows"]
                found = lam_map(own["score"].to_numpy(), own["label"].to_numpy())
                assert found.map == figures["metrics"]["mAP"]["per_seed"][number]
                assert found.accuracy == figures["metrics"]["accuracy"]["per_seed"][number]


def test_averaging_views_is_what_separates_flip_from_tta(three: tuple) -> None:
    """They share one training: the scores of the original view are equal, and tta's are the mean of two views."""
    out, rows = three
    flip, tta = (pd.read_csv(folder_of(out, row) / "predictions.csv") for row in rows[1:3])
    np.testing.assert_array_equal(flip["score"], tta["score_original"])
    np.testing.assert_allclose(tta["score"], (tta["score_original"] + tta["score_flipped"]) / 2, atol=1e-15)
    assert len(list((out / "trainings").iterdir())) == 3  # internlstm; flip and tta together; probe
    assert rows[1]["training"] == rows[2]["training"]


def test_flipping_doubles_the_training_windows(three: tuple) -> None:
    _, rows = three
    plain, flip = rows[0]["counts"], rows[1]["counts"]
    assert plain["training windows, all views"] == plain["train windows"]
    assert flip["training windows, all views"] == 2 * flip["train windows"]


def test_prediction_files_have_the_published_form(three: tuple) -> None:
    out, rows = three
    folder = folder_of(out, rows[2]) / f"seed{rows[2]['seeds'][0]}"
    test, val = ((folder / name).read_text().splitlines()[0].split(",") for name in ("test.csv", "val.csv"))
    assert (test[0], test[2], test[3], len(test)) == ("test00", "t0", "1", 5)
    assert (val[0], val[6], val[7], len(val)) == ("val00", "t0", "1", 9)


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_files_of_a_row_score_as_the_record_says(three: tuple, split: str) -> None:
    out, rows = three
    folder = folder_of(out, rows[2])
    truth = read_groundtruth(folder / f"groundtruth_{split}.csv")
    figures = rows[2]["splits"][split]["metrics"]["mAP"]["per_seed"]
    for seed, value in zip(rows[2]["seeds"], figures, strict=True):
        predictions = read_prediction_file(folder / f"seed{seed}" / f"{split}.csv")
        matched = predictions["score"].to_numpy()[match(truth, predictions, ("truth", "ours"))]
        assert lam_map(matched, truth["label"].to_numpy()).map == pytest.approx(value, abs=1e-12)


def test_whole_videos_are_resampled_where_they_have_several_clips(
    lam_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The annotation file of validation puts two clips into each video; test has none, and train one clip per video."""
    root = tmp_path / "tree"
    shutil.copytree(lam_tree, root)
    (root / "json").mkdir(exist_ok=True)
    for split, size in (("val", 2), ("train", 1)):
        clips = (root / "split" / f"{split}.list").read_text().split()
        videos = [clips[start : start + size] for start in range(0, len(clips), size)]
        listed = [
            {"video_uid": f"v{n}", "clips": [{"clip_uid": clip, "social_segments_looking": None} for clip in of_video]}
            for n, of_video in enumerate(videos)
        ]
        (root / "json" / f"av_{split}.json").write_text(json.dumps({"videos": listed}))
    val = (root / "split" / "val.list").read_text().split()
    video_of = {clip: f"v{number // 2}" for number, clip in enumerate(val)}
    assert len(set(video_of.values())) < len(val)
    row = pipeline.run([recipe("probe")], Session(Ego4D(root), seeds=2, out=tmp_path / "runs"))[0]
    assert f"val: {len(val)} clips of {len(set(video_of.values()))} videos; intervals resample videos" in (
        capsys.readouterr().err
    )
    own, others = row["splits"]["val"], (row["splits"]["train"], row["splits"]["test"])
    assert own["videos"] == video_of and own["clips"] == len(val)
    assert not any("videos" in figures for figures in others)
    table = pd.read_csv(folder_of(tmp_path / "runs", row) / "predictions.csv", dtype={"clip": str, "track": str})
    of_seeds = [of_seed for _, of_seed in table[table["split"] == "val"].groupby("seed")]
    scores = np.stack([of_seed["score"] for of_seed in of_seeds])
    labels, videos = of_seeds[0]["label"].to_numpy(), of_seeds[0]["clip"].map(video_of).to_numpy()
    bounds = bootstrap_interval(scores, labels, videos).bounds["mAP"]
    assert own["metrics"]["mAP"]["interval"] == (None if bounds is None else pytest.approx(list(bounds)))
    for video, values in own["without_clip"].items():
        keep = videos != video
        expected = [lam_map(of_seed[keep], labels[keep]).map for of_seed in scores]
        assert values == pytest.approx(expected, abs=5e-7)
    assert own["without_clip"].keys() == set(video_of.values())
    assert cluster_of(row, "val") == "video" and cluster_of(row, "test") == "clip"


def test_smoothing_is_fitted_on_validation_at_the_stride_of_test(lam_tree: Path, tmp_path: Path) -> None:
    """The window is the best of all on every validation frame; the row's own key frames are taken after smoothing.

    The unsmoothed row is made a member of an ensemble, which writes its scores on every validation frame. Both rows
    share a training, whose epoch is chosen at the recipe's stride.
    """
    hardly = ["training.epochs=1", "training.lr=1e-5"]  # so that scores are bad enough to be worth smoothing
    plain, smooth = (recipe(name, *hardly) for name in ("internlstm_flip_tta", "internlstm_flip_tta_smooth"))
    assert plain.windows == smooth.windows and (plain.windows.stride.val, plain.windows.stride.test) == (2, 1)
    both = dataclasses.replace(resolve_row("ensemble", "ego4d"), members=(plain, recipe("probe", *hardly)))
    rows = pipeline.run([plain, smooth, both], Session(Ego4D(lam_tree), seeds=2, out=tmp_path))
    assert rows[0]["training"] == rows[1]["training"] and rows[0]["fitted"] == {}
    dense = pd.read_csv(folder_of(tmp_path, rows[0]) / "fitting.csv", dtype={"clip": str, "track": str})
    assert len(dense) == 2 * len(Ego4D(lam_tree).frames("val"))
    own = {}
    for window in WINDOWS:
        scored = [
            lam_map(smooth_scores(of_seed, of_seed["score"].to_numpy(), "median", window), of_seed["label"].to_numpy())
            for _, of_seed in dense.groupby("seed")
        ]
        own[window] = np.mean([figures.map for figures in scored])
    best = max(own, key=own.get)
    assert rows[1]["fitted"] == {"smoothing window": best} and own[1] < own[best]
    written = pd.read_csv(folder_of(tmp_path, rows[1]) / "predictions.csv", dtype={"clip": str, "track": str})
    written = written[written["split"] == "val"]
    assert len(written) < len(dense) / 1.5 and rows[1]["splits"]["val"]["stride"] == 2
    smoothed = [
        of_seed.assign(smooth=smooth_scores(of_seed, of_seed["score"].to_numpy(), "median", best))
        for _, of_seed in dense.groupby("seed")
    ]
    joined = written.merge(pd.concat(smoothed), on=["seed", "clip", "track", "frame"], validate="one_to_one")
    assert len(joined) == len(written)
    np.testing.assert_allclose(joined["score_x"], joined["smooth"], atol=1e-6)


def test_strides_that_smoothing_cannot_use_are_refused_before_any_work(lam_tree: Path, tmp_path: Path) -> None:
    row = recipe("internlstm_flip_tta_smooth", "windows.stride.val=3", "windows.stride.test=2")
    with pytest.raises(UserError, match=r"windows.stride.val, 3, must be a multiple of windows.stride.test, 2"):
        pipeline.run([row], Session(Ego4D(lam_tree), out=tmp_path))
    assert not list(tmp_path.iterdir())
    plain = recipe("probe", "windows.stride.val=3", "windows.stride.test=2")  # nothing is fitted
    assert pipeline.run([plain], Session(Ego4D(lam_tree), out=tmp_path))[0]["splits"]["val"]["stride"] == 3


def test_a_record_says_where_it_came_from(three: tuple) -> None:
    out, rows = three
    row = schema.read_result(folder_of(out, rows[2]) / "result.json")
    assert row == rows[2]
    assert row.keys() == schema.Result.__annotations__.keys() - {"trainings"}  # of ensembles
    assert row["seeds"] == [3407, 3408]
    assert row["environment"]["packages"]["torch"]
    assert row["environment"]["deterministic"] == {"features": True, "training": True, "scores": True}
    assert row["dataset"]["splits"]["train"]["positives"] == 6 * 5
    assert row["counts"]["test windows"] == 4 * 22
    low, high = row["splits"]["test"]["metrics"]["mAP"]["interval"]
    assert low <= row["splits"]["test"]["metrics"]["mAP"]["mean"] <= high


def test_a_record_has_the_diagnosis_of_its_predictions(three: tuple) -> None:
    """Sharpness is looked up for key frames, absent frames are counted in their windows: two a track are missing."""
    out, rows = three
    found = rows[2]["diagnosis"]["splits"]["test"]
    assert set(found["groups"]) == {"face size", "sharpness", "absent frames"}
    absent = found["groups"]["absent frames"]
    assert sum(absent["windows"]) == rows[2]["counts"]["test windows"]
    # Frames 1 to 24 without 4 and 17, windows of 7: 8 to 13 and 21 have all of theirs, 1 2 3 23 24 three or fewer.
    assert absent["windows"][0] == 4 * 7
    written = pd.read_csv(folder_of(out, rows[2]) / "predictions.csv")
    of_test = written[written["split"] == "test"]
    count, _ = np.histogram(of_test["score"], np.linspace(0, 1, 16))
    assert found["reliability"]["raw"]["count"] == count.tolist()


def test_what_is_done_is_not_done_again(
    three: tuple, lam_tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out, rows = three
    monkeypatch.setattr(pipeline, "load_source", lambda *_: pytest.fail("worked again"))
    again = pipeline.run([recipe("internlstm_flip_tta")], Session(Ego4D(lam_tree), seeds=1, out=out))
    assert again == [rows[2]]  # both seeds, although one was asked for
    assert "done before, 2 seeds reused" in capsys.readouterr().err


def test_more_seeds_join_those_that_are_there(three: tuple, lam_tree: Path, tmp_path: Path) -> None:
    shutil.copytree(three[0], tmp_path / "runs")
    row = pipeline.run([recipe("probe")], Session(Ego4D(lam_tree), seeds=3, out=tmp_path / "runs"))[0]
    assert row["seeds"] == [3407, 3408, 3409]
    assert row["training"][:2] == three[1][3]["training"]
    metric = row["splits"]["test"]["metrics"]["mAP"]
    assert metric["std"] == pytest.approx(np.std(metric["per_seed"], ddof=1))


def test_the_run_folder_holds_a_recipe_that_runs_again(three: tuple, lam_tree: Path, tmp_path: Path) -> None:
    out, rows = three
    again = resolve(str(folder_of(out, rows[3]) / "config.py"), "ego4d")
    row = pipeline.run([again], Session(Ego4D(lam_tree), seeds=2, out=tmp_path))[0]
    assert row["splits"] == rows[3]["splits"]


def test_a_run_folder_from_other_settings_is_refused(three: tuple, lam_tree: Path, tmp_path: Path) -> None:
    shutil.copytree(three[0], tmp_path / "runs")
    path = folder_of(tmp_path / "runs", three[1][3]) / "result.json"
    record = json.loads(path.read_text())
    record["settings"]["config"]["training"]["lr"] = 0.5
    path.write_text(json.dumps(record))
    write_row_sums(path.parent)
    with pytest.raises(
        UserError, match=r"comes from other settings \(config.training.lr: 0.5 there, 0.05 now\); .* --out DIR"
    ):
        pipeline.run([recipe("probe")], Session(Ego4D(lam_tree), out=tmp_path / "runs"))


@pytest.mark.parametrize("name", ["result.json", "predictions.csv", "seed3407/test.csv", "SHA256SUMS"])
def test_a_damaged_row_is_made_anew_with_all_its_seeds(
    three: tuple, lam_tree: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(three[0], tmp_path / "runs")
    folder = folder_of(tmp_path / "runs", three[1][3])
    sound = {each: (folder / each).read_bytes() for each in ("predictions.csv", "seed3407/test.csv")}
    data = bytearray((folder / name).read_bytes())
    digit = max(data.rfind(b"%d" % number) for number in range(1, 8))
    data[digit] ^= 1  # another digit: nothing that could not be read
    (folder / name).write_bytes(data)
    if name in ("result.json", "predictions.csv"):
        with pytest.raises(UserError, match="is damaged"):
            read_predictions_of_row(folder, "test")
    row = pipeline.run([recipe("probe")], Session(Ego4D(lam_tree), out=tmp_path / "runs"))[0]
    assert f"damaged in {folder}: " in capsys.readouterr().err
    assert row["seeds"] == three[1][3]["seeds"]
    assert row["splits"] == three[1][3]["splits"]
    assert {each: (folder / each).read_bytes() for each in sound} == sound
    assert damaged(folder, "result.json") == []


def test_weights_that_changed_are_noticed(lam_tree: Path, tmp_path: Path) -> None:
    """The path is the same, the bytes are not."""
    weights = tmp_path / "mine.bin"
    weights.write_bytes(b"1")
    pipeline.run([recipe("probe", weights=str(weights))], Session(Ego4D(lam_tree), out=tmp_path / "runs"))
    assert pipeline.run([recipe("probe", weights=str(weights))], Session(Ego4D(lam_tree), out=tmp_path / "runs"))
    weights.write_bytes(b"2")
    with pytest.raises(UserError, match=r"comes from other settings \(weights .*mine.bin: sha256 \w+ there, \w+ now\)"):
        pipeline.run([recipe("probe", weights=str(weights))], Session(Ego4D(lam_tree), out=tmp_path / "runs"))


def test_dry_run_does_nothing(lam_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pipeline.show_work([recipe("internlstm_flip_tta")], Session(Ego4D(lam_tree), out=tmp_path / "runs"))
    # 6 + 4 + 4 clips of 22 crops, both views.
    assert "tiny_means on 616 frames (all views), lstm for 8 epochs, 1 seed" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(backbone="timm:nosuch"), "has no model 'nosuch'"),
        (dict(backbone="internvit", settings=["backbone.model=/no/such/folder"]), "/no/such/folder does not exist"),
        (dict(backbone="tiny_means", weights="/no/such/file"), "backbone tiny_means cannot be built"),
        (dict(head="transformer", settings=["head.width=30"]), "width 30 is not a multiple of heads 4"),
    ],
    ids=str,
)
def test_a_dry_run_builds_the_parts(lam_tree: Path, tmp_path: Path, arguments: dict, message: str) -> None:
    row = resolve("internlstm", "ego4d", **{"backbone": "tiny_means", **arguments})
    with pytest.raises(UserError, match=message):
        pipeline.show_work([row], Session(Ego4D(lam_tree), out=tmp_path / "runs"))


def test_the_last_seed_is_checked_too(lam_tree: Path, tmp_path: Path) -> None:
    row = recipe("probe", "training.seed=4294967294")
    pipeline.show_work([row], Session(Ego4D(lam_tree), out=tmp_path / "runs", seeds=2))
    with pytest.raises(UserError, match="the last seed would be 4294967296; seeds must be below 4294967296"):
        pipeline.show_work([row], Session(Ego4D(lam_tree), out=tmp_path / "runs", seeds=3))


def test_an_output_folder_that_cannot_be_written_is_told_first(lam_tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*write elsewhere"):
        pipeline.run([recipe("probe")], Session(Ego4D(lam_tree), out=tmp_path / "file" / "runs"))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_crop_is_named_or_counted(lam_tree: Path, tmp_path: Path, split: str) -> None:
    shutil.copytree(lam_tree, tmp_path / "data")
    pattern = (
        "face_imgs/train00/t0/face_00011.jpg" if split == "train" else "videos_challenge/test00/t0/00011_0011ab.jpg"
    )
    (tmp_path / "data" / pattern).write_bytes(b"\xff\xd8\xff no jpeg")
    dataset = Ego4D(tmp_path / "data")
    with pytest.raises(UserError, match=f"damaged crop {tmp_path / 'data' / pattern}"):
        pipeline.run([recipe("probe")], Session(dataset, out=tmp_path / "runs"))
    row = pipeline.run([recipe("probe")], Session(dataset, out=tmp_path / "runs", skip_damaged=True))[0]
    assert row["counts"]["damaged"] == 1
    # A training window whose own frame is lost teaches nothing; a test frame is scored all the same.
    whole = {"train": 6 * 11, "test": 4 * 22}
    assert row["counts"]["train windows"] + (split == "train") == whole["train"]
    assert row["counts"]["test windows"] == whole["test"]
    with pytest.raises(UserError, match="damaged crop"):
        pipeline.run([recipe("probe")], Session(dataset, out=tmp_path / "runs"))


def test_many_absent_crops_are_told_first_and_in_the_record(
    lam_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(lam_tree, tmp_path / "data")
    crops = sorted((tmp_path / "data/face_imgs").glob("val*/*/*.jpg"))
    for path in crops[::4]:
        path.unlink()
    frames = 4 * 24  # four tracks; two frames of each never had a crop
    absent = (len(crops[::4]) + frames - len(crops)) / frames
    row = pipeline.run([recipe("probe")], Session(Ego4D(tmp_path / "data"), out=tmp_path / "runs"))[0]
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith(f"val: {absent:.0%} of {frames} frames have no crop; the figures are of what is left; "
                            "`bench.py prepare` cuts crops and reports what is missing")  # fmt: skip
    splits = row["dataset"]["splits"]
    assert splits["val"]["absent"] == pytest.approx(absent, abs=1e-4)
    assert "absent" not in splits["train"] and "absent" not in splits["test"]


def test_limit_takes_windows_evenly_and_says_so(lam_tree: Path, tmp_path: Path) -> None:
    row = pipeline.run([recipe("probe", limit=40)], Session(Ego4D(lam_tree), out=tmp_path))[0]
    assert row["name"].endswith("+limit=40")
    assert [row["counts"][f"{split} windows"] for split in ("train", "val", "test")] == [40, 40, 40]
    assert row["splits"]["test"]["clips"] == 4


def test_smoothing_is_along_the_track(lam_tree: Path, tmp_path: Path) -> None:
    row = pipeline.run(
        [recipe("probe", "smoothing.filter=median", "smoothing.window=3")], Session(Ego4D(lam_tree), out=tmp_path)
    )[0]
    written = pd.read_csv(folder_of(tmp_path, row) / "predictions.csv")
    track = written[(written["split"] == "test") & (written["clip"] == "test01")].set_index("frame")
    raw = (track["score_original"] + track["score_flipped"]) / 2
    # Frame 4 is missing: frame 3 sees 2 and 3, frame 5 sees 5 and 6, frame 10 sees 9, 10 and 11.
    for frame, near in ((3, [2, 3]), (5, [5, 6]), (10, [9, 10, 11])):
        assert track["score"][frame] == pytest.approx(np.median(raw[near]), abs=1e-12)


@pytest.mark.parametrize(
    "head", sorted(name for name in HEADS if not HEADS.get(name).needs_priors and name not in FIXED_FEATURES)
)
def test_every_head_runs_by_name_alone(lam_tree: Path, tmp_path: Path, head: str) -> None:
    settings = {
        "lstm": SMALL["lstm"], "gru": SMALL["lstm"], "transformer": ["head.width=8", "head.heads=2", "head.mlp=8"]
    }.get(head, [])  # fmt: skip
    row = resolve(
        "internlstm_flip_tta",
        "ego4d",
        backbone="tiny_means",
        head=head,
        settings=[*QUICK, "training.epochs=2", *settings],
    )
    result = pipeline.run([row], Session(Ego4D(lam_tree), out=tmp_path))[0]
    assert result["head"]["type"] == head
    assert result["name"].startswith(f"internlstm_flip_tta+backbone=tiny_means+head={head}")


def test_a_head_that_needs_more_than_features_says_so(lam_tree: Path, tmp_path: Path) -> None:
    row = resolve("internlstm_flip_tta", "ego4d", backbone="tiny_means", head="gazepose", settings=QUICK)
    with pytest.raises(UserError, match="head gazepose needs the key frame's map, head_pose_bins, landmarks;"):
        pipeline.run([row], Session(Ego4D(lam_tree), out=tmp_path))


def test_test_labels_do_not_reach_the_training(lam_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the test labels turned over, every weight and score stays what it was."""
    frames = Ego4D.frames
    plain = pipeline.run([recipe("internlstm_flip_tta")], Session(Ego4D(lam_tree), out=tmp_path / "a"))[0]

    def turned(self: Ego4D, split: str) -> pd.DataFrame:
        table = frames(self, split)
        return table.assign(label=1 - table["label"]) if split == "test" else table

    monkeypatch.setattr(Ego4D, "frames", turned)
    other = pipeline.run([recipe("internlstm_flip_tta")], Session(Ego4D(lam_tree), out=tmp_path / "b"))[0]
    for report in (*plain["training"], *other["training"]):
        del report["seconds"]
    assert plain["training"] == other["training"]
    scores = [
        pd.read_csv(folder_of(tmp_path / name, row) / "predictions.csv")["score"]
        for name, row in (("a", plain), ("b", other))
    ]
    np.testing.assert_array_equal(*scores)
    assert plain["splits"]["test"]["metrics"] != other["splits"]["test"]["metrics"]


def test_the_table_has_20_seeds_of_heads_and_five_of_what_trains_a_backbone() -> None:
    names = ["internlstm", "gazelstm", "ensemble", "chance"]
    rows = {
        count: [row for kind in rows_of([resolve_row(name) for name in names], session) for row in kind]
        for count, session in ((count, Session(SynthLAM(), seeds=count)) for count in (3, "table"))
    }
    counts = {row.name: row.seed_count for row in rows["table"]}
    assert (counts["internlstm"], counts["internlstm_flip_tta"], counts["gazelstm"]) == (20, 20, 5)
    assert counts["ensemble"] == 5  # no more than its members share
    assert [row.seeds() for row in rows["table"] if row.name == "gazelstm"] == [[3407, 3408, 3409, 3410, 3411]]
    assert {row.seed_count for row in rows[3]} == {3}


@pytest.mark.parametrize("text", ["x", "1.5", "tables"])
def test_seeds_are_a_number_or_those_of_the_table(text: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--recipe", "internlstm", "--seeds", text])
    assert f"'{text}' is neither a number nor table" in capsys.readouterr().err
