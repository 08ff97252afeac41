"""`hf:` on tiny random snapshots of each family: transformers' own features and pixels, and nothing in them runs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from backbones.base import Backbone
from backbones.checksums import file_sha256
from backbones.hf import image_processor
from registry import BACKBONES, UserError
from tests.contracts import check_backbone

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SIZES, "intermediate_size": 32, "image_size": 28, "patch_size": 14}
TEXT = {**SIZES, "intermediate_size": 32, "vocab_size": 32}
HALF = [0.5, 0.5, 0.5]
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SQUARE = {"size": {"height": 28, "width": 28}, "image_mean": HALF, "image_std": HALF}


def _siglip() -> torch.nn.Module:
    text = {**TEXT, "projection_size": 16, "bos_token_id": 1, "eos_token_id": 2}
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=VISION))


def _clip() -> torch.nn.Module:
    text = {**TEXT, "projection_dim": 16, "bos_token_id": 1, "eos_token_id": 2}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=VISION))


def _internvl() -> torch.nn.Module:
    vision = {**VISION, "image_size": [28, 28], "patch_size": [14, 14]}
    text = {**TEXT, "model_type": "qwen2", "num_key_value_heads": 2}
    config = transformers.InternVLConfig(vision_config=vision, text_config=text, image_token_id=3)
    return transformers.InternVLForConditionalGeneration(config)


# Family -> a small model, and its image processor as the published repositories have it, but for the sizes.
FAMILIES: dict[str, tuple[Callable[[], torch.nn.Module], dict]] = {
    "dinov2": (
        lambda: transformers.Dinov2Model(transformers.Dinov2Config(**SIZES, mlp_ratio=2, image_size=42, patch_size=14)),
        {
            "image_processor_type": "BitImageProcessor",
            "do_center_crop": True,
            "crop_size": {"height": 28, "width": 28},
            "size": {"shortest_edge": 32},
            "resample": 3,
            **IMAGENET,
        },
    ),
    "siglip": (_siglip, {"image_processor_type": "SiglipImageProcessor", "resample": 3, **SQUARE}),
    "clip": (_clip, {"feature_extractor_type": "CLIPFeatureExtractor", "size": 28, "crop_size": 28, "resample": 3}),
    "vit": (
        lambda: transformers.ViTModel(transformers.ViTConfig(**VISION)),
        {"image_processor_type": "ViTImageProcessor", "resample": 2, **SQUARE},
    ),
    "internvl": (
        _internvl,
        {"image_processor_type": "GotOcr2ImageProcessorFast", "crop_to_patches": False, **SQUARE, **IMAGENET},
    ),
}
SHAPES = [(28, 28), (56, 40), (33, 97), (224, 224), (75, 50), (20, 24)]  # height, width


def snapshot(folder: Path, family: str) -> torch.nn.Module:
    """Write a small random model in transformers' format, with its image processor's configuration; return it."""
    make, processor = FAMILIES[family]
    torch.manual_seed(0)
    model = make().eval()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, torch.nn.Module]]:
    folder = tmp_path_factory.mktemp("snapshots")
    return {family: (folder / family, snapshot(folder / family, family)) for family in FAMILIES}


@pytest.fixture
def dinov2(tmp_path: Path) -> Path:
    snapshot(tmp_path / "tiny-dino", "dinov2")
    return tmp_path / "tiny-dino"


def edited(folder: Path, file: str, **changes: object) -> None:
    data = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(data | changes))


def picture(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8))


def build(folder: Path, **arguments: object) -> Backbone:
    return BACKBONES.build({"type": f"hf:{folder}", **arguments})


@pytest.mark.parametrize("family", FAMILIES)
def test_contract(snapshots: dict, family: str) -> None:
    check_backbone({"type": f"hf:{snapshots[family][0]}"})


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_are_those_of_the_image_processor(snapshots: dict, family: str) -> None:
    """Of transformers' processor that resizes with PIL; the one with torchvision rounds by itself."""
    folder = snapshots[family][0]
    preprocessing = build(folder).preprocessing
    processor = image_processor(folder)
    assert type(processor).__name__.endswith("Pil" if transformers.__version__[0] == "5" else "Processor")
    for shape in SHAPES:
        image = picture(*shape)
        wanted = processor(image, return_tensors="pt")["pixel_values"].float()
        assert wanted.shape == (1, 3, 28, 28)
        found = preprocessing.normalise(torch.from_numpy(preprocessing.resize_crop(image))[None])
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_are_close_to_those_of_torchvision(snapshots: dict, family: str) -> None:
    """What AutoImageProcessor gives by default from version 5 on; a shift by a pixel would be 100 levels in noise."""
    folder = snapshots[family][0]
    preprocessing = build(folder).preprocessing
    fast = {"backend": "torchvision"} if transformers.__version__[0] == "5" else {"use_fast": True}
    processor = transformers.AutoImageProcessor.from_pretrained(folder, **fast)
    deviation = torch.tensor(preprocessing.std).view(3, 1, 1) * 255
    for shape in SHAPES:
        image = picture(*shape)
        wanted = torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"])
        found = preprocessing.normalise(torch.from_numpy(preprocessing.resize_crop(image))[None])
        differences = ((found - wanted) * deviation).abs()
        assert differences.max() < 7
        assert differences.mean() < 0.5


def whole(family: str, model: torch.nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor | None]:
    """The features from the model as it was before it was saved."""
    tower = {"siglip": "vision_model", "clip": "vision_model"}.get(family)
    if family == "internvl":
        network = model.model.vision_tower
    else:
        network = getattr(model, tower) if tower else model
    with torch.no_grad():
        output = network(pixel_values=images)
    pooled = {"internvl": None}.get(family, output.pooler_output)
    return {"pooled": pooled, "cls": None if family == "siglip" else output.last_hidden_state[:, 0]}


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_the_model_that_was_saved(snapshots: dict, family: str) -> None:
    folder, model = snapshots[family]
    images = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    wanted = whole(family, model, images)
    for pooling, features in wanted.items():
        if features is None:
            continue
        backbone = build(folder, pooling=pooling)
        torch.testing.assert_close(backbone(images), features, rtol=1e-4, atol=1e-5)
        assert backbone.feature_dim == 16
        assert backbone.fingerprint()["feature"] == backbone.feature
    chosen = build(folder)
    assert chosen.pooling == ("cls" if wanted["pooled"] is None else "pooled")
    assert chosen.fingerprint()["weights"] == file_sha256(folder / "model.safetensors")


def test_a_feature_that_is_not_there_is_refused_by_name(snapshots: dict) -> None:
    with pytest.raises(UserError, match="has no feature 'cls': the network has none; use pooling=pooled"):
        build(snapshots["siglip"][0], pooling="cls")
    with pytest.raises(UserError, match="has no feature 'pooled': the network has none; use pooling=cls"):
        build(snapshots["internvl"][0], pooling="pooled")
    with pytest.raises(UserError, match="argument 'pooling' must be"):
        build(snapshots["vit"][0], pooling="mean")


def test_a_classifiers_untrained_pooler_is_no_feature(tmp_path: Path) -> None:
    """The published ViT classifiers have none: transformers would make up random weights for it."""
    snapshot(tmp_path, "vit")
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**VISION)).eval()
    model.save_pretrained(tmp_path)
    backbone = build(tmp_path)
    assert backbone.pooling == "cls"
    assert not [name for name in backbone.state_dict() if "pooler" in name]
    images = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), model.vit(images).last_hidden_state[:, 0])
    with pytest.raises(UserError, match=r"its snapshot lacks 'pooler.dense.bias'; use pooling=cls"):
        build(tmp_path, pooling="pooled")


def test_different_snapshots_have_different_fingerprints(dinov2: Path) -> None:
    first = build(dinov2).fingerprint()
    assert build(dinov2, pooling="cls").fingerprint() != first
    edited(dinov2, "config.json", transformers_version="4.0.0")
    assert build(dinov2).fingerprint() == first
    edited(dinov2, "config.json", layer_norm_eps=1e-3)
    changed = build(dinov2).fingerprint()
    assert changed["architecture"] != first["architecture"]
    state = load_file(dinov2 / "model.safetensors")
    state["layernorm.bias"][0] += 1
    save_file(state, dinov2 / "model.safetensors", {"format": "pt"})
    assert build(dinov2).fingerprint()["weights"] != changed["weights"]


def test_a_trainable_tower_gets_gradients(dinov2: Path) -> None:
    backbone = build(dinov2, frozen=False)
    backbone(torch.randn(2, 3, 28, 28)).square().sum().backward()
    without = [name for name, each in backbone.named_parameters() if each.grad is None]
    assert without == ["network.embeddings.mask_token"]


def test_code_in_a_snapshot_never_runs(dinov2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not transformers contains the model; it asks no question either."""
    canary = dinov2 / "canary"
    monkeypatch.setenv("HF_MODULES_CACHE", str(dinov2 / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question"))
    for module in ("configuration_own", "modeling_own", "processing_own"):
        (dinov2 / f"{module}.py").write_text(f"open({str(canary)!r}, 'w')")
    auto = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    edited(dinov2, "config.json", auto_map=auto)
    edited(dinov2, "preprocessor_config.json", auto_map={"AutoImageProcessor": "processing_own.OwnProcessor"})
    assert build(dinov2).feature_dim == 16
    edited(dinov2, "config.json", model_type="own")
    with pytest.raises(UserError, match="names a model 'own', which transformers .* does not contain; code that comes"):
        build(dinov2)
    edited(dinov2, "config.json", model_type="dinov2")
    edited(dinov2, "preprocessor_config.json", image_processor_type="OwnProcessor")
    with pytest.raises(UserError, match=r"preprocessor_config.json gives no image processor"):
        build(dinov2)
    assert not canary.exists()


def test_pickles_are_not_read(dinov2: Path) -> None:
    state = load_file(dinov2 / "model.safetensors")
    torch.save(state, dinov2 / "pytorch_model.bin")
    (dinov2 / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no \*\.safetensors file"):
        build(dinov2)


@pytest.mark.slow
def test_damaged_snapshots(dinov2: Path, tmp_path: Path) -> None:
    def refused(words: str) -> None:
        with pytest.raises(UserError, match=words) as caught:
            build(dinov2)
        assert "\n" not in str(caught.value)

    with pytest.raises(UserError, match="nowhere does not exist; it must hold a snapshot"):
        build(tmp_path / "nowhere")
    config = (dinov2 / "config.json").read_text()
    edited(dinov2, "config.json", num_hidden_layers=3)
    refused("lacks tensor 'encoder.layer.2.* more; it is not a checkpoint of Dinov2Model")
    edited(dinov2, "config.json", num_hidden_layers=2, hidden_size=32)
    refused("the shape of tensor|cannot be read")
    edited(dinov2, "config.json", hidden_size=1 << 14)
    refused("describes a network of [0-9,]+ numbers, and its files have [0-9,]+")
    edited(dinov2, "config.json", hidden_size=16, num_hidden_layers=1 << 20)
    refused("far larger than the tensors in it")
    edited(dinov2, "config.json", num_hidden_layers=2, hidden_size="wide")
    refused("config.json")
    edited(dinov2, "config.json", model_type="bert", hidden_size=16)
    refused("is not a checkpoint of BertModel|no vision transformer|no network can be built|cannot be read")
    (dinov2 / "config.json").write_text("[")
    refused("config.json is not the configuration of a model")
    (dinov2 / "config.json").write_text(config)
    edited(dinov2, "preprocessor_config.json", crop_size={"height": 30, "width": 30})
    assert build(dinov2).preprocessing.size == 30  # patches of 14 pixels: the rest is cut off
    edited(dinov2, "preprocessor_config.json", do_pad=True)
    refused("preprocessor_config.json: .* cannot be repeated: do_pad is not supported")
    edited(dinov2, "preprocessor_config.json", do_pad=False, do_resize=False)
    refused("preprocessor_config.json: .* cannot be repeated: do_resize is false")
    (dinov2 / "preprocessor_config.json").unlink()
    refused("preprocessor_config.json gives no image processor: it does not exist")
    state = load_file(dinov2 / "model.safetensors")
    state["layernorm.bias"][0] = float("nan")
    save_file(state, dinov2 / "model.safetensors", {"format": "pt"})
    (dinov2 / "preprocessor_config.json").write_text(json.dumps(FAMILIES["dinov2"][1]))
    refused("tensor 'layernorm.bias' has 1 of 16 values that are NaN or infinite")
    (dinov2 / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    refused("is a Git LFS pointer")


def test_a_processor_that_does_more_is_refused(snapshots: dict, tmp_path: Path) -> None:
    """ConvNeXt's enlarges before it crops, by a share that only its own program knows."""
    snapshot(tmp_path, "vit")
    processor = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 28}, "crop_pct": 0.8}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    with pytest.raises(UserError, match="ConvNextImageProcessor.* cannot be repeated"):
        build(tmp_path)


def test_nothing_is_fetched_for_a_folder(dinov2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert build(dinov2).weights_info.origin == str(dinov2)


def test_a_repository_that_is_not_there_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"run hf download facebook/dinov2-nano --local-dir DIR with network access"):
        BACKBONES.build({"type": "hf:facebook/dinov2-nano"})
