"""The ResNet-18 trunk: feature map, random weights, and files of other models."""

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch.nn import functional

from backbones import timm_models
from registry import BACKBONES, UserError
from tests.contracts import uniform


def test_preprocessing_is_imagenets_at_224() -> None:
    preprocessing = BACKBONES.build({"type": "gaze_resnet18"}).preprocessing
    assert (preprocessing.size, preprocessing.resize) == (224, 224)
    assert preprocessing.mean == (0.485, 0.456, 0.406)
    assert preprocessing.std == (0.229, 0.224, 0.225)


@torch.no_grad()
def test_vector_is_computed_from_the_map() -> None:
    backbone = BACKBONES.build({"type": "gaze_resnet18"})
    images = torch.from_numpy(uniform("images", (2, 3, 224, 224))).float()
    vectors, maps = backbone.forward_map(images)
    assert (vectors.shape, maps.shape) == ((2, 256), (2, 512, 7, 7))
    torch.testing.assert_close(backbone(images), vectors)
    network = backbone.network
    pooled = functional.adaptive_avg_pool2d(maps, 1).flatten(1)
    hidden = (pooled @ network.fc1.weight.T + network.fc1.bias).clamp(min=0)
    torch.testing.assert_close(hidden @ network.fc2.weight.T + network.fc2.bias, vectors, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network(images), pooled)  # what timm calls the features of a ResNet-18


def test_random_weights_are_reported_and_seeded() -> None:
    one, same, other = (BACKBONES.build({"type": "gaze_resnet18", "seed": seed}) for seed in (1, 1, 2))
    assert one.weights_info.random_init
    assert one.weights_info.name == "random init (seed 1)"
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert not torch.equal(one.network.fc2.weight, other.network.fc2.weight)


def test_random_weights_are_torchvisions() -> None:
    """The published programs start from torchvision's ResNet-18, where no residual block starts as the identity."""
    ours = BACKBONES.build({"type": "gaze_resnet18", "seed": 1}).network.state_dict()
    torch.manual_seed(2)
    theirs = torchvision.models.resnet18().state_dict()
    for name, wanted in theirs.items():
        if name.startswith("fc."):
            continue
        found = ours[name]
        assert found.shape == wanted.shape
        if wanted.dim() < 2:  # batch normalisation
            assert torch.equal(found, wanted), name
        else:
            torch.testing.assert_close(found.std(), wanted.std(), rtol=0.05, atol=0)


def test_imagenet_through_timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    timm = pytest.importorskip("timm")
    torch.manual_seed(3)
    whole = timm.create_model("resnet18")  # with its classifier, as the hub's file has it
    save_file(whole.state_dict(), file)
    monkeypatch.setattr(timm_models, "load_from_hub", lambda model, cfg: (file, f"hub:{cfg['hf_hub_id']}"))
    one, other = (BACKBONES.build({"type": "gaze_resnet18", "pretrained": "imagenet", "seed": seed}) for seed in (1, 2))
    assert torch.equal(one.network.layer4[1].conv2.weight, whole.layer4[1].conv2.weight)
    assert one.weights_info.name == "timm/resnet18.tv_in1k, fc1 and fc2 random (seed 1)"
    assert not one.weights_info.random_init
    assert one.fingerprint() != other.fingerprint()  # the layers behind the trunk differ


def test_unavailable_imagenet_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no_cache"))
    with pytest.raises(UserError, match="is not available from the hub; give weights=FILE, or leave pretrained out"):
        BACKBONES.build({"type": "gaze_resnet18", "pretrained": "imagenet"})


def test_files_of_other_models(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"

    def build() -> None:
        BACKBONES.build({"type": "gaze_resnet18", "weights": str(file)})

    with pytest.raises(
        UserError, match="x.safetensors do not exist; write it with python bench.py import CHECKPOINT --as gaze360"
    ):
        build()
    file.write_bytes(b"plain text")
    with pytest.raises(UserError, match="are damaged or not a safetensors file"):
        build()
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, file)
    with pytest.raises(UserError, match="have no trunk"):
        build()
    save_file({"backbone.network.conv1.weight": torch.zeros(64, 3, 7, 7)}, file)
    with pytest.raises(UserError, match="x.safetensors lacks tensor 'bn1.bias' and 122 more"):
        build()
    with pytest.raises(UserError, match="exclude each other"):
        BACKBONES.build({"type": "gaze_resnet18", "weights": str(file), "pretrained": "imagenet"})


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (3, 3)])
def test_last_convolutions_train_as_convolutions(shape: tuple[int, int]) -> None:
    layer = BACKBONES.build({"type": "gaze_resnet18", "size": 48, "frozen": False}).network.layer4[1].conv1
    maps = torch.from_numpy(uniform("maps", (3, 512, *shape))).float().requires_grad_()
    shown = torch.from_numpy(uniform("shown", (3, 512, *shape))).float()
    wanted = functional.conv2d(maps, layer.weight, padding=1)
    expected = torch.autograd.grad((wanted * shown).sum(), [maps, layer.weight])
    found = layer(maps)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    gradients = torch.autograd.grad((found * shown).sum(), [maps, layer.weight])
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-4, rtol=1e-4)
