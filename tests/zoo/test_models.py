"""Model folders: writing, opening, copying, uploading, and errors of incomplete ones."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from backbones.internvit import NANO_FOLDER
from registry import UserError
from zoo import hub
from zoo.cards import Card, Figure
from zoo.model import LookingAtMeModel, PixelWindow
from zoo.models import Model, copy_model, model_names, open_model, stands_alone, write_folder

HOME = Path(__file__).resolve().parent.parent.parent
HEAD = {"type": "gru", "projection": 4, "hidden": 4, "mlp": [4]}
FIGURES = (
    Figure("mAP, %", 81.5, "SynthLAM test", "a record"),
    Figure("accuracy, %", 70.25, "SynthLAM val", "a record"),
)


def write(folder: Path, backbone: dict, **changes: object) -> Model:
    torch.manual_seed(0)
    network = LookingAtMeModel.build(backbone, HEAD).eval()
    card = Card("a", "A title", "What it is.", backbone, HEAD, "How: so.", ("small",), (), FIGURES)
    model = Model("a", card, network, ("original",), 30.0, (0.1,) * 4, None, False)
    model = replace(model, **changes)
    write_folder(folder, model, backbone, HEAD, origin="tests", licence="MIT")
    return model


def pixels(size: int) -> PixelWindow:
    random = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (9, size, size, 3), generator=random, dtype=torch.uint8)
    return PixelWindow(pictures, torch.tensor([[0, 1, 2, 3, 4, -1, 5], [-1, -1, 6, 7, 8, 0, 1]]))


@pytest.mark.parametrize("kind", ["tiny_means", "internvit_nano"])
def test_written_models_are_opened_unchanged(tmp_path: Path, kind: str) -> None:
    smoothing = {"filter": "median", "window": 5}
    wrote = write(tmp_path / "mine", {"type": kind}, views=("original", "flipped"), smoothing=smoothing, rate=15.0)
    found = open_model(str(tmp_path / "mine"))
    assert (found.name, found.views, found.rate, found.margin) == ("mine", ("original", "flipped"), 15.0, (0.1,) * 4)
    assert (found.smoothing, found.rendered_only, found.card.figures) == (smoothing, False, FIGURES)
    assert found.network.backbone.frozen and not found.network.training
    batch = pixels(found.network.backbone.preprocessing.size)
    with torch.no_grad():
        assert torch.equal(found.network.judge(batch), wrote.network.judge(batch))


def test_the_shipped_model() -> None:
    assert model_names() == ["gaze_nano_lstm", "geometry", "internlstm_nano"]
    model = open_model("internlstm_nano")
    assert (model.name, model.views, model.rate) == ("internlstm_nano", ("original", "flipped"), 30.0)
    assert model.rendered_only
    nano = load_file(NANO_FOLDER / "model.safetensors")  # its backbone is the one that ships by itself
    state = model.network.backbone.network.state_dict()
    assert state.keys() == nano.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in nano.items())


@pytest.mark.parametrize(
    ("name", "record", "seed"),
    [
        ("internlstm_nano", "zoo/weights/internlstm_nano/result.json", 3407),
        ("gaze_nano_lstm", "zoo/weights/gaze_nano_lstm/result.json", 3409),
    ],
)
def test_figures_of_a_shipped_model_are_those_of_its_record(name: str, record: str, seed: int) -> None:
    known = json.loads((HOME / record).read_text())
    card = open_model(name).card
    assert {figure.source.partition(",")[0] for figure in card.figures} == {record}
    figures = {(figure.metric, figure.split): figure.value for figure in card.figures}
    for split in ("val", "test"):
        for metric, value in known["splits"][split]["metrics"].items():
            of_seed = value["per_seed"][known["seeds"].index(seed)]
            assert figures[f"{metric}, %", f"SynthLAM {split}"] == pytest.approx(100 * of_seed, abs=0.005)
            count, mean = len(known["seeds"]), sum(value["per_seed"]) / len(known["seeds"])
            said = figures[f"{metric}, %, mean of {count} seeds", f"SynthLAM {split}"]
            assert said == pytest.approx(100 * mean, abs=0.005)


def test_a_copy_of_a_shipped_model_is_a_folder_like_any_other(tmp_path: Path) -> None:
    copy_model("internlstm_nano", tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {
        "model.safetensors",
        "config.json",
        "card.json",
        "README.md",
    }
    found, shipped = open_model(str(tmp_path / "copy")), open_model("internlstm_nano")
    assert found.card.figures == shipped.card.figures
    batch = pixels(112)
    with torch.no_grad():
        assert torch.equal(found.network.judge(batch), shipped.network.judge(batch))


def test_a_backbone_in_its_own_folder_is_not_copied(tmp_path: Path) -> None:
    shutil.copytree(NANO_FOLDER, tmp_path / "vit")
    wrote = write(tmp_path / "mine", {"type": "internvit", "model": str(tmp_path / "vit")})
    assert not (tmp_path / "mine" / "model.safetensors").exists()
    batch = pixels(112)
    with torch.no_grad():
        assert torch.equal(open_model(str(tmp_path / "mine")).network.judge(batch), wrote.network.judge(batch))
    state = load_file(tmp_path / "vit" / "model.safetensors")
    state["embeddings.class_embedding"] += 1
    save_file(state, tmp_path / "vit" / "model.safetensors")
    with pytest.raises(UserError, match="differs from the one the head was trained on"):
        open_model(str(tmp_path / "mine"))
    shutil.rmtree(tmp_path / "vit")
    with pytest.raises(UserError, match="change 'backbone' in .*config.json"):
        open_model(str(tmp_path / "mine"))


def test_which_backbones_stand_alone(tmp_path: Path) -> None:
    assert stands_alone({"type": "internvit_nano"})
    assert stands_alone({"type": "timm:resnet18", "weights": "somewhere.safetensors"})
    assert not stands_alone({"type": "internvit_6b", "weights": "OpenGVLab/InternViT-6B-448px-V1-5"})
    assert not stands_alone({"type": f"internvit:{tmp_path}"})
    assert not stands_alone({"type": "internvit:OpenGVLab/InternViT-300M-448px"})


def test_a_repository_is_opened_at_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's cache as written by its client: refs/main names the commit of a folder below snapshots."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "models--someone--looking"
    write(place / "snapshots" / commit, {"type": "tiny_means"})
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert open_model("someone/looking").name == f"someone/looking@{commit}"
    with pytest.raises(UserError, match="someone/nothing is neither a folder nor in the hub's cache"):
        open_model("someone/nothing")


def test_an_older_folder_without_shape_threshold_and_cost(tmp_path: Path) -> None:
    write(tmp_path / "mine", {"type": "tiny_means"})
    path = tmp_path / "mine" / "config.json"
    config = json.loads(path.read_text())
    assert (config.pop("square"), config.pop("threshold"), config.pop("cost")) == (False, 0.5, 0.0)
    path.write_text(json.dumps(config))
    model = open_model(str(tmp_path / "mine"))
    assert (model.square, model.threshold, model.cost) == (False, 0.5, 0.0)
    for cost in (-1, 1e9):
        path.write_text(json.dumps(config | {"cost": cost}))
        with pytest.raises(UserError, match="it must be between 0 and 1000"):
            open_model(str(path.parent))
    for threshold in (0, 1, -0.5, 7):
        path.write_text(json.dumps(config | {"threshold": threshold}))
        with pytest.raises(UserError, match=f"threshold is {threshold}; it must be between 0 and 1"):
            open_model(str(tmp_path / "mine"))
    for margin in ([0.1, 0.2, 0.3], [0.1, 0.2, 0.3, -0.1], -0.1, 11):
        path.write_text(json.dumps(config | {"margin": margin}))
        with pytest.raises(UserError, match="at most 1000.*, margin is .*one number or four, from 0 to 10"):
            open_model(str(tmp_path / "mine"))
    for margin in ([0.1, 0.2, 0.3, "0.4"], [0.1, 0.2, 0.3, True], True):
        path.write_text(json.dumps(config | {"margin": margin}))
        with pytest.raises(UserError, match=r"margin.*: expected float.*, got (str|bool)"):
            open_model(str(tmp_path / "mine"))
    path.write_text(json.dumps(config | {"margin": 0.2}))
    assert open_model(str(tmp_path / "mine")).margin == (0.2,) * 4
    path.write_text(json.dumps(config | {"square": "yes"}))
    with pytest.raises(UserError, match="square: expected bool, got str"):
        open_model(str(tmp_path / "mine"))


def test_the_hubs_card(tmp_path: Path) -> None:
    write(tmp_path / "mine", {"type": "tiny_means"}, rendered_only=True)
    _, front, text = (tmp_path / "mine" / "README.md").read_text().split("---\n", 2)
    data = yaml.safe_load(front)
    assert (data["license"], data["library_name"]) == ("mit", "lamzoo")
    assert "synthetic" in data["tags"]
    (index,) = data["model-index"]
    shown = {
        (each["dataset"]["name"], each["dataset"]["split"], metric["type"], metric["value"])
        for each in index["results"]
        for metric in each["metrics"]
    }
    assert shown == {("SynthLAM", "test", "mean_average_precision", 81.5), ("SynthLAM", "val", "accuracy", 70.25)}
    assert "| mAP, % | 81.5 | SynthLAM test | a record |" in text
    assert "rendered faces only" in text
    assert index["name"] == "a" and text.lstrip().startswith("# a\n\nA title.\n")
    assert 'load_model("MODEL").predict("VIDEO.mp4")' in text and "@software{lamzoo," in text
    citing = (HOME / "docs" / "citing.md").read_text()
    for title in re.findall(r"title += (\{.*\}),", text):
        assert title in citing


def test_the_hub_shows_one_figure_per_split(tmp_path: Path) -> None:
    copy_model("internlstm_nano", tmp_path / "nano")
    _, front, text = (tmp_path / "nano" / "README.md").read_text().split("---\n", 2)
    (index,) = yaml.safe_load(front)["model-index"]
    shown = [(each["dataset"]["split"], [metric["name"] for metric in each["metrics"]]) for each in index["results"]]
    assert shown == [("val", ["mAP, %"]), ("test", ["mAP, %"])]
    figures = open_model("internlstm_nano").card.figures
    assert len(figures) > 2 and text.count("| SynthLAM ") == len(figures)


def test_broken_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model 'internlstm_nan'; did you mean 'internlstm_nano'"):
        open_model("internlstm_nan")
    with pytest.raises(UserError, match="give a model folder"):
        open_model(str(tmp_path))
    write(tmp_path / "mine", {"type": "tiny_means"})
    config = json.loads((tmp_path / "mine" / "config.json").read_text())

    def broken(**changes: object) -> str:
        changed = {key: value for key, value in (config | changes).items() if value != "left out"}
        (tmp_path / "mine" / "config.json").write_text(json.dumps(changed))
        with pytest.raises(UserError) as caught:
            open_model(str(tmp_path / "mine"))
        return str(caught.value)

    assert "lacks 'rate'" in broken(rate="left out")
    assert "rate: expected float, got bool" in broken(rate=True)
    assert "rate is 0 (must be above 0" in broken(rate=0)
    assert "'views' is ['mirrored']" in broken(views=["mirrored"])
    assert "has format 2, this version reads 1" in broken(format=2)
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    weights = tmp_path / "mine" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match="the sha256 of .* differs from the one in"):
        open_model(str(tmp_path / "mine"))
    weights.unlink()
    with pytest.raises(UserError, match="must hold either model.safetensors or head.safetensors"):
        open_model(str(tmp_path / "mine"))


def test_a_folder_is_uploaded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine", {"type": "tiny_means"})
    calls = []

    class Api:
        def create_repo(self, repo_id: str, **options: object) -> None:
            calls.append(("create", repo_id, options))

        def upload_folder(self, **options: object) -> object:
            calls.append(("upload", options["repo_id"], options))
            return type("Commit", (), {"commit_url": "https://example.invalid/commit"})

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert hub.push_model(tmp_path / "mine", "someone/looking") == "https://example.invalid/commit"
    assert [call[:2] for call in calls] == [("create", "someone/looking"), ("upload", "someone/looking")]
    assert calls[0][2] == {"private": True, "exist_ok": True}
    assert calls[1][2]["folder_path"] == tmp_path / "mine"
    with pytest.raises(UserError, match="a repository name has the form OWNER/NAME"):
        hub.push_model(tmp_path / "mine", "looking")

    def refuse(self: Api, repo_id: str, **options: object) -> None:
        raise OSError("401 Client Error")

    monkeypatch.setattr(Api, "create_repo", refuse)
    with pytest.raises(UserError, match="upload to someone/looking failed .401 Client Error.; .* .hf auth login"):
        hub.push_model(tmp_path / "mine", "someone/looking")
