"""A row that was run, exported: it scores as the row did, its card says what the record says."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import bench
from benchmarks.config.resolve import resolve
from benchmarks.data.dataset import Ego4D
from benchmarks.data.windows import windows
from benchmarks.evaluation.bootstrap import STEPS, best_threshold
from benchmarks.pipeline import run as pipeline
from benchmarks.pipeline.export import export_row
from benchmarks.pipeline.session import Session
from benchmarks.rows.find import find_row
from benchmarks.scoring.looks import COST, looks_at
from benchmarks.system.locks import locked
from registry import UserError
from zoo.model import PixelWindow
from zoo.models import Model, open_model

QUICK = ["training.epochs=1", "training.lr=0.05", "head.projection=8", "head.hidden=8", "head.mlp=[8,8,8]"]
STRIDE = ["windows.stride.train=2", "windows.stride.val=1"]


@pytest.fixture(scope="module")
def out(lam_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows, two seeds each; one smooths, over a window chosen on validation."""
    out = tmp_path_factory.mktemp("runs")
    rows = [
        resolve(name, "ego4d", backbone="tiny_means", settings=[*QUICK, *STRIDE])
        for name in ("internlstm_flip_tta", "internlstm_flip_tta_smooth")
    ]
    pipeline.run(rows, Session(Ego4D(lam_tree), seeds=2, out=out))
    return out


def folder_of(out: Path, recipe: str) -> Path:
    return next(
        path.parent
        for path in sorted(out.glob("results/ego4d/*/result.json"))
        if json.loads(path.read_text())["config"]["recipe"] == recipe
    )


def score(model: Model, root: Path, images: list[str]) -> float:
    """The plain way: each view of one window of crops through the model, probabilities averaged."""
    of_views = []
    for view in model.views:
        crops, rows = [], []
        for image in images:
            rows.append(len(crops) if image else -1)
            if image:
                crop = model.network.backbone.preprocessing.resize_crop(Image.open(root / image))
                crops.append(torch.from_numpy(crop[:, ::-1].copy() if view == "flipped" else crop))
        with torch.no_grad():
            logits = model.network.judge(PixelWindow(torch.stack(crops), torch.tensor([rows])))[0].double()
        of_views.append(1 / (1 + np.exp(float(logits[0] - logits[1]))))
    return float(np.mean(of_views))


@pytest.mark.parametrize("seed", [3407, 3408])
def test_it_scores_as_the_row_did(out: Path, lam_tree: Path, tmp_path: Path, seed: int) -> None:
    row = folder_of(out, "internlstm_flip_tta")
    export_row(row, tmp_path / "model", seed)
    model = open_model(str(tmp_path / "model"))
    table = Ego4D(lam_tree).frames("val")
    written = pd.read_csv(row / "predictions.csv", dtype={"clip": str, "track": str})
    written = written[(written["split"] == "val") & (written["seed"] == seed)]
    neighbours = windows(table, 3, np.ones(len(table), bool))
    for i in (0, 5, 11, 40, 60):
        key = table.iloc[i]
        same = (written["clip"] == key["clip"]) & (written["track"] == key["track"])
        (wanted,) = written[same & (written["frame"] == key["frame"])]["score"]
        images = ["" if place < 0 else table["image"].iat[place] for place in neighbours[i]]
        assert score(model, lam_tree, images) == pytest.approx(wanted, abs=1e-6)


def test_what_has_to_be_known_to_run_it(out: Path, tmp_path: Path) -> None:
    row = folder_of(out, "internlstm_flip_tta_smooth")
    export_row(row, tmp_path / "model")
    model, result = open_model(str(tmp_path / "model")), json.loads((row / "result.json").read_text())
    assert (model.rate, model.rendered_only) == (30.0, False)
    assert model.margin == (0.0,) * 4  # Ego4D: the face detector's boxes
    assert model.square  # and squares of them
    assert model.smoothing == {"filter": "median", "window": result["fitted"]["smoothing window"]}
    written = pd.read_csv(row / "predictions.csv")
    written = written[(written["split"] == "val") & (written["seed"] == 3407) & (written["label"] >= 0)]
    written = written.sort_values(["clip", "track", "frame"])
    tracks = [part for _, part in written.groupby(["clip", "track"])]
    assert (written["frame"].diff().loc[written["track"] == written["track"].shift()] <= 9).all()  # of 30 a second
    looks = np.concatenate(
        [looks_at(STEPS, part["score"].to_numpy(), np.arange(len(part)) == 0, 1 / 30, COST) for part in tracks]
    )
    assert model.cost == COST
    assert model.threshold == best_threshold(looks, *(written[name].to_numpy() for name in ("label", "clip")))
    assert f"Frames with a score of {model.threshold:g} or more count as looking" in model.card.training
    figures = {(figure.metric, figure.split): figure.value for figure in model.card.figures}
    own, other = result["splits"]["val"]["metrics"]["mAP"]["per_seed"]
    assert figures["mAP, %", "Ego4D val"] == pytest.approx(100 * own, abs=0.005)
    assert figures["mAP, %, mean of 2 seeds", "Ego4D val"] == pytest.approx(50 * (own + other), abs=0.005)
    assert not any("train" in split for _, split in figures)
    (weights,) = model.card.weights
    assert weights.licence.startswith("Apache-2.0 (backbone); trained on ego4d, whose licence applies too")
    assert "license: other" in (tmp_path / "model" / "README.md").read_text()


def test_the_command(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", None)  # nothing is sent that nobody asked for
    row = folder_of(out, "internlstm_flip_tta")
    named = ["export", row.name, "--out", str(out), "--dataset", "ego4d", "-o", str(tmp_path / "a")]
    assert bench.main(named) == 0
    assert bench.main(["export", str(row), "-o", str(tmp_path / "b")]) == 0
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert one == other
    assert "seed 3407; model.safetensors sha256" in capsys.readouterr().out
    assert bench.main(["export", str(tmp_path / "a"), "-o", str(tmp_path / "c")]) == 0  # a folder is a model too
    assert open_model(str(tmp_path / "c")).card.figures == open_model(str(tmp_path / "a")).card.figures
    capsys.readouterr()

    def refused(*arguments: str) -> str:
        assert bench.main(["export", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "is not an empty folder" in refused(str(row), "-o", str(tmp_path / "a"))
    assert "was not run with seed 7; its seeds: 3407, 3408" in refused(
        str(row), "--seed", "7", "-o", str(tmp_path / "d")
    )
    assert "'internlstm' is neither a row" in refused("internlstm", "--out", str(out), "-o", str(tmp_path / "d"))
    assert "there is no row internlstm_nano" in refused("internlstm_nano", "--seed", "1", "-o", str(tmp_path / "d"))


def test_what_a_killed_export_left_is_written_again(
    out: Path, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that a living export holds is left alone, and so is one that was never an export's."""
    row, model = str(folder_of(out, "internlstm_flip_tta")), tmp_path / "model"
    child = os.fork()
    if not child:
        monkeypatch.setattr("zoo.models.write_card", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        bench.main(["export", row, "-o", str(model)])
    os.waitpid(child, 0)
    left = {path.name for path in model.iterdir()}
    assert ".lock" in left and len(left) == 2 and "config.json" not in left
    (model / "mine.txt").touch()
    assert bench.main(["export", row, "-o", str(model)]) == 2
    assert {path.name for path in model.iterdir()} == left - {".lock"} | {"mine.txt"}
    for path in model.iterdir():
        path.unlink()
    with locked(model / ".lock", "it"):
        assert bench.main(["export", row, "-o", str(model)]) == 2
        assert f"is being written by process {os.getpid()} on " in capfd.readouterr().err
    (model / ".lock").write_text("process 1 on here since long ago")
    (model / "head.safetensors").write_bytes(b"half")
    assert bench.main(["export", row, "-o", str(model)]) == 0
    assert open_model(str(model)).name == "model"
    assert not (model / ".lock").exists()


def test_weights_that_are_not_the_rows_are_not_taken(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "runs")
    row = folder_of(tmp_path / "runs", "internlstm_flip_tta")
    for path in (tmp_path / "runs").glob("trainings/*/seed3407/training.json"):
        report = json.loads(path.read_text())
        path.write_text(json.dumps(report | {"seconds": report["seconds"] + 1}))  # trained again since
    with pytest.raises(UserError, match="seed 3407, are no longer below .*trainings"):
        export_row(row, tmp_path / "model")
    assert find_row("nothing", out, "ego4d") is None


def test_damaged_weights_are_not_exported(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "runs")
    row = folder_of(tmp_path / "runs", "internlstm_flip_tta")
    for path in (tmp_path / "runs").glob("trainings/*/seed*/head.safetensors"):
        data = bytearray(path.read_bytes())
        data[-7] ^= 1
        path.write_bytes(data)
    with pytest.raises(UserError, match=r"head.safetensors is damaged .*; delete .* and run the recipe again"):
        export_row(row, tmp_path / "model")


def test_an_ensemble_has_no_weights(out: Path, tmp_path: Path) -> None:
    row = tmp_path / "results" / "ego4d" / "both"
    shutil.copytree(folder_of(out, "internlstm_flip_tta"), row)
    result = json.loads((row / "result.json").read_text())
    result["name"], result["config"]["members"] = "both", ["internlstm", "probe"]
    (row / "result.json").write_text(json.dumps(result))
    (row / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="both is an ensemble .* export its members: internlstm, probe"):
        export_row(row, tmp_path / "model")
