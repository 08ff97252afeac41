"""What a run says about the committed record of its row."""

import copy
import json
import shutil

import numpy as np
import pytest

from bench import main
from benchmarks.rows.expected import outcome_in_words
from benchmarks.rows.find import RECORDS
from benchmarks.rows.schema import read_result

QUICK = ["--set", "windows.stride.train=2", "--set", "windows.stride.val=2", "--set", "training.epochs=1"]


@pytest.fixture(scope="module")
def record():
    return read_result(RECORDS / "synthlam" / "internlstm.json")


def run_of(record, per_seed):
    """A run of the record's row with other figures."""
    result = copy.deepcopy(record)
    result["seeds"] = list(range(len(per_seed)))
    result["splits"]["test"]["metrics"]["mAP"]["per_seed"] = per_seed
    return result


def test_the_ranges_over_seeds_are_said(record):
    values = np.array(record["splits"]["test"]["metrics"]["mAP"]["per_seed"]) * 100
    on_record = f"; {values.min():.1f} to {values.max():.1f} in 20 seeds on record"
    one, two = run_of(record, [0.81266]), run_of(record, [0.81, 0.76])
    assert outcome_in_words(one) == f"internlstm: mAP 81.3 on synthlam test, 1 seed{on_record}"
    assert outcome_in_words(two) == f"internlstm: mAP 76.0 to 81.0 on synthlam test, 2 seeds{on_record}"


def test_records_of_other_rows_versions_and_data_are_not_beside_it(record):
    assert outcome_in_words(run_of(record, [None])) is None
    for change in (
        lambda result: result.update(name="internlstm+head=gru"),
        lambda result: result["config"].update(version=result["config"]["version"] + 1),
        lambda result: result["dataset"].update(name="ego4d"),
        lambda result: result["dataset"]["splits"]["test"].update(sha256="other"),
    ):
        result = run_of(record, [0.8])
        change(result)
        assert outcome_in_words(result) == f"{result['name']}: mAP 80.0 on {result['dataset']['name']} test, 1 seed"


def test_a_run_prints_it(lam_tree, tmp_path, monkeypatch, capsys):
    command = ["--recipe", "probe", "--dataset", "ego4d", "--root", str(lam_tree), "--backbone", "tiny_means", *QUICK]
    assert main([*command, "--seeds", "2", "--out", str(tmp_path / "first")]) == 0
    assert "on record" not in capsys.readouterr().err
    (path,) = (tmp_path / "first").glob("results/ego4d/*/result.json")
    (tmp_path / "records" / "ego4d").mkdir(parents=True)
    name = json.loads(path.read_text())["name"]
    shutil.copy(path, tmp_path / "records" / "ego4d" / f"{name}.json")
    monkeypatch.setattr("benchmarks.rows.expected.RECORDS", tmp_path / "records")
    assert main([*command, "--out", str(tmp_path / "second")]) == 0
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith(f"{name}: mAP "))
    assert " on ego4d test, 1 seed; " in line or " on ego4d val, 1 seed; " in line
    assert line.endswith(" in 2 seeds on record")
