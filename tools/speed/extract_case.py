"""Extraction both ways: JPEG to features on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from backbones.base import IMAGENET_MEAN, IMAGENET_STD
from benchmarks.data.frames import frame_table
from benchmarks.data.windows import key_frames, windows
from benchmarks.features.extract import ExtractOptions, extract, fingerprint_of
from benchmarks.features.store import FeatureStore
from tools.speed.vit import RandomInternViT, plain_model

CLIP = 130  # frames of a clip, ten strides


def make_jpegs(root: Path, count: int) -> list[str]:
    """Write JPEGs of smooth noise, 224 x 224 pixels like face crops, in clips of 130."""
    random = np.random.default_rng(0)
    images = []
    for number in range(count):
        image = f"clip{number // CLIP:04d}/t0/face_{number % CLIP:05d}.jpg"
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 255, (28, 28, 3), dtype=np.uint8))
        coarse.resize((224, 224), Image.Resampling.BICUBIC).save(root / image, quality=90)
        images.append(image)
    return images


@torch.inference_mode()
def plain_extract(model: torch.nn.Module, root: Path, images: Sequence[str], out: Path, side: int) -> None:
    """Decode, resize with Pillow, normalise with numpy, encode and write one file per frame, one image at a time."""
    weight = next(model.parameters())
    for image in images:
        with Image.open(root / image) as opened:
            pixels = np.asarray(opened.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), np.float32)
        normalised = (pixels / 255 - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)
        batch = torch.from_numpy(normalised.transpose(2, 0, 1).copy())[None].to(weight.device, weight.dtype)
        feature = model(pixel_values=batch).last_hidden_state[:, 0].cpu()
        target = (out / image).with_suffix(".pth")
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save(feature[0].clone(), target)


def read_plain(out: Path, images: Sequence[str]) -> Tensor:
    """Read the features that `plain_extract` wrote."""
    return torch.stack([torch.load((out / image).with_suffix(".pth")) for image in images])


def far_apart(one: Tensor, other: Tensor, least: float) -> str | None:
    """Describe the difference if the median cosine of two sets of features is below `least`."""
    cosine = torch.cosine_similarity(one.double(), other.double()).median().item()
    return None if cosine >= least else f"the median cosine is {cosine:.6f}, not {least}"


class Case:
    """A backbone, JPEGs, and empty folders for output."""

    def __init__(self, folder: Path, config: Mapping[str, Any], count: int, device: str, dtype: torch.dtype) -> None:
        self.folder = folder
        self.root = folder / "images"
        self.images = make_jpegs(self.root, count)
        self.device = torch.device(device)
        self.backbone = RandomInternViT(config, self.device, dtype)
        self.model = plain_model(self.backbone.network, config)
        self._runs = 0

    def plain(self) -> Tensor:
        """Extract all images the plain way."""
        out = self.fresh()
        plain_extract(self.model, self.root, self.images, out, self.backbone.preprocessing.size)
        return read_plain(out, self.images)

    def ours(self, images: Sequence[str] | None = None, dtype: str | None = None, size: int | None = None) -> Tensor:
        """Extract some images, or all, our way."""
        images = self.images if images is None else images
        store = FeatureStore(self.fresh(), fingerprint_of(self.backbone, dtype))
        options = ExtractOptions(batch_size=size, device=str(self.device), dtype=dtype)
        extract(self.backbone, self.root, {"original": images}, store, options)
        return store.read("original", images)

    def fresh(self) -> Path:
        """Return an unused folder."""
        self._runs += 1
        return self.folder / f"run{self._runs}"


def touched_at_stride_13(images: Sequence[str]) -> list[str]:
    """Return the images in windows of radius 3 around every 13th frame, if the images are one long track."""
    table = frame_table(
        dict(
            clip="c", track="t0", frame=np.arange(len(images)) + 1, person="1", x1=0.0, y1=0.0, x2=9.0, y2=9.0, label=0,
            image=images, unique_id="",
        )
    )  # fmt: skip
    rows = np.unique(windows(table, 3, key_frames(table, 13)))
    return sorted(table["image"].to_numpy()[rows[rows >= 0]])
