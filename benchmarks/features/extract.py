"""Extraction: a frozen backbone encodes each frame and view once, and a store keeps the features.

Crops are decoded in parallel. On a CPU each worker decodes and encodes its own batch on one core; a GPU works on one
stream of batches, which threads decode ahead of it and write behind it. A batch may mix clips and views: an encoder
gives an image the same bits in any batch, so features depend neither on interruptions nor on the number of processes.
"""

from __future__ import annotations

import datetime
import functools
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from backbones.base import Backbone
from backbones.encoding import dtype_of
from benchmarks.features.backlog import Backlog
from benchmarks.features.encoding import Encoding
from benchmarks.features.loops import cpu_loop, gpu_loop
from benchmarks.features.store import FeatureStore
from benchmarks.system import interrupts
from benchmarks.system.progress import Progress
from registry import UserError


@dataclass(frozen=True)
class ExtractOptions:
    """How to extract.

    Attributes:
        batch_size: images per forward pass, halved when memory runs out. None for 16 on a CPU, and on a GPU for the
            fastest size, which is measured.
        device: of the backbone.
        dtype: of the computation, as in the store's fingerprint; None for the dtype of the weights.
        skip_damaged: leave out crops that cannot be decoded, and list them; otherwise the first one is an error.
        share: number of this process, and number of processes. Each starts with its own share of the clips, then helps
            with clips that no process works on.
        update_manifest: update the store's manifest at the end. A caller that extracts clip by clip does it once.
        plugins: for Ray's workers to load.
        cores: of this process, to decode for a GPU; None for its share of those of the machine.
    """

    batch_size: int | None = None
    device: str = "cpu"
    dtype: str | None = None
    skip_damaged: bool = False
    share: tuple[int, int] = (0, 1)
    update_manifest: bool = True
    plugins: Sequence[str] = ()
    cores: int | None = None


DEFAULT_OPTIONS = ExtractOptions()


@dataclass
class Extraction:
    """The result of an extraction.

    Attributes:
        encoded: features computed.
        reused: features found in the store.
        damaged: image paths of skipped crops.
        seconds: duration.
    """

    encoded: int = 0
    reused: int = 0
    damaged: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: Extraction) -> None:
        """Add the counts of another extraction."""
        self.encoded += other.encoded
        self.reused += other.reused
        self.damaged += other.damaged
        self.seconds += other.seconds

    def complete(self, store: FeatureStore, images: Mapping[str, Sequence[str]]) -> None:
        """Fill in `reused` and `damaged`, once the store has the features of `images`."""
        damaged = set(store.damaged)
        requested = [set(of_view) for of_view in images.values()]
        self.reused = sum(len(of_view - damaged) for of_view in requested) - self.encoded
        self.damaged = sorted(damaged & set().union(*requested))


def encoding_of(backbone: Backbone, options: ExtractOptions) -> Encoding:
    """The encoding of a backbone on `options.device`, for several extractions."""
    return Encoding(backbone, torch.device(options.device), options.dtype, options.batch_size)


def extract(
    backbone: Backbone | Encoding,
    root: Path,
    images: Mapping[str, Sequence[str]],
    store: FeatureStore,
    options: ExtractOptions = DEFAULT_OPTIONS,
) -> Extraction:
    """Encode the features that a store lacks. Returns when none is missing, whichever process computed it.

    Both views come from one decode and one resize: mirroring commutes with the bicubic resize, to the bit.

    Args:
        backbone: frozen, on `options.device`, in eval mode; or its `encoding_of`, to use that again.
        root: folder of the images.
        images: view -> image paths relative to `root`.
        store: receives the features batch by batch; an interrupted run keeps the finished batches.
        options: batch size, device and so on.

    Raises:
        DamagedImageError: a crop cannot be decoded and `skip_damaged` is off.
        UserError: a crop does not exist, or the disk is too small.
    """
    started = time.perf_counter()
    backlog = Backlog(store, images, options.skip_damaged)
    shards, expected = backlog.shards_for(options.share)
    number, _ = options.share
    encode = backbone if isinstance(backbone, Encoding) else encoding_of(backbone, options)
    width = encode.backbone.feature_dim
    report = Extraction()
    try:
        if shards:
            check_space(store.folder, (width * 4 + 150) * expected)
        store.create(width)  # a whole store may lack its manifest
        if shards:
            encode.prepare()
            on_gpu = encode.device.type == "cuda"
            loop = functools.partial(gpu_loop, cores=options.cores) if on_gpu else cpu_loop
            steps = loop(encode, root, backlog.batches(shards, encode), options.skip_damaged)
            with closing(steps), Progress("features", expected, "image", show=number == 0) as progress:
                for encoded, damaged in interrupts.steps(steps):
                    report.encoded += encoded
                    progress.advance(encoded + damaged, encode.note(progress.rate()))
    finally:  # an interrupted run keeps its batches and logs their cost
        backlog.close()
        report.seconds = time.perf_counter() - started
        if report.encoded:
            now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            store.log(date=now, seconds=round(report.seconds, 3), encoded=report.encoded, process=number)
        if options.update_manifest:
            store.finish()
    report.complete(store, images)
    return report


def fingerprint_of(backbone: Backbone, dtype: str | None = None) -> dict[str, Any]:
    """The fingerprint of a backbone's features computed in a dtype, by default the dtype of its weights."""
    return backbone.fingerprint(dtype or str(dtype_of(backbone)).removeprefix("torch."))


def check_space(folder: Path, needed: int) -> None:
    """Check the free space for features.

    Raises:
        UserError: the disk of `folder` has fewer than `needed` bytes free.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"no space for the features in {folder}: {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free; use"
            " --out DIR"
        )
