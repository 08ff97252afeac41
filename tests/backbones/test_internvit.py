"""InternViT against the official program's numbers, and its loader against damaged folders."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from backbones.base import Preprocessing
from backbones.internvit import NANO_FOLDER, from_official, to_official
from registry import BACKBONES, UserError
from tests.contracts import check_backbone

GOLDEN = Path(__file__).parents[1] / "golden"
STYLES = ["6b", "300m"]  # RMSNorm, norm of q and k, no qkv bias; LayerNorm, none, bias


def official_folder(style: str, folder: Path) -> dict[str, torch.Tensor]:
    """Write a golden case as the folder that OpenGVLab would ship; return its tensors."""
    file = GOLDEN / f"internvit_{style}_style.safetensors"
    with safe_open(file, "pt") as golden:
        config = {
            key: value if key == "norm_type" else json.loads(value.lower()) for key, value in golden.metadata().items()
        }
    tensors = load_file(file)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {key[6:]: tensor for key, tensor in tensors.items() if key.startswith("state.")}, folder / "model.safetensors"
    )
    return tensors


@pytest.fixture(scope="module", params=STYLES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("internvit") / request.param
    return folder, official_folder(request.param, folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the 6B style that a test may damage."""
    official_folder("6b", tmp_path / "model")
    return tmp_path / "model"


@torch.no_grad()
def test_golden(case: tuple[Path, dict]) -> None:
    folder, tensors = case
    backbone = BACKBONES.build({"type": f"internvit:{folder}"})
    for size in ("", "_larger"):
        got = backbone(tensors[f"input.pixel_values{size}"])
        torch.testing.assert_close(got, tensors[f"output.pooled{size}"], atol=1e-4, rtol=0)
    hidden = backbone.network(pixel_values=tensors["input.pixel_values"]).last_hidden_state
    torch.testing.assert_close(hidden, tensors["output.last_hidden_state"], atol=1e-4, rtol=0)
    assert backbone.network.config._attn_implementation == "sdpa"
    assert backbone.feature_dim == tensors["output.pooled"].shape[1]


def test_official_names_there_and_back(case: tuple[Path, dict]) -> None:
    official = load_file(case[0] / "model.safetensors")
    back = to_official(from_official(official))
    assert back.keys() == official.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in official.items())


def test_contract(case: tuple[Path, dict]) -> None:
    check_backbone({"type": "internvit", "model": str(case[0])})


def test_nano_contract() -> None:
    check_backbone({"type": "internvit_nano"})


def test_nano_is_an_internvit_and_small() -> None:
    nano = BACKBONES.build({"type": "internvit_nano"})
    assert nano.architecture["norm_type"] == "rms_norm"
    assert nano.architecture["qk_normalization"] is True
    assert nano.architecture["qkv_bias"] is False
    assert 1e6 < sum(parameter.numel() for parameter in nano.parameters()) < 3e6
    assert (NANO_FOLDER / "model.safetensors").stat().st_size < 6e6
    assert all(parameter.dtype == torch.float32 for parameter in nano.parameters())


@torch.no_grad()
def test_several_files_give_the_same_features(case: tuple[Path, dict], tmp_path: Path) -> None:
    folder, tensors = case
    split = tmp_path / "split"
    split.mkdir()
    shutil.copy(folder / "config.json", split)
    state = load_file(folder / "model.safetensors")
    names = sorted(state)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, chosen in halves.items():
        save_file({name: state[name] for name in chosen}, split / file)
    whole = BACKBONES.build({"type": f"internvit:{folder}"})
    images = tensors["input.pixel_values"]
    assert torch.equal(BACKBONES.build({"type": f"internvit:{split}"})(images), whole(images))
    # With an index, what it does not name is not read.
    index = {"weight_map": {name: file for file, chosen in halves.items() for name in chosen}}
    (split / "model.safetensors.index.json").write_text(json.dumps(index))
    (split / "other.safetensors").write_bytes(b"not read")
    assert torch.equal(BACKBONES.build({"type": f"internvit:{split}"})(images), whole(images))
    (split / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match="index.json names model-2.safetensors, which does not exist"):
        BACKBONES.build({"type": f"internvit:{split}"})


@torch.no_grad()
def test_bfloat16_stays_bfloat16(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in state.items()}, folder / "model.safetensors")
    backbone = BACKBONES.build({"type": f"internvit:{folder}"})
    images = torch.zeros(1, 3, 56, 56)
    assert backbone(images).dtype == torch.bfloat16
    assert backbone.float()(images).dtype == torch.float32


def test_preprocessing_of_a_folder(folder: Path) -> None:
    def preprocessing(**data) -> Preprocessing:
        (folder / "preprocessor_config.json").write_text(json.dumps(data))
        return BACKBONES.build({"type": f"internvit:{folder}"}).preprocessing

    plain = Preprocessing(size=56, resize=56)
    assert BACKBONES.build({"type": f"internvit:{folder}"}).preprocessing == plain
    # As OpenGVLab writes it.
    words = {"do_resize": True, "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3}
    numbers = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    assert preprocessing(**words, **numbers, size=56, crop_size=56) == plain
    assert preprocessing(
        size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}, resample=2
    ) == Preprocessing(size=56, resize=64, interpolation="bilinear")
    with pytest.raises(UserError, match="crops 60, but the network's image_size is 56"):
        preprocessing(size=60, crop_size=60)
    with pytest.raises(UserError, match="resizes to 40 and crops 56"):
        preprocessing(size=40)
    with pytest.raises(UserError, match="preprocessor_config.json is not a configuration"):
        preprocessing(resample=9)


def _edit(folder: Path, change) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda s: s.pop("encoder.layers.1.attn.qkv.weight"),
            "model.safetensors lacks tensor 'encoder.layers.1.attn.qkv.weight'",
        ),
        (lambda s: s.update({"head.weight": torch.zeros(2)}), "model.safetensors has an unknown tensor 'head.weight'"),
        (
            lambda s: s.update({"encoder.layers.0.ls1": torch.zeros(5)}),
            r"model.safetensors: tensor 'encoder.layers.0.ls1' has shape \(5,\), the model's is \(96,\)",
        ),
        (
            lambda s: s.update({"encoder.layers.0.attn.qkv.weight": torch.zeros(287, 96)}),
            r"tensor 'encoder.layers.0.attn.qkv.weight' has shape \(287, 96\), the model's is \(288, 96\)",
        ),
    ],
)
def test_wrong_tensors(folder: Path, change, words: str) -> None:
    _edit(folder, change)
    with pytest.raises(UserError, match=words):
        BACKBONES.build({"type": f"internvit:{folder}"})


def test_damaged_folders(folder: Path, tmp_path: Path) -> None:
    file, config = folder / "model.safetensors", folder / "config.json"
    whole = file.read_bytes()
    for damage in (whole[: len(whole) // 2], whole[:5], b"", b"<html>not found</html>"):
        file.write_bytes(damage)
        with pytest.raises(UserError, match="model.safetensors is damaged"):
            BACKBONES.build({"type": f"internvit:{folder}"})
    file.write_bytes(whole)
    shutil.copy(file, folder / "twice.safetensors")
    with pytest.raises(UserError, match="twice.safetensors: tensor '.*' is in another file too"):
        BACKBONES.build({"type": f"internvit:{folder}"})
    (folder / "twice.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(UserError, match="index.json is no index"):
        BACKBONES.build({"type": f"internvit:{folder}"})
    (folder / "model.safetensors.index.json").unlink()
    file.unlink()
    with pytest.raises(UserError, match=r"has no \*.safetensors file"):
        BACKBONES.build({"type": f"internvit:{folder}"})
    config.write_text('{"hidden_size": 96}')
    with pytest.raises(UserError, match="config.json lacks 'num_hidden_layers'"):
        BACKBONES.build({"type": f"internvit:{folder}"})
    config.write_text("{")
    with pytest.raises(UserError, match="config.json is not JSON"):
        BACKBONES.build({"type": f"internvit:{folder}"})
    config.unlink()
    with pytest.raises(UserError, match="has no config.json"):
        BACKBONES.build({"type": f"internvit:{folder}"})
    with pytest.raises(UserError, match="nope does not exist"):
        BACKBONES.build({"type": f"internvit:{tmp_path / 'nope'}"})


@pytest.mark.parametrize("name", ["internvit_6b", "internvit_300m"])
def test_big_ones_need_their_own_folder(folder: Path, name: str) -> None:
    with pytest.raises(UserError, match="needs its weights: weights=DIR"):
        BACKBONES.build({"type": name})
    with pytest.raises(UserError, match="is not that of InternViT-.*: hidden_size is 96"):
        BACKBONES.build({"type": name, "weights": str(folder)})
