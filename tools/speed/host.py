"""Decoding and resizing of crops, for large backbones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from backbones.base import Preprocessing
from benchmarks.data import pictures
from tools.speed.extract_case import make_jpegs
from tools.speed.harness import Work, seconds


@contextmanager
def host(quick: bool) -> Iterator[list[Work]]:
    """Decode and resize crops for InternViT-6B on one core, 224 to 448 pixels per side."""
    from transformers import CLIPImageProcessor

    preprocessing = Preprocessing(size=448, resize=448)
    processor = CLIPImageProcessor(
        size={"shortest_edge": 448}, crop_size={"height": 448, "width": 448}, do_rescale=False, do_normalize=False
    )
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        images = make_jpegs(root, 20 if quick else 400)

        def plain() -> np.ndarray:
            return np.stack([_processed(processor, root / image) for image in images])

        def ours() -> np.ndarray:
            return np.stack([pictures.read_crop(root, image, preprocessing=preprocessing) for image in images])

        def differ(plain: np.ndarray, ours: np.ndarray) -> str | None:
            most = int(np.abs(plain.astype(int) - ours).max())
            return f"pixels differ by {most}" if most > 1 else None

        torch.set_num_threads(1)
        try:
            yield [
                Work(
                    name="host",
                    what=f"{len(images)} JPEGs of 224 x 224 pixels, decoded and resized to 448 on one core",
                    against="transformers' CLIP image processor, one image at a time",
                    plain=plain,
                    ours=ours,
                    differ=differ,
                    must=0.3,
                    facts=lambda: {"crops_a_second": round(len(images) / seconds(ours))},
                )
            ]
        finally:
            torch.set_num_threads(threads)


def _processed(processor: Any, path: Path) -> np.ndarray:
    """Return uint8 (448, 448, 3) pixels from transformers' processor."""
    pixels = np.asarray(processor(Image.open(path).convert("RGB"), return_tensors="np")["pixel_values"][0])
    return pixels.transpose(1, 2, 0).round().astype(np.uint8)
