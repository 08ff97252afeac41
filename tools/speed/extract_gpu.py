"""Extraction on a GPU with the full-size InternViT-6B."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import pictures
from benchmarks.features import encoding
from benchmarks.features.encoding import flops_of, measured_flops
from tools.speed.extract_case import Case, far_apart, touched_at_stride_13
from tools.speed.harness import FEW, Work, seconds
from tools.speed.vit import FULL

# Half an hour is enough: a plain run takes a minute, ours half of that, and there are eight of each.
IMAGES = 780


@contextmanager
def on_gpu(quick: bool) -> Iterator[list[Work]]:
    """The full-size 6B in bfloat16; `quick` uses three layers and few images."""
    config = {**FULL, "num_hidden_layers": 3} if quick else FULL
    with tempfile.TemporaryDirectory() as name:
        case = Case(Path(name), config, 130 if quick else IMAGES, "cuda", torch.bfloat16)
        size = encoding.find_batch_size(case.backbone, case.device, None)
        exact = reference(case, 8)
        planned = touched_at_stride_13(case.images)

        def differ(plain: Tensor, ours: Tensor) -> str | None:
            return far_apart(exact, plain[: len(exact)], 0.999) or far_apart(exact, ours[: len(exact)], 0.999)

        yield [
            Work(
                name="extract_bf16",
                what=f"{len(case.images)} JPEGs, decoded, encoded by InternViT-6B in bfloat16, and written",
                against="transformers' model on one image at a time, prepared on the CPU, one file per frame",
                plain=case.plain,
                ours=lambda: case.ours(size=size),
                differ=differ,
                must=1.5,
                aim=1.8,
                facts=lambda: gpu_facts(case, size),
                pairs=FEW,
            ),
            Work(
                name="extract_plan",
                what=f"frames in windows of stride 13, of {len(case.images)} JPEGs",
                against="the baseline on all of them",
                plain=case.plain,
                ours=lambda: case.ours(planned, size=size),
                differ=lambda plain, ours: None if len(ours) == len(planned) else "frames are missing",
                aim=3.3,
                facts=lambda: {"frames": len(case.images), "encoded": len(planned)},
                pairs=FEW,
            ),
        ]


@torch.inference_mode()
def reference(case: Case, count: int) -> Tensor:
    """Return float32 features of the first images, one layer at a time to save the memory of a second network."""
    preprocessing = case.backbone.preprocessing
    crops = [pictures.read_crop(case.root, image, preprocessing=preprocessing) for image in case.images[:count]]
    pixels = torch.from_numpy(np.stack(crops)).to(case.device)
    network = case.backbone.network
    x = preprocessing.normalise(pixels)

    def in_float32(module: torch.nn.Module, call: Callable[[], Tensor]) -> Tensor:
        dtype = next(module.parameters()).dtype
        module.float()  # bfloat16 -> float32 -> bfloat16 is exact
        result = call()
        module.to(dtype)
        return result

    x = in_float32(network.embeddings, lambda: network.embeddings(x))
    for layer in network.layers:
        x = in_float32(layer, lambda: layer(x))  # noqa: B023 - called at once
    return x[:, 0].cpu()


def gpu_facts(case: Case, size: int) -> dict[str, Any]:
    """Return the device's limits, measured now, and how close extraction comes to them."""
    device = case.device
    shapes, copy = _matmul_tflops(size, device), _copy_rate(device)
    peak, flops = measured_flops(device), flops_of(case.backbone)
    batches = _time_batches(case, size)
    # The first batch includes compilation. The device is idle between batches.
    span = batches[1][0].elapsed_time(batches[-1][1]) / 1e3
    working = sum(first.elapsed_time(last) for first, last in batches[1:]) / 1e3
    rate = (len(batches) - 1) * size / span
    return {
        "device": torch.cuda.get_device_name(device),
        "batch_size": size,
        "tflop_an_image": round(flops / 1e12, 3),
        "images_a_second_steady": round(rate, 1),
        "tflops_8192": round(peak / 1e12),
        "tflops_of_the_models_shapes": shapes,
        "copy_tb_a_second": round(copy / 1e12, 2),
        "share_of_8192": round(flops * rate / peak, 3),
        "idle": round(1 - working / span, 4),
        "steady_seconds": round(span, 1),
    }


def _matmul_tflops(size: int, device: torch.device) -> dict[str, int]:
    """Measure the matrix products of the model's layers for a batch."""
    tokens = size * ((FULL["image_size"] // FULL["patch_size"]) ** 2 + 1)
    shapes, repeat = {}, 10
    for inputs, outputs in ((3200, 9600), (3200, 3200), (3200, 12800), (12800, 3200)):
        a = torch.randn(tokens, inputs, dtype=torch.bfloat16, device=device)
        b = torch.randn(inputs, outputs, dtype=torch.bfloat16, device=device)
        a @ b
        took = seconds(lambda: _repeat(lambda: a @ b, repeat), device)  # noqa: B023 - called at once
        shapes[f"{inputs}x{outputs}"] = round(2 * tokens * inputs * outputs * repeat / took / 1e12)
    return shapes


def _repeat(work: Callable[[], Any], times: int) -> None:
    """Do some work several times. Its results are dropped at once: ten of the largest take 67 GB for 256 images."""
    for _ in range(times):
        work()


def _copy_rate(device: torch.device) -> float:
    """Measure bytes read and written per second."""
    source = torch.zeros(4 << 30, dtype=torch.uint8, device=device)
    source.clone()  # allocates the memory that the next one reuses
    return 2 * len(source) / seconds(source.clone, device)


def _time_batches(case: Case, size: int) -> list[tuple[Any, Any]]:
    """Extract, and return the CUDA events before and after each batch."""
    batches: list[tuple[Any, Any]] = []
    encode = encoding.Encoding.of_pixels

    def timed(self: encoding.Encoding, pixels: Tensor, size: int) -> Tensor:
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        result = encode(self, pixels, size)
        last.record()
        batches.append((first, last))
        return result

    encoding.Encoding.of_pixels = timed  # type: ignore[method-assign]
    try:
        case.ours(size=size)
        torch.cuda.synchronize(case.device)
    finally:
        encoding.Encoding.of_pixels = encode  # type: ignore[method-assign]
    return batches
