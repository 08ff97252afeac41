"""Backbone `transformers_vision`: DINOv2 or SigLIP's vision tower from a folder in transformers' format."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, Preprocessing, WeightsInfo
from backbones.checksums import file_sha256
from backbones.hub import download_snapshot, is_hub_id
from registry import BACKBONES, UserError

# model_type in config.json -> class of the vision tower.
TOWERS = {
    "dinov2": "Dinov2Model",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}
FILTERS = {2: "bilinear", 3: "bicubic"}


@BACKBONES.register_module(name="transformers_vision")
class TransformersVision(Backbone):
    """``transformers_vision:DIR``: the pooled feature of DINOv2 (CLS token) or SigLIP (attention pooling).

    Only JSON and safetensors files are read, and no code in the folder is run. Images that are not square are cropped,
    also for SigLIP, whose own processor stretches them; face crops are nearly square.

    Args:
        model: folder with config.json, preprocessor_config.json and safetensors files, or ``OWNER/NAME`` on the hub.
        frozen: exclude the tower from training.

    Raises:
        UserError: the folder is incomplete or that of another model.
    """

    def __init__(self, model: str, frozen: bool = True) -> None:
        import transformers  # takes seconds

        if is_hub_id(model):
            folder, name, commit = download_snapshot(
                model, ("config.json", "preprocessor_config.json", "model.safetensors.index.json", "*.safetensors")
            )
            origin = f"hub:{name}@{commit}"
        else:
            folder, name, origin = Path(model), Path(model).resolve().name, model
        config, processor = (_read(folder / file) for file in ("config.json", "preprocessor_config.json"))
        if config.get("model_type") not in TOWERS:
            raise UserError(f"{folder} holds a {config.get('model_type')} (known: {', '.join(TOWERS)})")
        tower = TOWERS[config["model_type"]]
        with torch.random.fork_rng(devices=[]):  # from_pretrained draws random weights first
            try:
                network, report = getattr(transformers, tower).from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
                )
            except (OSError, ValueError, RuntimeError) as error:
                raise UserError(f"{folder} cannot be read: {str(error).partition(chr(10))[0]}") from error
        if report["missing_keys"]:
            raise UserError(f"{folder} lacks tensor '{min(report['missing_keys'])}'; it is not a checkpoint of {tower}")
        vision = config.get("vision_config", config)
        super().__init__(
            network,
            architecture={
                "name": f"transformers:{tower}",
                "transformers": transformers.__version__,
                "config": hashlib.sha256(json.dumps(vision, sort_keys=True).encode()).hexdigest(),
            },
            feature="pooled output",
            feature_dim=network.config.hidden_size,
            preprocessing=_preprocessing(processor, folder),
            weights_info=WeightsInfo(name, origin, file_sha256(*sorted(folder.glob("*.safetensors"))), "unknown"),
            frozen=frozen,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the features ``(B, D)`` of normalised ``images (B, 3, H, W)``."""
        return self.network(pixel_values=images).pooler_output


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); give a folder written by transformers' save_pretrained"
        ) from error


def _preprocessing(processor: dict[str, Any], folder: Path) -> Preprocessing:
    """Convert an image processor's configuration: resize the shorter edge, crop the centre."""
    size = processor["size"]
    edge = min(size.values()) if isinstance(size, dict) else int(size)
    crop = processor.get("crop_size") if processor.get("do_center_crop") else None
    side = edge if crop is None else min(crop.values()) if isinstance(crop, dict) else int(crop)
    if processor.get("resample", 3) not in FILTERS or side > edge:
        raise UserError(
            f"{folder / 'preprocessor_config.json'}: only bilinear and bicubic resizing and crops within the image are "
            "supported"
        )
    return Preprocessing(
        size=side,
        resize=edge,
        interpolation=FILTERS[processor.get("resample", 3)],
        mean=tuple(processor.get("image_mean", IMAGENET_MEAN)),
        std=tuple(processor.get("image_std", IMAGENET_STD)),
    )
