"""Test labels choose nothing: they can be turned over, or not be there at all, until a row's figures are computed."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.config.ensemble import Ensemble, resolve_row
from benchmarks.config.recipe import Recipe
from benchmarks.data.dataset import Ego4D
from benchmarks.pipeline import run as pipeline
from benchmarks.pipeline.row import Row
from benchmarks.pipeline.session import Session
from benchmarks.rows.folder import result_folder
from benchmarks.rows.record import RowScores
from benchmarks.rows.schema import Result

QUICK = ["windows.stride.train=2", "windows.stride.val=2", "training.epochs=3", "training.lr=0.02"]
SMALL = ["head.projection=8", "head.hidden=8", "head.mlp=[8,8,8]"]
SEEDS = 2


def plain_smoothed_and_ensemble() -> list[Recipe | Ensemble]:
    """A recipe, one whose smoothing window is fitted, and an ensemble, whose weights and window are, of two others."""
    single = [
        resolve_row(name, "ego4d", backbone="tiny_means", settings=[*QUICK, *SMALL])
        for name in ("internlstm_flip_tta", "internlstm_flip_tta_smooth")
    ]
    members = f"members={('probe', '+'.join(['internlstm', *SMALL]))!r}"
    fused = resolve_row("ensemble", "ego4d", backbone="tiny_means", settings=[members, *QUICK])
    assert isinstance(single[1], Recipe) and single[1].smoothing is not None and single[1].smoothing.window is None
    assert isinstance(fused, Ensemble) and fused.smoothing is not None and fused.smoothing.window is None
    return [*single, fused]


class Relabelled(Ego4D):
    """The small data set with other test labels."""

    def __init__(self, root: Path, labels: np.ndarray) -> None:
        super().__init__(root)
        self.labels = labels

    def frames(self, split: str) -> pd.DataFrame:
        table = super().frames(split)
        return table.assign(label=self.labels) if split == "test" else table


@pytest.fixture(scope="module")
def labels(lam_tree: Path) -> np.ndarray:
    """The true ones of the test split."""
    return Ego4D(lam_tree).frames("test")["label"].to_numpy()


@pytest.fixture(scope="module")
def as_they_are(lam_tree: Path, labels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    out = tmp_path_factory.mktemp("as_they_are")
    return out, pipeline.run(plain_smoothed_and_ensemble(), Session(Relabelled(lam_tree, labels), seeds=SEEDS, out=out))


def learnt(out: Path) -> dict[str, Any]:
    """Path -> the bytes of the weights, or the report without its times, of every training."""
    found: dict[str, Any] = {}
    for path in sorted((out / "trainings").rglob("*")):
        if path.suffix == ".safetensors":
            found[str(path.relative_to(out))] = path.read_bytes()
        elif path.name == "training.json":
            found[str(path.relative_to(out))] = json.loads(path.read_text()) | {"seconds": None}
    return found


def written_scores(out: Path, row: Recipe | Ensemble) -> pd.DataFrame:
    """Every figure of `predictions.csv` as it is spelt there, but for the labels."""
    table = pd.read_csv(result_folder(out, row) / "predictions.csv", dtype=str)
    assert {"score", "split", "seed"} < set(table.columns)
    return table.drop(columns="label")


def assert_nothing_else_differs(ours: tuple[Path, list[Result]], theirs: tuple[Path, list[Result]]) -> None:
    """Weights, best epochs, fitted values, scores of every split and figures of validation are the same, bit by bit."""
    first, second = (learnt(out) for out, _ in (ours, theirs))
    assert first == second
    assert sum(name.endswith(".safetensors") for name in first) == 3 * SEEDS  # flip_tta with smooth, internlstm, probe
    for row, one, other in zip(plain_smoothed_and_ensemble(), ours[1], theirs[1], strict=True):
        pd.testing.assert_frame_equal(written_scores(ours[0], row), written_scores(theirs[0], row))
        assert one["name"] == other["name"] == row.name
        assert one["fitted"] == other["fitted"]
        assert bool(one["fitted"]) == (row.smoothing is not None)
        assert one["splits"]["val"] == other["splits"]["val"]
        for key in ("best_epoch", "best_mAP", "history"):
            assert [report[key] for report in one["training"]] == [report[key] for report in other["training"]]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["turned over", "permuted"])
def test_other_test_labels_change_the_test_figures_alone(
    as_they_are: tuple, lam_tree: Path, labels: np.ndarray, tmp_path: Path, how: str
) -> None:
    others = 1 - labels if how == "turned over" else np.random.default_rng(0).permutation(labels)
    found = pipeline.run(
        plain_smoothed_and_ensemble(), Session(Relabelled(lam_tree, others), seeds=SEEDS, out=tmp_path)
    )
    assert_nothing_else_differs(as_they_are, (tmp_path, found))
    for one, other in zip(as_they_are[1], found, strict=True):
        assert one["splits"]["test"]["metrics"]["mAP"] != other["splits"]["test"]["metrics"]["mAP"]


def test_the_figures_need_the_test_labels_and_nothing_before_them_does(
    as_they_are: tuple, lam_tree: Path, labels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process has no test labels before it comes to compute a row's figures: then, and only then, they are opened.

    Every label of the data set's test split is -1 until `Row.keep` is called, and for the members of the ensemble they
    stay so, since their rows come before its own. What comes out is what comes out with labels there all along.
    """
    opened = []

    def open_labels(row: Row, scores: RowScores) -> Result:
        key_frames, sealed_table = scores.key_frames["test"], row.session.tables["test"]
        assert (sealed_table["label"] == -1).all() and (key_frames.labels == -1).all()
        if row.name not in wanted:
            return keep(row, scores)
        opened.append(row.name)
        known = dataclasses.replace(key_frames, labels=labels[key_frames.centres])
        row.session.tables["test"] = sealed_table.assign(label=labels)
        result = keep(row, dataclasses.replace(scores, key_frames={**scores.key_frames, "test": known}))
        row.session.tables["test"] = sealed_table
        return result

    keep = Row.keep

    wanted = [row.name for row in plain_smoothed_and_ensemble()]
    monkeypatch.setattr(Row, "keep", open_labels)
    sealed = Relabelled(lam_tree, np.full(len(labels), -1))
    found = pipeline.run(plain_smoothed_and_ensemble(), Session(sealed, seeds=SEEDS, out=tmp_path))
    assert opened == wanted
    assert_nothing_else_differs(as_they_are, (tmp_path, found))
    for one, other in zip(as_they_are[1], found, strict=True):
        own, theirs = one["splits"]["test"], other["splits"]["test"]
        assert own["metrics"] == theirs["metrics"] and own["windows"] == theirs["windows"] == len(labels)
