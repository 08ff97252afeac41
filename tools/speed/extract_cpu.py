"""Extraction on the CPU with a small ViT."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from benchmarks.features.encoding import flops_of
from benchmarks.features.extract import ExtractOptions, extract, fingerprint_of
from benchmarks.features.store import FeatureStore
from tools.speed.extract_case import Case, far_apart, touched_at_stride_13
from tools.speed.harness import FEW, Work, seconds
from tools.speed.vit import TINY, RandomInternViT

BATCH = 32  # of the baselines that a user would write


@contextmanager
def on_cpu(quick: bool) -> Iterator[list[Work]]:
    """A ViT of vit_tiny's size: all frames, the frames of windows of stride 13, and two processes of one thread.

    One thread, because two threads inside an operation wait for each other and, on a busy machine, for its other work.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        case = Case(Path(name), TINY, 26 if quick else 520, "cpu", torch.float32)
        planned = touched_at_stride_13(case.images)
        pool = multiprocessing.get_context("spawn").Pool(2, _prepare)
        try:

            def shares(count: int) -> list[int]:
                folder = str(case.fresh())
                tasks = [(folder, str(case.root), case.images, number, count) for number in range(count)]
                return pool.starmap(_extract_share, tasks, chunksize=1)

            shares(2)  # start both processes before anything is timed
            yield [
                Work(
                    name="extract_cpu",
                    what=f"{len(case.images)} JPEGs, decoded, encoded by a small ViT on one thread, and written",
                    against="transformers' model on one image at a time, one file per frame",
                    plain=case.plain,
                    ours=case.ours,
                    differ=lambda plain, ours: far_apart(plain, ours, 0.999999),
                    must=1.15,
                    aim=1.3,
                    facts=lambda: cpu_facts(case),
                    pairs=FEW,
                ),
                Work(
                    name="extract_loader_cpu",
                    what=f"{len(case.images)} JPEGs to features, as above",
                    against="timm's transform, a DataLoader, transformers' model on batches of 32, one file",
                    plain=lambda: loader_extract(case),
                    ours=case.ours,
                    differ=lambda plain, ours: far_apart(plain, ours, 0.999999),
                    must=0.95,
                    pairs=FEW,
                ),
                Work(
                    name="extract_pipeline_cpu",
                    what=f"{len(case.images)} JPEGs to features, as above",
                    against="transformers' pipeline for image features on batches of 32, one file",
                    plain=lambda: pipeline_extract(case),
                    ours=case.ours,
                    differ=lambda plain, ours: far_apart(plain, ours, 0.999),  # its processor rounds resized pixels
                    must=0.95,
                    pairs=FEW,
                ),
                Work(
                    name="extract_plan_cpu",
                    what=f"frames in windows of stride 13, of {len(case.images)} JPEGs",
                    against="the baseline on all of them",
                    plain=case.plain,
                    ours=lambda: case.ours(planned),
                    differ=lambda plain, ours: plan_differs(case.images, planned, plain, ours),
                    must=2.0,
                    aim=2.4,
                    facts=lambda: {"frames": len(case.images), "encoded": len(planned)},
                    pairs=FEW,
                ),
                Work(
                    name="extract_two_cpu",
                    what=f"{len(case.images)} JPEGs by two processes of one thread",
                    against="one process of one thread",
                    plain=lambda: shares(1),
                    ours=lambda: shares(2),
                    differ=lambda plain, ours: None if sum(plain) == sum(ours) else f"{plain} and {ours} encoded",
                    must=1.8,
                    aim=1.9,
                    pairs=FEW,
                ),
            ]
        finally:
            pool.close()
            pool.join()


class Pictures(Dataset):
    """JPEGs as pixels by a transform."""

    def __init__(self, root: Path, images: Sequence[str], transform: Callable[[Image.Image], Tensor]) -> None:
        self._paths, self._transform = [root / image for image in images], transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> Tensor:
        with Image.open(self._paths[number]) as opened:
            return self._transform(opened.convert("RGB"))


@torch.inference_mode()
def loader_extract(case: Case) -> Tensor:
    """Extract all images in batches, as a short script with timm and torch does."""
    from timm.data.transforms_factory import create_transform

    side = case.backbone.preprocessing.size
    transform: Any = create_transform(
        (3, side, side), interpolation="bicubic", mean=IMAGENET_MEAN, std=IMAGENET_STD, crop_pct=1.0
    )
    batches = DataLoader(Pictures(case.root, case.images, transform), BATCH)
    features = torch.cat([case.model(pixel_values=batch).last_hidden_state[:, 0] for batch in batches])
    return _saved(case, features)


def pipeline_extract(case: Case) -> Tensor:
    """Extract all images with the pipeline of transformers."""
    import transformers

    size = {"height": case.backbone.preprocessing.size, "width": case.backbone.preprocessing.size}
    processor = transformers.CLIPImageProcessor(
        size=size, do_center_crop=False, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD, resample=3
    )
    make: Any = transformers.pipeline
    run = make("image-feature-extraction", model=case.model, image_processor=processor, device="cpu")
    found = run([str(case.root / image) for image in case.images], batch_size=BATCH)
    return _saved(case, torch.tensor([tokens[0][0] for tokens in found]))


def _saved(case: Case, features: Tensor) -> Tensor:
    folder = case.fresh()
    folder.mkdir()
    torch.save(features, folder / "features.pth")
    return features


def plan_differs(images: Sequence[str], planned: Sequence[str], plain: Tensor, ours: Tensor) -> str | None:
    """Describe what is wrong with a plan: its size (apart from the ends of a short track), duplicates, or features."""
    share = len(planned) / len(images)
    if len(set(planned)) != len(planned) or abs(share - 7 / 13) > max(0.01, 3 / len(images)):
        return f"{len(planned)} of {len(images)} frames are planned, {len(set(planned))} of them distinct"
    place = {image: row for row, image in enumerate(images)}
    return far_apart(plain[[place[image] for image in planned]], ours, 0.999999)


def cpu_facts(case: Case) -> dict[str, Any]:
    """Return the share of the core's matrix product rate that our way reaches as a whole."""
    a = torch.randn(2048, 2048)
    gemm = max(2 * 2048**3 / seconds(lambda: a @ a) for _ in range(5))
    flops, count = flops_of(case.backbone), len(case.images)
    whole = seconds(case.ours)
    return {
        "gflop_an_image": round(flops / 1e9, 3),
        "images_a_second": round(count / whole, 1),
        "sgemm_gflops": round(gemm / 1e9, 1),
        "share_of_sgemm": round(flops * count / whole / gemm, 3),
    }


def _prepare() -> None:
    """Set up a worker process: one thread and a backbone."""
    torch.set_num_threads(1)
    _worker["backbone"] = RandomInternViT(TINY, torch.device("cpu"), torch.float32)


def _extract_share(folder: str, root: str, images: list[str], number: int, count: int) -> int:
    """Extract this worker's share and return the number of vectors computed."""
    backbone = _worker["backbone"]
    store = FeatureStore(Path(folder), fingerprint_of(backbone))
    options = ExtractOptions(share=(number, count))
    return extract(backbone, Path(root), {"original": images}, store, options).encoded


_worker: dict[str, Backbone] = {}
