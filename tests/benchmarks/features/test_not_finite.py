"""Features, scores and losses that are NaN or infinite are refused where they arise."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from backbones.base import Backbone
from benchmarks.features.extract import ExtractOptions, extract, fingerprint_of
from benchmarks.features.store import FeatureStore
from benchmarks.scoring.predict import NotFiniteError, probabilities
from benchmarks.training.checkpoint import CHECKPOINT
from benchmarks.training.train import train
from registry import BACKBONES, HEADS, UserError
from tests.benchmarks.features.extracting import make_crops
from tests.benchmarks.training.test_train import SETTINGS, config, job, toy
from zoo.weights import read_head, write_head


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    built: Backbone = BACKBONES.build({"type": "timm:test_resnet", "pretrained": False})
    return built


class Overflowing(torch.nn.Module):
    """Adds 120,000 to the features of white images, which is above what float16 holds."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.network(images)
        bright = (images.float().mean((1, 2, 3)) > 0.9).to(features.dtype)
        return features + 60_000 * bright[:, None] * 2


@pytest.mark.parametrize("view", ["original", "flipped"])
def test_float16_that_overflows_names_image_dtype_and_way_out(tmp_path: Path, backbone: Backbone, view: str) -> None:
    from PIL import Image

    images = make_crops(tmp_path, {"a": 20, "b": 20})
    Image.new("RGB", (24, 24), "white").save(tmp_path / images[27])
    network = backbone.network
    backbone.network = Overflowing(network)
    try:
        store = FeatureStore(tmp_path / "half", fingerprint_of(backbone, "float16"))
        with pytest.raises(UserError) as caught:
            extract(backbone, tmp_path, {view: images}, store, ExtractOptions(dtype="float16"))
        said = str(caught.value)
        assert (
            f"image {images[27]} ({view}): its features in float16 are NaN or infinite; float16 ends at 65,504" in said
        )
        assert "--dtype bfloat16 or float32" in said and "\n" not in said
        for dtype in ("bfloat16", "float32"):
            store = FeatureStore(tmp_path / dtype, fingerprint_of(backbone, dtype))
            assert extract(backbone, tmp_path, {view: images}, store, ExtractOptions(dtype=dtype)).encoded == 40
            assert store.read(view, images).isfinite().all()
    finally:
        backbone.network = network


def test_weights_of_internvit_that_are_nan_are_noticed_by_their_features(tmp_path: Path) -> None:
    """Its weights stay in the file until they are used, so reading them to look would take minutes."""
    from backbones.internvit import NANO_FOLDER

    shutil.copytree(NANO_FOLDER, tmp_path / "vit")
    state = load_file(tmp_path / "vit/model.safetensors")
    next(iter(state.values())).fill_(float("nan"))
    save_file(state, tmp_path / "vit/model.safetensors")
    images = make_crops(tmp_path / "crops", {"a": 3})
    built: Backbone = BACKBONES.build({"type": "internvit", "model": str(tmp_path / "vit")})
    store = FeatureStore(tmp_path / "store", fingerprint_of(built))
    with pytest.raises(
        UserError, match=f"image {images[0]} .original.: its features in float32 are NaN or infinite; the"
    ):
        extract(built, tmp_path / "crops", {"original": images}, store)


def test_scores_that_are_nan_are_counted() -> None:
    logits = torch.tensor([[0.0, 1.0], [float("nan"), 0.0], [float("inf"), float("inf")]])
    with pytest.raises(NotFiniteError, match="2 of 3 scores are NaN"):
        probabilities(logits)
    np.testing.assert_allclose(probabilities(logits[:1]), 1 / (1 + np.exp(-1)))


def test_a_training_that_diverges_says_so(tmp_path: Path) -> None:
    wild = replace(SETTINGS, lr=1e30, epochs=20)
    with pytest.raises(UserError, match=r"^toy seed 1: the training diverged in epoch \d+: .*rate below 1e\+30 "):
        train(job(tmp_path, settings=wild), 1)
    assert not (tmp_path / "seed1/training.json").exists()
    assert not list(tmp_path.rglob("*.safetensors")) or (tmp_path / "seed1" / CHECKPOINT).exists()


def test_features_that_are_nan_are_no_training(tmp_path: Path) -> None:
    data = toy(0)
    data.features[7, 2] = float("nan")
    with pytest.raises(UserError, match="toy seed 1: the training diverged in epoch 1: its loss is nan"):
        train(job(tmp_path, data=data), 1)


def test_heads_that_are_nan_are_refused_when_read(tmp_path: Path) -> None:
    head = HEADS.build(config("probe"))
    for parameter in head.parameters():
        torch.nn.init.constant_(parameter, float("nan"))
    write_head(tmp_path / "head.safetensors", head, config("probe"))
    with pytest.raises(UserError, match=r"weights .*head\.safetensors: tensor '.*' has .* that are NaN or infinite"):
        read_head(tmp_path / "head.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_arguments_are_finite(value: float) -> None:
    with pytest.raises(UserError, match=f"head lstm: argument .dropout. must be [<>].*, got {value}"):
        HEADS.build({**config(), "dropout": value})
