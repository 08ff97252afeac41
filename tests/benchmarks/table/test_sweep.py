import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import bench
from benchmarks.rows.schema import read_result
from benchmarks.table.sweep import grid_rows, parse_grid, write_sweep
from registry import UserError

SVG = "{http://www.w3.org/2000/svg}"
SETTINGS = "windows.stride.train=2", "windows.stride.val=2", "training.epochs=1", "head.projection=8", "head.mlp=[8]"
QUICK = [argument for setting in SETTINGS for argument in ("--set", setting)]


def sweep(lam_tree: Path, out: Path, *arguments: str, seeds: int = 2) -> int:
    given = ["--recipe", "internlstm_flip_tta", "--dataset", "ego4d", "--root", str(lam_tree), "--out", str(out)]
    return bench.main([*given, "--seeds", str(seeds), *QUICK, *arguments])


def test_a_grid_is_rows_a_table_and_a_picture(lam_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    grid = ["--sweep", "head.hidden=4,8", "backbone=tiny_means", "training.lr=0.05,1e-3"]
    assert sweep(lam_tree, tmp_path, *grid) == 0
    out, err = capsys.readouterr()
    assert err.count("feature vectors computed") == 1  # one extraction a backbone
    folder = next((tmp_path / "sweeps" / "ego4d").iterdir())
    table = pd.read_csv(folder / "table.csv")
    assert table["head.hidden"].tolist() == [4, 4, 8, 8] and table["training.lr"].tolist() == [0.05, 1e-3] * 2
    assert set(table["split"]) == {"test"} and set(table["seeds"]) == {2}
    records = {record["name"]: record for record in map(read_result, tmp_path.glob("results/*/*/result.json"))}
    assert set(records) == set(table["row"])
    for row in table.itertuples():
        assert row.mAP == pytest.approx(records[row.row]["splits"]["test"]["metrics"]["mAP"]["mean"], abs=1e-12)
    body = [line for line in out.splitlines() if line.startswith("| 8 ")][0].split("|")
    assert body[2].strip() == "{:.2f} ± {:.2f}".format(*(100 * table.loc[2, ["mAP", "std"]]))
    assert (folder / "table.md").read_text().strip() in out
    drawn = ElementTree.parse(folder / "heatmap.svg").getroot()
    figures = [element.text for element in drawn.iter(f"{SVG}text") if re.fullmatch(r"\d+\.\d", element.text)]
    assert figures == [f"{100 * value:.1f}" for value in table["mAP"]]
    assert len([element for element in drawn.iter(f"{SVG}rect") if element.get("class")]) == 4
    assert sweep(lam_tree, tmp_path, *grid) == 0
    assert capsys.readouterr().err.count("done before") == 4


@pytest.mark.parametrize(
    ("texts", "grid"),
    [
        (["head=lstm, gru"], {"head": ["lstm", "gru"]}),
        (["head.mlp=[8,8],[16]", "training.lr=1e-3"], {"head.mlp": ["[8,8]", "[16]"], "training.lr": ["1e-3"]}),
        (
            ["views.train=('original',),('original','flipped')"],
            {"views.train": ["('original',)", "('original','flipped')"]},
        ),
    ],
)
def test_lists_are_values(texts: list[str], grid: dict) -> None:
    assert parse_grid(texts) == grid


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep", "head"], "--sweep head: expected KEY=A,B"),
        (["--sweep", "head=lstm,"], "expected KEY=A,B"),
        (["--sweep", "head=lstm,lstm"], "a value is repeated"),
        (["--sweep", "head=lstm", "head=gru"], "names head twice"),
        (["--sweep", "head=lstm,lsmt"], "unknown head 'lsmt'; did you mean 'lstm'?"),
        (["--sweep", "head=lstm,gru", "--head", "probe"], "exclude each other"),
        (["--sweep", "training.lr=0.0005,5e-4"], "5e-4 and 0.0005 are the same row"),
        (["--sweep", "head=lstm,probe", "head.hidden=8"], "head probe has no argument 'hidden'"),
        (["--sweep", "head=lstm,gru", "--recipe", "all"], "--sweep takes one recipe, not --recipe all"),
    ],
    ids=str,
)
def test_mistakes_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    given = ["--recipe", "internlstm_flip_tta", "--out", str(tmp_path)]
    assert bench.main([*given, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_rows_are_what_each_would_be_alone() -> None:
    rows = grid_rows({"head": ["lstm", "gru"], "training.lr": ["1e-3"]}, "internlstm", "synthlam", limit=5)
    assert [(values, row.name) for values, row in rows.items()] == [
        (("lstm", "1e-3"), "internlstm+training.lr=0.001+limit=5"),
        (("gru", "1e-3"), "internlstm+head=gru+training.lr=0.001+limit=5"),
    ]
    with pytest.raises(UserError, match="no head of its own"):
        grid_rows({"head": ["lstm", "gru"]}, "ensemble", "synthlam")


def test_what_the_recipe_has_already_is_the_recipes_own_row() -> None:
    """The same training under a second name would be a second row of the table."""
    grid = {"backbone": ["internvit_nano", "gaze_resnet18"], "head": ["gru", "lstm"], "training.lr": ["5e-4", "1e-3"]}
    names = [row.name for row in grid_rows(grid, "internlstm", "synthlam").values()]
    assert names == [
        "internlstm+head=gru",
        "internlstm+head=gru+training.lr=0.001",
        "internlstm",
        "internlstm+training.lr=0.001",
        "internlstm+backbone=gaze_resnet18+head=gru",
        "internlstm+backbone=gaze_resnet18+head=gru+training.lr=0.001",
        "internlstm+backbone=gaze_resnet18",
        "internlstm+backbone=gaze_resnet18+training.lr=0.001",
    ]


def test_a_row_without_a_figure_is_a_grey_cell(tmp_path: Path) -> None:
    figures = pd.DataFrame({"head": ["a<b", "gru"], "mAP": [0.5, np.nan], "std": 0.0, "seeds": 1})
    text = write_sweep({"head": ["a<b", "gru"]}, figures, tmp_path, "title & more")
    assert "undefined" in text
    drawn = ElementTree.parse(tmp_path / "heatmap.svg").getroot()
    words = [element.text for element in drawn.iter(f"{SVG}text")]
    assert words == ["title & more", "head, mAP in %", "mAP", "a<b", "gru", "50.0", "-"]
    assert [each.get("class") for each in drawn.iter(f"{SVG}rect")] == ["s8", "unknown"]
