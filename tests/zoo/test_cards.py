"""Cards are complete, and correct about shipped weights."""

import json
from pathlib import Path

import pytest

from backbones.checksums import file_sha256
from registry import BACKBONES, HEADS, UserError
from tools.pretrain_gaze_resnet import card_of
from tools.pretraining.figures import HELD_OUT
from zoo.cards import FOLDER as CARD_FILES
from zoo.cards import load_card, load_cards
from zoo.weights import FOLDER

CARDS = load_cards()


@pytest.mark.parametrize("name", CARDS)
def test_parts_exist(name: str) -> None:
    BACKBONES.check(CARDS[name].backbone)
    if CARDS[name].head is not None:
        HEADS.check(CARDS[name].head)


def test_every_shipped_weights_file_has_its_card() -> None:
    shipped = {
        weights.file: weights for card in CARDS.values() for weights in card.weights if weights.origin == "shipped"
    }
    assert set(shipped) == {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.safetensors")}
    for file, weights in shipped.items():
        assert file_sha256(FOLDER / file) == weights.sha256
        assert weights.licence == "Apache-2.0"


def test_the_nano_cards_figures_are_those_of_its_pretraining() -> None:
    report = json.loads((FOLDER / "internvit_nano" / "pretraining.json").read_text())
    assert report["sha256"] == file_sha256(FOLDER / "internvit_nano" / "model.safetensors")
    figures = {figure.metric: figure.value for figure in CARDS["internvit_nano"].figures}
    for target in ("gaze_degrees", "head_yaw", "left_eye_yaw"):
        name = target.removesuffix("_degrees")
        readout, probe = report["readout"][target], report["linear_probe"][target]
        assert figures[f"{name}: median error of the training's readout, degrees"] == readout["median_error"]
        assert figures[f"{name}: median error of the linear probe, degrees"] == probe["median_error"]
        assert probe["median_error"] < readout["median_error_of_guessing"]


def test_the_gaze_cards_figures_are_those_of_its_training() -> None:
    report = json.loads((FOLDER / "gaze_nano" / "pretraining.json").read_text())
    assert report["sha256"] == file_sha256(FOLDER / "gaze_nano" / "model.safetensors")
    figures = {(figure.split, figure.metric): figure.value for figure in CARDS["gaze_nano"].figures}
    for part, split in HELD_OUT.items():
        assert figures[split, "gaze: median error, degrees"] == report[part]["median_error_degrees"]
        for size, errors in report[part]["by_size"].items():
            assert figures[split, f"gaze: median error, degrees, faces of {size}"] == errors["median_error_degrees"]


def test_the_card_of_gazeposes_start_is_that_of_its_pretraining() -> None:
    folder = FOLDER / "gaze_resnet18_renders"
    report = json.loads((folder / "pretraining.json").read_text())
    assert report["sha256"] == file_sha256(folder / "model.safetensors")
    assert json.loads((CARD_FILES / "gaze_resnet18_renders.json").read_text()) == card_of(report)
    held_out = report["held_out_renders"]
    assert held_out["median_error_degrees"] < 0.8 * held_out["median_error_degrees_of_guessing"]
    assert (folder / "model.safetensors").stat().st_size < 25e6


GOOD = {
    "title": "t",
    "description": "d",
    "backbone": {"type": "timm:resnet18"},
    "head": None,
    "training": "t",
    "limits": ["small"],
    "weights": [{"file": "a", "origin": "package", "sha256": "0" * 64, "licence": "MIT"}],
    "figures": [{"metric": "mAP", "value": 1, "split": "test", "source": "record"}],
}


def test_load(tmp_path: Path) -> None:
    path = tmp_path / "some_model.json"
    path.write_text(json.dumps(GOOD))
    card = load_card(path)
    assert (card.name, card.limits, card.figures[0].value) == ("some_model", ("small",), 1)
    assert load_cards(tmp_path) == {"some_model": card}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"titel": "x"}, "unknown key 'titel'; did you mean 'title'"),
        ({"title": 3}, "title: expected str, got int"),
        ({"title": ""}, "'title' is empty"),
        ({"weights": {}}, "weights: expected array, got object"),
        ({"backbone": {"name": "x"}}, "backbone and head need a 'type'"),
        ({"head": "lstm"}, "head: expected object | null, got str"),
        ({"weights": [{**GOOD["weights"][0], "sha256": "abc"}]}, "'abc' is not a sha256"),
        ({"weights": [{**GOOD["weights"][0], "sha": "abc"}]}, "weights[0]: unknown key 'sha'"),
        ({"weights": ["x"]}, "weights[0]: expected object, got str"),
        ({"figures": [{"metric": "mAP", "value": 1, "source": "record"}]}, "figures[0]: lacks 'split'"),
        ({"figures": [{**GOOD["figures"][0], "value": "72"}]}, "figures[0].value: expected float, got str"),
    ],
)
def test_bad_cards(tmp_path: Path, change: dict, words: str) -> None:
    path = tmp_path / "card.json"
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(UserError) as caught:
        load_card(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("key", GOOD)
def test_all_keys_are_required(tmp_path: Path, key: str) -> None:
    path = tmp_path / "card.json"
    path.write_text(json.dumps({name: value for name, value in GOOD.items() if name != key}))
    with pytest.raises(UserError, match=key):
        load_card(path)


def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    for text in ("{", "[]"):
        path.write_text(text)
        with pytest.raises(UserError, match="card.json: "):
            load_card(path)
