"""transformers_vision fulfils lamzoo's contract of backbones and gives transformers' features."""

import json
from pathlib import Path

import lamzoo_transformers_vision
import numpy as np
import pytest
import torch
from PIL import Image

from registry import BACKBONES, UserError
from tests.contracts import check_backbone

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def snapshot(folder: Path, kind: str) -> torch.nn.Module:
    """Write a tiny random model in the official format, with its image processor's configuration."""
    import transformers

    torch.manual_seed(0)
    if kind == "dinov2":
        config = transformers.Dinov2Config(**SMALL, mlp_ratio=2, image_size=42, patch_size=14)
        model = transformers.Dinov2Model(config)
        processor = {
            "do_center_crop": True,
            "crop_size": {"height": 28, "width": 28},
            "size": {"shortest_edge": 32},
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
            "resample": 3,
        }
    else:
        text = {**SMALL, "intermediate_size": 32, "vocab_size": 32, "projection_size": 16}
        vision = {**SMALL, "intermediate_size": 32, "image_size": 28, "patch_size": 14}
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
        half = [0.5, 0.5, 0.5]
        processor = {"size": {"height": 28, "width": 28}, "image_mean": half, "image_std": half, "resample": 3}
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model.eval()


@pytest.mark.parametrize("kind", ["dinov2", "siglip"])
def test_contract_and_features(tmp_path: Path, kind: str) -> None:
    """Pixels preprocessed by hand, through the model as it was before saving."""
    model = snapshot(tmp_path / kind, kind)
    check_backbone(dict(type=f"transformers_vision:{tmp_path / kind}"))
    backbone = BACKBONES.build(dict(type=f"transformers_vision:{tmp_path / kind}"))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    if kind == "dinov2":  # 40 -> 32, then 2 cut off on each side
        pixels = np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC))[2:30, 2:30] / 255
        images = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    else:
        images = np.asarray(picture.resize((28, 28), Image.Resampling.BICUBIC)) / 255 * 2 - 1
    images = torch.from_numpy(images).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        if kind == "dinov2":
            wanted = model(images).last_hidden_state[:, 0]
        else:
            wanted = model.vision_model(images).pooler_output
        found = backbone(
            backbone.preprocessing.normalise(torch.from_numpy(backbone.preprocessing.resize_crop(picture))[None])
        )
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_wrong_folders(tmp_path: Path) -> None:
    """An empty folder, one without a tensor, one of another model."""
    with pytest.raises(UserError, match="config.json cannot be read"):
        lamzoo_transformers_vision.TransformersVision(str(tmp_path))
    snapshot(tmp_path / "a", "dinov2")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match="lacks tensor .* it is not a checkpoint of Dinov2Model"):
        lamzoo_transformers_vision.TransformersVision(str(tmp_path / "a"))
    (tmp_path / "a" / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(UserError, match="holds a bert .known: dinov2, siglip"):
        lamzoo_transformers_vision.TransformersVision(str(tmp_path / "a"))
