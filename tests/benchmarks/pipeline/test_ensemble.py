import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

import bench
from benchmarks.config.ensemble import Ensemble, resolve_row
from benchmarks.data.dataset import Ego4D
from benchmarks.evaluation.metrics import lam_map
from benchmarks.pipeline import run as pipeline
from benchmarks.pipeline.session import Session
from benchmarks.rows.folder import result_folder
from benchmarks.rows.schema import Result, read_result
from benchmarks.rows.trainings import shared_in_words, trainings_of
from benchmarks.scoring.fuse import fit_weights
from benchmarks.scoring.smooth import smooth_scores
from benchmarks.table.render import render
from benchmarks.table.table import rows
from registry import UserError

MEMBERS = (
    "probe",
    "internlstm_flip_tta+head.projection=8+head.hidden=8+head.mlp=[8,8,8]",
    "probe+views.test=['original']+windows.stride.val=3",
)
SETTINGS = ["windows.stride.train=2", "training.epochs=4", "training.lr=0.05"]


def ensemble(*settings: str, members: tuple[str, ...] = MEMBERS) -> Ensemble:
    own = [f"members={members!r}", *SETTINGS, *settings]
    row = resolve_row("ensemble", "ego4d", backbone="tiny_means", settings=own)
    assert isinstance(row, Ensemble)
    return row


@pytest.fixture(scope="module")
def run(lam_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ensemble, Result]:
    """An ensemble of three on the small data set, two scored on every other validation frame, one on every third."""
    out = tmp_path_factory.mktemp("runs")
    row = ensemble("windows.stride.val=2")
    return out, row, pipeline.run([row], Session(Ego4D(lam_tree), seeds=2, out=out))[0]


def written(folder: Path, split: str) -> pd.DataFrame:
    table = pd.read_csv(folder / "predictions.csv", dtype={"clip": str, "track": str, "unique_id": str})
    return table[table["split"] == split]


def on_every_frame(folder: Path) -> pd.DataFrame:
    """A member's validation scores at the stride of test."""
    return pd.read_csv(folder / "fitting.csv", dtype={"clip": str, "track": str})


def test_scores_are_the_weighted_mean_logit_of_the_members_own_rows_smoothed(run: tuple) -> None:
    """From the members' files, joined by key, with the weights of the record; scipy's logit and expit.

    Validation is fused and smoothed on every frame, like test, and the ensemble's own key frames are taken from that.
    """
    out, row, result = run
    window = result["fitted"]["smoothing window"]
    for split in ("val", "test"):
        fused = written(result_folder(out, row), split)
        for number, seed in enumerate(result["seeds"]):
            ours = fused[fused["seed"] == seed].reset_index(drop=True)
            dense, total = None, 0.0
            for member in row.members:
                theirs = written(result_folder(out, member), split)
                theirs = theirs[theirs["seed"] == seed]
                joined = ours[["clip", "track", "frame"]].merge(theirs, how="left", validate="one_to_one")
                np.testing.assert_array_equal(joined["score"], ours[f"score_{member.name}"])
                if split == "val":
                    theirs = on_every_frame(result_folder(out, member))
                    theirs = theirs[theirs["seed"] == seed]
                clipped = theirs["score"].clip(1e-7, 1 - 1e-7)
                total = total + result["fitted"]["weights"][member.name][number] * logit(clipped.to_numpy())
                if dense is not None:
                    np.testing.assert_array_equal(*(each[["clip", "track", "frame"]] for each in (dense, theirs)))
                dense = theirs
            smooth = dense.assign(smooth=smooth_scores(dense, expit(total), "median", window))
            joined = ours[["clip", "track", "frame"]].merge(smooth, how="left", validate="one_to_one")
            np.testing.assert_allclose(ours["score"], joined["smooth"], atol=1e-12)
            figures = result["splits"][split]["metrics"]["mAP"]["per_seed"]
            assert figures[number] == lam_map(ours["score"].to_numpy(), ours["label"].to_numpy()).map


def test_weights_and_window_are_fitted_on_validation_at_the_stride_of_test(run: tuple, lam_tree: Path) -> None:
    out, row, result = run
    table = Ego4D(lam_tree).frames("val")
    scores = []
    for member in row.members:
        dense = on_every_frame(result_folder(out, member))
        dense = dense[dense["seed"] == 3407]
        assert len(dense) == len(table) and (dense["split"] == "val").all()
        own = written(result_folder(out, member), "val")
        joined = own[own["seed"] == 3407].merge(dense, on=["clip", "track", "frame"], validate="one_to_one")
        assert len(joined) < len(dense) / 1.5
        np.testing.assert_allclose(joined["score_x"], joined["score_y"], atol=1e-6)
        scores.append(dense["score"].to_numpy())
    weights = fit_weights(np.stack(scores), dense["label"].to_numpy())
    assert [result["fitted"]["weights"][member.name][0] for member in row.members] == pytest.approx(list(weights))


def test_figures_are_of_the_validation_frames_that_all_members_score(run: tuple) -> None:
    out, row, result = run
    frames = [
        set(written(result_folder(out, member), "val")[["clip", "track", "frame"]].itertuples(index=False, name=None))
        for member in row.members
    ]
    common = written(result_folder(out, row), "val")
    common = common[common["seed"] == 3407]
    assert set(common[["clip", "track", "frame"]].itertuples(index=False, name=None)) == set.intersection(*frames)
    assert len(common) < min(map(len, frames))
    assert result["splits"]["val"]["windows"] == len(common) and result["splits"]["val"]["stride"] == 6


def test_a_finished_row_becomes_a_member(lam_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Its training is reused, its figures stay, and its scores at the stride of test are added."""
    members = ("probe", "probe+views.test=['original']")
    row = ensemble("windows.stride.val=2", members=members)
    session = Session(Ego4D(lam_tree), out=tmp_path)
    before = pipeline.run([row.members[0]], session)[0]
    folder = result_folder(tmp_path, row.members[0])
    assert not (folder / "fitting.csv").exists()
    predictions = (folder / "predictions.csv").read_text()
    capsys.readouterr()
    result = pipeline.run([row], session)[0]
    assert "0 trainings done, 1 reused" in capsys.readouterr().err
    assert (folder / "fitting.csv").exists() and (folder / "predictions.csv").read_text() == predictions
    after = read_result(folder / "result.json")
    assert after["splits"] == before["splits"]
    assert "fitting.csv" in (folder / "SHA256SUMS").read_text()
    # Both members share a training, and the record of the ensemble says so.
    assert [len(names) for names in result["trainings"]] == [1]
    own = trainings_of(after)[0]
    assert set(result["trainings"][0]) < own
    assert shared_in_words(trainings_of(result), trainings_of(after)) == "same trainings"


def test_members_are_rows_of_their_own_with_their_own_files(run: tuple) -> None:
    out, row, result = run
    for member in row.members:
        own = json.loads((result_folder(out, member) / "result.json").read_text())
        view = result["splits"]["test"]["views"][member.name]
        assert own["splits"]["test"]["metrics"]["mAP"]["per_seed"] == view["per_seed"]
    assert result["head"]["parameters"] == sum(part["parameters"] for part in result["head"]["of"])
    assert len(result["backbone"]["of"]) == 1  # all three share it


def test_what_is_done_is_not_done_again_and_more_seeds_join(
    run: tuple, lam_tree: Path, capsys: pytest.CaptureFixture
) -> None:
    out, row, result = run
    assert pipeline.run([row], Session(Ego4D(lam_tree), seeds=2, out=out)) == [result]
    assert capsys.readouterr().err.count("done before") == 4
    more = pipeline.run([row], Session(Ego4D(lam_tree), seeds=3, out=out))[0]
    assert more["seeds"] == [3407, 3408, 3409]
    for split in ("val", "test"):
        new, old = (each["splits"][split]["views"] for each in (more, result))
        assert new.keys() == old.keys()
        assert all(new[member]["per_seed"][:2] == old[member]["per_seed"] for member in old)


def test_its_config_file_runs_the_same_again(run: tuple, lam_tree: Path, tmp_path: Path) -> None:
    out, row, result = run
    again = resolve_row(str(result_folder(out, row) / "config.py"), "ego4d")
    assert isinstance(again, Ensemble)
    assert [member.name for member in again.members] == [member.name for member in row.members]
    figures = pipeline.run([again], Session(Ego4D(lam_tree), seeds=2, out=tmp_path))[0]["splits"]["test"]["metrics"]
    for name, metric in figures.items():
        assert metric["per_seed"] == result["splits"]["test"]["metrics"][name]["per_seed"][:2]


def test_files_that_changed_are_not_fused(run: tuple, lam_tree: Path, tmp_path: Path) -> None:
    members = ("probe", "probe+views.test=['original']")
    row = ensemble("windows.stride.val=2", members=members)
    pipeline.run(list(row.members), Session(Ego4D(lam_tree), out=tmp_path))
    path = result_folder(tmp_path, row.members[0]) / "predictions.csv"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    pipeline.run([row], Session(Ego4D(lam_tree), out=tmp_path))
    assert path.read_text() == whole  # the member was made again, as its folder's checksums ask for
    for broken in ("".join(lines[:-1]), lines[0] + "".join(lines[:0:-1]), "split,seed\nx,y\n"):
        path.write_text(broken)
        (path.parent / "SHA256SUMS").unlink(missing_ok=True)  # as in folders of older versions
        (result_folder(tmp_path, row) / "result.json").unlink(missing_ok=True)
        with pytest.raises(UserError, match=r"predictions\.csv.*delete .* and run again"):
            pipeline.run([row], Session(Ego4D(lam_tree), out=tmp_path))


def test_a_setting_reaches_every_member_that_has_it() -> None:
    row = resolve_row("ensemble", "ego4d", settings=["head.hidden=8", "priors=face_mesh", "smoothing.window=5"])
    assert isinstance(row, Ensemble)
    lstm, gaze, pose = row.members
    assert lstm.name == "internlstm_flip_tta+head.hidden=8"
    assert (gaze.name, pose.name) == ("gazelstm", "gazepose+priors=face_mesh")  # GazeLSTM's size is fixed
    assert row.smoothing.window == 5
    assert row.name == "ensemble+smoothing.window=5+head.hidden=8+priors=face_mesh"
    weights = resolve_row("ensemble", "ego4d", weights="/x/weights")
    assert [member.changes for member in weights.members] == [("weights=weights",), (), ()]
    assert resolve_row("ensemble", "ego4d", settings=["training.seed=3407"]).changes == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(head="gru"), "--head gru: ensemble ensemble has no head of its own"),
        (dict(settings=["members=probe"]), "members is ['probe']; an ensemble has at least two"),
        (dict(settings=["members=3"]), "members is 3; expected array, got int"),
        (dict(settings=["members=probe,prob"]), "unknown recipe 'prob'; did you mean 'probe'?"),
        (dict(settings=["members=probe,probe"]), "members name probe twice"),
        (dict(settings=["members=probe,ensemble"]), "member ensemble is an ensemble; list its members instead"),
        (dict(settings=["trainig.lr=1"]), "unknown key 'trainig.lr'; did you mean 'training.lr'?"),
        (dict(settings=["smoothing.window=4"]), "smoothing.window is 4; it must be an odd number"),
        (dict(settings=["members=probe+head=lsmt,internlstm"]), "unknown head 'lsmt'; did you mean 'lstm'?"),
    ],
    ids=str,
)
def test_mistakes_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        resolve_row("ensemble", **arguments)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_members_without_a_seed_or_a_frame_in_common_are_named(lam_tree: Path, tmp_path: Path) -> None:
    row = ensemble("windows.stride.val=2", members=("probe", "probe+training.seed=1"))
    with pytest.raises(UserError, match="its members share no seed"):
        pipeline.run([row], Session(Ego4D(lam_tree), out=tmp_path))


def test_a_row_of_the_table_names_all_parts(run: tuple) -> None:
    _, _, result = run
    row = next(row for row in rows([(result, "this machine")]) if row.dataset)
    assert (row.backbone, row.head) == ("tiny_means", "probe, lstm, probe")
    assert row.method == "Ensemble (changed)" and row.published_map is None
    plain = {**result, "config": {**result["config"], "changes": []}}
    line = next(line for line in render(rows([(plain, "here")])).splitlines() if line.startswith("| Ensemble"))
    assert line.split("|")[5].strip() == "81"  # published with two digits, and shown with two


def test_all_leaves_ensembles_out_where_they_lack_something(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert bench.main(["--recipe", "all", "--dry-run", "--out", str(tmp_path), "--head", "probe"]) == 0
    assert "ensemble: left out, because an ensemble has no head of its own" in capsys.readouterr().err
