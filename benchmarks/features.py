"""Frames to features: a frozen backbone runs once a frame and view, and a folder of safetensors remembers it.

A feature store is a folder with `manifest.json` (fingerprint, feature width, views, damaged crops) and one file a clip
and view, `<view>/<clip>.safetensors`: tensor `features` (N, D), and `keys` in its metadata, a JSON list of the N image
paths relative to the images' root. The first folder of a path names the shard, so trees of another depth work too.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from backbones.base import Backbone
from benchmarks.config import VIEWS
from benchmarks.progress import Progress
from registry import UserError
from zoo.files import replacing, write_json

_T = TypeVar("_T")
_R = TypeVar("_R")


class DamagedImageError(UserError):
    """A crop that cannot be decoded; `image` is its path relative to the images' root."""

    def __init__(self, path: Path, image: str, reason: str) -> None:
        super().__init__(f"damaged crop {path}: {reason}; repair or delete it, or go on without it: --skip-damaged")
        self.image = image


def shard_of(image: str) -> str:
    """Name of the shard that an image path belongs to: its first folder, `_` for a file at the root itself."""
    parts = PurePosixPath(image).parts
    return parts[0] if len(parts) > 1 else "_"


class FeatureStore:
    """Features by view and image path.

    Args:
        folder: where the store is or will be.
        fingerprint: the backbone's `fingerprint()`. A store made under another one is refused.

    Raises:
        UserError: the folder holds features of another fingerprint, or something that is no store.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self.folder = folder
        self.fingerprint = dict(fingerprint)
        self.damaged: list[str] = []
        self.seconds = 0.0  # what making it took, over all runs
        manifest = folder / "manifest.json"
        if manifest.exists():
            try:
                found = json.loads(manifest.read_text(encoding="utf-8"))
                self.damaged, self.seconds = list(found["damaged"]), float(found["seconds"])
                same = found["fingerprint"] == json.loads(json.dumps(self.fingerprint))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{manifest} is no feature store's manifest ({error}); delete {folder} to make it anew"
                ) from error
            if not same:
                raise UserError(
                    f"{folder} holds features of another backbone, weights or preprocessing; use another folder"
                )

    def path(self, view: str, shard: str) -> Path:
        """The file of one shard."""
        return self.folder / view / f"{shard}.safetensors"

    def keys(self, view: str, shard: str) -> list[str]:
        """Image paths whose features the shard holds; empty when there is no such shard."""
        path = self.path(view, shard)
        if not path.exists():
            return []
        with self._open(path) as file:
            return json.loads(file.metadata()["keys"])

    def missing(self, view: str, images: Iterable[str]) -> list[str]:
        """Those of `images` that the view lacks, in order."""
        return [image for shard, group in _by_shard(images) for image in _without(group, self.keys(view, shard))]

    def add(self, view: str, shard: str, images: Sequence[str], features: torch.Tensor) -> None:
        """Write features (N, D) of N images of one shard, atomically; what it holds already stays."""
        path = self.path(view, shard)
        keys = self.keys(view, shard)
        if keys:
            with self._open(path) as file:
                features = torch.cat([file.get_tensor("features"), features])
        tensors = {"features": features.contiguous()}
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"keys": json.dumps([*keys, *images])})

    def read(self, view: str, images: Sequence[str]) -> torch.Tensor:
        """Features (N, D) of N images, in their order and the dtype they were stored in.

        Raises:
            UserError: one of them was never encoded. Absence is not silent.
        """
        rows: list[torch.Tensor] = [torch.empty(0)] * len(images)
        positions = defaultdict(list)
        for position, image in enumerate(images):
            positions[shard_of(image)].append(position)
        for shard, group in positions.items():
            path = self.path(view, shard)
            keys = {key: row for row, key in enumerate(self.keys(view, shard))}
            absent = [images[position] for position in group if images[position] not in keys]
            if absent:
                raise UserError(
                    f"{self.folder} has no {view} features of {absent[0]} (and {len(absent) - 1} more); extract them"
                )
            with self._open(path) as file:
                features = file.get_tensor("features")
            for position in group:
                rows[position] = features[keys[images[position]]]
        return torch.stack(rows) if rows else torch.empty(0, 0)

    def finish(self, feature_dim: int) -> None:
        """Write the manifest: what the features are, and how many of each view."""
        views = {}
        for view in sorted(path.name for path in self.folder.iterdir() if path.is_dir()):
            shards = sorted(path.stem for path in (self.folder / view).glob("*.safetensors"))
            views[view] = {"shards": len(shards), "images": sum(len(self.keys(view, shard)) for shard in shards)}
        manifest = dict(
            format=1,
            fingerprint=self.fingerprint,
            feature_dim=feature_dim,
            views=views,
            damaged=sorted(set(self.damaged)),
            seconds=self.seconds,
        )
        write_json(self.folder / "manifest.json", manifest)

    def _open(self, path: Path) -> Any:
        try:
            return safe_open(path, framework="pt")
        except SafetensorError as error:
            raise UserError(f"damaged feature file {path} ({error}); delete it and run again") from error


@dataclass
class Extraction:
    """What an extraction did: features computed and found (image-views), crops skipped as damaged, seconds."""

    encoded: int = 0
    reused: int = 0
    damaged: list[str] = field(default_factory=list)
    seconds: float = 0.0


def extract(
    backbone: Backbone,
    root: Path,
    images: Mapping[str, Sequence[str]],
    store: FeatureStore,
    *,
    batch_size: int | None = None,
    device: str | torch.device = "cpu",
    skip_damaged: bool = False,
) -> Extraction:
    """Encode what the store lacks.

    Both views come from one decode and one resize: mirroring commutes with the bicubic resize, to the bit.

    Args:
        backbone: frozen, on `device`, in eval mode.
        root: the images' root.
        images: view -> image paths relative to `root`.
        store: receives the features, a shard at a time; an interrupted run keeps the finished shards.
        batch_size: images a forward pass, a view at a time; None for 16 on a CPU (they fit its cache), else 64.
        device: where the backbone is.
        skip_damaged: leave damaged crops out, listed in the result and the manifest; else the first is an error.

    Raises:
        DamagedImageError: a crop cannot be decoded and `skip_damaged` is off.
        UserError: a crop does not exist, or the disk is too small.
    """
    started = time.perf_counter()
    known_damaged = set(store.damaged) if skip_damaged else set()
    report = Extraction(damaged=sorted(known_damaged & {image for group in images.values() for image in group}))
    # views that each image still lacks, so that one decode serves all of them
    lacking: dict[str, tuple[str, ...]] = {}
    for view, wanted in images.items():
        missing = store.missing(view, wanted)
        report.reused += len(set(wanted)) - len(missing)
        for image in missing:
            if image not in known_damaged:
                lacking[image] = (*lacking.get(image, ()), view)
    if lacking:
        bytes_each = backbone.feature_dim * 4 + 150
        check_space(store.folder, bytes_each * sum(map(len, lacking.values())), "the features")
        device = torch.device(device)
        size = batch_size or (16 if device.type == "cpu" else 64)
        backbone.to(memory_format=torch.channels_last)  # convolutions run half as fast again
        try:
            _encode(backbone, root, lacking, store, size, device, skip_damaged, report)
        finally:  # of an interrupted run too: its shards are kept, and so is what they cost
            if store.folder.exists():
                store.damaged = sorted({*store.damaged, *report.damaged})
                store.seconds += time.perf_counter() - started
                store.finish(backbone.feature_dim)
    report.seconds = time.perf_counter() - started
    return report


def _encode(
    backbone: Backbone,
    root: Path,
    lacking: Mapping[str, tuple[str, ...]],
    store: FeatureStore,
    batch_size: int,
    device: torch.device,
    skip_damaged: bool,
    report: Extraction,
) -> None:
    ready: dict[tuple[str, str], dict[str, torch.Tensor]] = defaultdict(dict)
    remaining: dict[str, int] = defaultdict(int)
    for image in lacking:
        remaining[shard_of(image)] += 1
    names = sorted(lacking)
    batches = [names[start : start + batch_size] for start in range(0, len(names), batch_size)]

    def work(batch: Sequence[str]) -> tuple[list[DamagedImageError], dict[str, dict[str, torch.Tensor]]]:
        return _encode_batch(backbone, root, {image: lacking[image] for image in batch}, device)

    with Progress("features", sum(map(len, lacking.values())), "image") as progress:
        for batch, (problems, features) in zip(batches, _in_order(work, batches, device), strict=True):
            if problems and not skip_damaged:
                raise problems[0]
            report.damaged += [problem.image for problem in problems]
            for view, rows in features.items():
                for image, row in rows.items():
                    ready[view, shard_of(image)][image] = row
                report.encoded += len(rows)
                progress.advance(len(rows))
            for image in batch:
                shard = shard_of(image)
                remaining[shard] -= 1
                if not remaining[shard]:
                    for view in VIEWS:
                        whole = ready.pop((view, shard), None)
                        if whole:
                            store.add(view, shard, list(whole), torch.stack(list(whole.values())))


def _in_order(work: Callable[[_T], _R], batches: Sequence[_T], device: torch.device) -> Iterator[_R]:
    """Results of `work` in the order of `batches`, worked on side by side and never far ahead.

    On a CPU each worker computes on one core: threads inside an operation wait for each other at its end, and for
    the one that decodes. On an accelerator the workers keep it in decoded crops.
    """
    threads = torch.get_num_threads()
    workers = threads if device.type == "cpu" else 4
    inside = 1 if device.type == "cpu" else threads
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(inside,)) as pool:
        waiting = deque(pool.submit(work, batch) for batch in batches[: 2 * workers])
        following = iter(batches[2 * workers :])
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, batch) for batch in islice(following, 1))
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(threads)


def _encode_batch(
    backbone: Backbone, root: Path, images: Mapping[str, tuple[str, ...]], device: torch.device
) -> tuple[list[DamagedImageError], dict[str, dict[str, torch.Tensor]]]:
    """Decode and resize each image once and encode the views it lacks: problems, and view -> image -> features (D,)."""
    problems, pixels = [], {}
    for image in images:
        try:
            with Image.open(root / image) as opened:
                pixels[image] = backbone.preprocessing.resize_crop(opened.convert("RGB"))
        except FileNotFoundError as error:
            raise UserError(f"crop {root / image} does not exist; prepare the data again") from error
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = " ".join(str(error).replace(str(root / image), "").split())
            problems.append(DamagedImageError(root / image, image, reason))
    features: dict[str, dict[str, torch.Tensor]] = {}
    for view in VIEWS:
        rows = [image for image in pixels if view in images[image]]
        if rows:
            uint8 = torch.from_numpy(np.stack([pixels[image] for image in rows])).to(device)
            if view == "flipped":
                uint8 = uint8.flip(2)
            with torch.inference_mode():
                batch = backbone.preprocessing.normalise(uint8).to(dtype_of(backbone))
                encoded = backbone(batch.contiguous(memory_format=torch.channels_last)).cpu()
            features[view] = dict(zip(rows, encoded, strict=True))
    return problems, features


def dtype_of(backbone: Backbone) -> torch.dtype:
    """What a backbone computes in: the dtype of its weights."""
    return next((parameter.dtype for parameter in backbone.parameters()), torch.float32)


def fingerprint_of(backbone: Backbone) -> dict[str, Any]:
    """The fingerprint of a backbone's features in the dtype they are computed in."""
    return backbone.fingerprint(str(dtype_of(backbone)).removeprefix("torch."))


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise a UserError when the disk of `folder` has fewer than `needed` bytes free."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"no space for {what} in {folder}: {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free; use --out DIR"
        )


def _by_shard(images: Iterable[str]) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for image in images:
        groups[shard_of(image)].append(image)
    return list(groups.items())


def _without(images: Sequence[str], held: Sequence[str]) -> list[str]:
    have = set(held)
    return [image for image in dict.fromkeys(images) if image not in have]
