"""Running and reading rows from Python."""

import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks
from benchmarks import compare, results, run
from registry import UserError

HOME = Path(__file__).resolve().parents[3]
SETTINGS = ["windows.stride.train=2", "windows.stride.val=2", "training.epochs=1"]


def test_a_row_is_run_read_and_compared(lam_tree: Path, tmp_path: Path) -> None:
    given = dict(dataset="ego4d", root=lam_tree, backbone="tiny_means", settings=SETTINGS, device="cpu")
    probe = run("probe", seeds=2, out=tmp_path, **given)
    gru = run("internlstm", out=tmp_path, head="gru", **given)
    assert gru.name.startswith("internlstm+backbone=tiny_means+head=gru")
    assert probe.folder is not None and (probe.folder / "result.json").is_file()
    assert probe.metrics["mAP"] == probe.record["splits"][probe.split]["metrics"]["mAP"]["mean"]
    assert {"mAP_std", "mAP_low", "mAP_high", "accuracy"} < probe.metrics.keys()
    scores = probe.predictions()
    assert scores["score"].between(0, 1).all() and set(scores["seed"]) == {3407, 3408}

    found = results(tmp_path, "ego4d")
    assert {row.name for row in found} == {probe.name, gru.name} and len(found) == 2
    assert found[probe.name].metrics == probe.metrics
    frame = found.to_frame().set_index("recipe")
    assert frame.loc[probe.name, "map"] == probe.metrics["mAP"] and frame.loc[probe.name, "seeds"] == 2
    with pytest.raises(KeyError, match="no row probee"):
        found["probee"]

    compared = compare(probe.name, gru.name, tmp_path, probe.split, "ego4d")
    assert compared.difference == pytest.approx(probe.metrics["mAP"] - gru.metrics["mAP"])
    assert str(compared) == compared.text and probe.name in compared.text


def test_records_have_no_scores() -> None:
    with pytest.raises(UserError, match="a committed record has no scores"):
        results("nowhere", "synthlam")["internlstm"].predictions()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (dict(recipe="internlsmt"), "did you mean 'internlstm'"),
        (dict(recipe="probe", settings=["training.lrr=1"]), "did you mean 'training.lr'"),
        (dict(recipe="probe", dataset="ego4d"), "needs its folder"),
    ],
)
def test_errors_are_those_of_the_command_line(given: dict, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        run(out=tmp_path, **given)


def test_nothing_is_imported_before_it_is_used() -> None:
    code = "import benchmarks, sys; assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=HOME, check=True)
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        benchmarks.runn  # noqa: B018
