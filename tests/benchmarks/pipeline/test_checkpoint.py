"""`--checkpoint` scores trained weights without training, to the same numbers as the row that trained them."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.config.recipe import Recipe
from benchmarks.config.resolve import resolve
from benchmarks.data.dataset import Ego4D
from benchmarks.pipeline import run as pipeline
from benchmarks.pipeline.session import Session
from benchmarks.rows import schema
from benchmarks.rows.folder import result_folder
from benchmarks.table.table import rows as table_rows
from registry import UserError
from tests.conftest import HOME
from zoo.published import PUBLISHED
from zoo.upstream import import_checkpoint
from zoo.weights import read_weights

QUICK = ["windows.stride.train=6", "windows.stride.val=6", "training.epochs=1", "training.batch_size=16"]
SMALL = ["head.projection=4", "head.hidden=4", "head.mlp=[4]"]
ROWS = {
    "features": ("internlstm_flip_tta", "tiny_means", SMALL, "head.safetensors"),
    "pixels": ("gazelstm", "tiny_trunk", ["backbone.frozen=false"], "model.safetensors"),
}


def row(kind: str, checkpoint: Path | None = None, **changes: object) -> Recipe:
    name, backbone, settings, _ = ROWS[kind]
    return resolve(
        name,
        "ego4d",
        backbone=backbone,
        settings=[*QUICK, *settings],
        checkpoint=checkpoint and str(checkpoint),
        **changes,
    )


def run(recipe: Recipe, tree: Path, out: Path, seeds: int = 1) -> schema.Result:
    return pipeline.run([recipe], Session(Ego4D(tree), out=out, seeds=seeds))[0]


def scores(out: Path, recipe: Recipe) -> pd.DataFrame:
    table = pd.read_csv(result_folder(out, recipe) / "predictions.csv", dtype={"clip": str, "track": str})
    return table[table["split"] != "train"].reset_index(drop=True)


@pytest.fixture(params=ROWS)
def trained(
    request: pytest.FixtureRequest, lam_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Path, schema.Result]:
    """A kind of row, its weights, and its record."""
    kind = request.param
    if kind == "pixels":
        from registry import load_plugins

        load_plugins([str(HOME / "tests" / "parts" / "tiny_trunk.py")])
    result = run(row(kind), lam_tree, tmp_path / "trained")
    (weights,) = (tmp_path / "trained" / "trainings").glob(f"*/seed3407/{ROWS[kind][3]}")
    return kind, weights, result


def test_a_checkpoint_scores_like_the_row_that_trained_it(
    trained: tuple, lam_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    kind, weights, result = trained
    checkpoint = shutil.copy(weights, tmp_path / "best.safetensors")
    recipe = row(kind, checkpoint)
    found = run(recipe, lam_tree, tmp_path / "out")
    pd.testing.assert_frame_equal(scores(tmp_path / "out", recipe), scores(tmp_path / "trained", row(kind)))
    for split, of_split in found["splits"].items():
        assert of_split["metrics"] == result["splits"][split]["metrics"]
    assert found["counts"]["train windows"] == 0
    (report,) = found["training"]
    assert (report["best_epoch"], report["windows"]) == (0, 0)
    assert report["checkpoint"]["file"] == "best.safetensors"
    assert report["best_mAP"] == pytest.approx(result["training"][0]["best_mAP"])
    assert "+checkpoint=best.safetensors+" in found["name"]
    assert not found["backbone"]["weights"]["random_init"]

    capsys.readouterr()
    moved = tmp_path / "elsewhere" / "best.safetensors"
    moved.parent.mkdir()
    recipe = row(kind, Path(shutil.move(checkpoint, moved)))
    run(recipe, lam_tree, tmp_path / "out")
    assert "done before, 1 seed reused" in capsys.readouterr().err
    shown = [each for each in table_rows([(found, "")]) if each.recipe == found["name"]]
    assert [each.method for each in shown] == [f"{found['config']['method']} (changed) (checkpoint)"]


def test_another_checkpoint_of_the_same_name_is_noticed(trained: tuple, lam_tree: Path, tmp_path: Path) -> None:
    kind, weights, _ = trained
    checkpoint = Path(shutil.copy(weights, tmp_path / "best.safetensors"))
    run(row(kind, checkpoint), lam_tree, tmp_path / "out")
    again = row(kind)
    other = resolve(
        again.recipe, "ego4d", backbone=again.backbone["type"], settings=[*QUICK, *ROWS[kind][2], "training.seed=1"]
    )
    run(other, lam_tree, tmp_path / "other")
    (weights,) = (tmp_path / "other" / "trainings").glob(f"*/seed1/{ROWS[kind][3]}")
    shutil.copy(weights, checkpoint)
    with pytest.raises(UserError, match="comes from other settings .checkpoint: "):
        run(row(kind, checkpoint), lam_tree, tmp_path / "out")


def test_what_is_no_checkpoint_of_the_recipe_is_refused(trained: tuple, lam_tree: Path, tmp_path: Path) -> None:
    kind, weights, _ = trained
    with pytest.raises(UserError, match="no.safetensors is not a file; `bench.py import` writes one"):
        run(row(kind, tmp_path / "no.safetensors"), lam_tree, tmp_path / "out")
    with pytest.raises(UserError, match="is one set of weights; it has no 2 seeds"):
        run(row(kind, weights), lam_tree, tmp_path / "out", seeds=2)
    extracted = tmp_path / "other" / "features"
    with pytest.raises(UserError, match="holds a head .*the recipe has 'gru'; name the head's recipe"):
        recipe = resolve("internlstm", "ego4d", backbone="tiny_means", head="gru", checkpoint=str(weights))
        run(recipe, lam_tree, tmp_path / "other")
    if kind == "features":
        wider = [*QUICK, *SMALL, "head.hidden=5"]
        with pytest.raises(UserError, match=r"tensor 'lstm.*' has shape .*, the model's is"):
            recipe = resolve("internlstm", "ego4d", backbone="tiny_means", settings=wider, checkpoint=str(weights))
            run(recipe, lam_tree, tmp_path / "other")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(UserError, match="damaged or not a safetensors file"):
        run(row(kind, damaged), lam_tree, tmp_path / "other")
    assert not extracted.exists()  # all of this is found before any frame is encoded
    with pytest.raises(UserError, match="--checkpoint: ensemble ensemble has weights of its own members only"):
        from benchmarks.config.ensemble import resolve_row

        resolve_row("ensemble", checkpoint=str(weights))


def test_the_baseline_of_gazeposes_authors_is_imported(tmp_path: Path) -> None:
    """It has one linear layer after the LSTM; Ego4D's own has two."""
    wanted = PUBLISHED["gazelstm"].tensors({"last_layer.weight": (2, 512)}).wanted
    assert "last_layer.weight" in wanted and "last_layer1.weight" not in wanted
    generator = torch.Generator().manual_seed(1)
    state = {
        f"module.{name}": torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else torch.tensor(0)
        for name, tensor in wanted.items()
    }
    torch.save({"state_dict": state}, tmp_path / "baseline.pth")
    import_checkpoint(tmp_path / "baseline.pth", "gazelstm", tmp_path / "baseline.safetensors")
    found, about = read_weights(tmp_path / "baseline.safetensors")
    assert about["head"]["bottleneck"] is None
    assert np.array_equal(found["head.last_layer.weight"], state["module.last_layer.weight"])
