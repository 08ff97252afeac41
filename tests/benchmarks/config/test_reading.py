"""Recipes in Python, YAML and JSON: merged alike, found from any folder, and data stays data."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from benchmarks.config.ensemble import resolve_row
from benchmarks.config.files import load_dataset, load_recipe, recipe_names
from benchmarks.config.reading import DATASET_FILES, RECIPES, read_values
from registry import UserError

PYTHON = """
_base_ = ["lamzoo::internlstm_flip_tta"]
version = 2
method = "Mine"
published = None
windows = dict(radius=5, stride=dict(test=2))
views = dict(test=("original",))
training = dict(lr=5e-4, epochs=3)
head = dict(_delete_=True, type="gru", hidden=16, mlp=(8, 4))
"""
YAML = """
_base_: lamzoo::internlstm_flip_tta.py # the ending may be left out
version: 2
method: Mine
published: null
windows: {radius: 5, stride: {test: 2}}
views:
  test: [original]
training:
  lr: 5e-4
  epochs: 3
head:
  _delete_: true
  type: gru
  hidden: 16
  mlp: [8, 4]
"""
DATA = {
    "_base_": ["lamzoo::internlstm_flip_tta"],
    "version": 2,
    "method": "Mine",
    "published": None,
    "windows": {"radius": 5, "stride": {"test": 2}},
    "views": {"test": ["original"]},
    "training": {"lr": 5e-4, "epochs": 3},
    "head": {"_delete_": True, "type": "gru", "hidden": 16, "mlp": [8, 4]},
}


@pytest.mark.parametrize("path", [*sorted(RECIPES.glob("*.py")), *sorted(DATASET_FILES.glob("*.py"))], ids=str)
def test_shipped_files_are_read_as_mmengine_reads_them(path: Path) -> None:
    assert read_values(path) == Config.fromfile(str(path)).to_dict()


def test_three_spellings_are_one_recipe(tmp_path: Path) -> None:
    for name, text in (("mine.py", PYTHON), ("mine.yaml", YAML), ("mine.json", json.dumps(DATA))):
        (tmp_path / name).write_text(text)
    rows = [resolve_row(str(tmp_path / f"mine.{ending}")) for ending in ("py", "yaml", "json")]
    assert rows[0].as_dict() == rows[1].as_dict() == rows[2].as_dict()
    assert rows[0].name == "mine"
    assert rows[0].windows.radius == 5
    assert rows[0].training.lr == 0.0005
    assert rows[0].head["type"] == "gru"
    assert rows[0].training.weight_decay == 0.0  # from the base


def test_a_base_from_the_same_folder_and_a_base_of_a_base(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(YAML)
    (tmp_path / "two.json").write_text(json.dumps({"_base_": "one.yaml", "version": 1, "training": {"epochs": 4}}))
    (tmp_path / "three.py").write_text("_base_ = ['two.json']\ntraining = dict(batch_size=8)\n")
    training = load_recipe(str(tmp_path / "three.py"))["training"]
    assert (training["epochs"], training["batch_size"], training["lr"]) == (4, 8, 5e-4)


def test_a_dataset_file_may_be_data_too(tmp_path: Path) -> None:
    (tmp_path / "short.yml").write_text("_base_: lamzoo::synthlam\ntraining: {epochs: 2}\n")
    (tmp_path / "short.yaml").write_text("_base_: lamzoo::synthlam\ntraining: {epochs: 2}\n")
    own = load_dataset("synthlam")
    assert load_dataset(str(tmp_path / "short.yaml")) == own | {"training": own["training"] | {"epochs": 2}}
    row = resolve_row("internlstm", str(tmp_path / "short.yml"))
    assert (row.name, row.training.epochs) == ("internlstm+dataset=short", 2)


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_data_builds_on_no_program_but_lamzoos_own(tmp_path: Path, ending: str) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "program.py").write_text(f"open({str(canary)!r}, 'w')\n")
    (tmp_path / f"mine.{ending}").write_text(json.dumps({"_base_": ["program.py"], "version": 1}))
    with pytest.raises(UserError, match="its base program.py may be a program"):
        load_recipe(str(tmp_path / f"mine.{ending}"))
    assert not canary.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("!!python/object/apply:os.system ['touch canary']", "cannot read .*mine.yaml: ConstructorError"),
        ("version: !!python/name:os.system", "cannot read .*ConstructorError"),
        ("a: &x [1]\nb: *x\n", "aliases .* are not read"),
        ("version: 1\nversion: 2\n", "the key version stands twice in one place"),
        ("training: {lr: 1, lr: 2}\n", "the key lr stands twice"),
        ("- 1\n- 2\n", "it must hold keys and values"),
        ("1: 2\n", "it must hold keys and values"),
        ("", "it must hold keys and values"),
        ("version: [1\n", "cannot read .*ParserError"),
        ("[" * 5000, "cannot read .*RecursionError"),
        ("_base_: 5\n", r'_base_ is 5; it must be a list such as \["lamzoo::internlstm"\]'),
        ("_base_: [nowhere.yaml]\n", "its base .*nowhere.yaml does not exist; lamzoo's own are spelled lamzoo::NAME"),
        ("_base_: lamzoo::internlstn\n", "there is no lamzoo::internlstn; did you mean 'internlstm'?"),
        ("_base_: lamzoo::../commands/run\n", "there is no lamzoo::../commands/run"),
        ("_base_: mine.yaml\n", "more than 20 files build on each other; one builds on itself"),
        ("_base_: [lamzoo::probe, lamzoo::internlstm]\n", "two of its bases have the key 'augment'|the key 'backbone'"),
        ("_base_: lamzoo::internlstm\nhead: {type: gru}\n", "mine.yaml: head.type changes from lstm to gru while"),
        ("_base_: lamzoo::internlstm\ntraining: 5\n", "training"),
        ("_base_: lamzoo::internlstm\nlr: 5\n", "unknown key 'lr'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        resolve_row("mine.yaml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert not Path("canary").exists()


def test_numbers_in_yaml_are_numbers(tmp_path: Path) -> None:
    """YAML 1.1 takes 5e-4 for a text."""
    path = tmp_path / "mine.yaml"
    for text, value in (("5e-4", 5e-4), ("1E3", 1e3), ("-2.e+1", -20.0), ("5.0e-4", 5e-4), ("12", 12), ("e4", "e4")):
        path.write_text(f"x: {text}\n")
        assert read_values(path) == {"x": value}


def test_every_shipped_recipe_is_a_base(tmp_path: Path) -> None:
    for name in recipe_names():
        path = tmp_path / f"{name}_2.yaml"
        path.write_text(f"_base_: lamzoo::{name}\nversion: 7\n")
        assert resolve_row(str(path)).version == 7
