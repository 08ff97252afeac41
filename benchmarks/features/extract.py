"""Frames to features: a frozen backbone runs once a frame and view, and a store remembers it.

Crops are decoded side by side; on a CPU each worker resizes and encodes its own batch on one core, on a GPU one stream
of batches is fed by decoding ahead and emptied by a writer. A batch takes what is lacking as it comes, across clips and
views: an encoder gives a picture the same bits in any company, so they depend neither on interruptions nor on how many
processes share the work.
"""

from __future__ import annotations

import datetime
import heapq
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from backbones.base import Backbone
from backbones.encoding import dtype_of
from benchmarks.features.encoding import Encoding
from benchmarks.features.loops import MissingFeature, in_threads, pipelined
from benchmarks.features.shard import OpenShard, by_shard
from benchmarks.features.store import FeatureStore
from benchmarks.system import interrupts
from benchmarks.system.progress import Progress, say
from registry import UserError

_PATIENCE = 10  # seconds of waiting for others before a word of it


@dataclass
class Extraction:
    """What an extraction did: features computed and found (image-views), crops skipped as damaged, seconds."""

    encoded: int = 0
    reused: int = 0
    damaged: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: Extraction) -> None:
        """Take in what another one did."""
        self.encoded += other.encoded
        self.reused += other.reused
        self.damaged += other.damaged
        self.seconds += other.seconds


def extract(
    backbone: Backbone,
    root: Path,
    images: Mapping[str, Sequence[str]],
    store: FeatureStore,
    *,
    batch_size: int | None = None,
    device: str | torch.device = "cpu",
    dtype: str | None = None,
    skip_damaged: bool = False,
    share: tuple[int, int] = (0, 1),
    manifest: bool = True,
) -> Extraction:
    """Encode what the store lacks; returns when nothing is lacking, whoever did it.

    Both views come from one decode and one resize: mirroring commutes with the bicubic resize, to the bit.

    Args:
        backbone: frozen, on `device`, in eval mode.
        root: the images' root.
        images: view -> image paths relative to `root`.
        store: receives the features, a batch at a time; an interrupted run keeps the finished batches.
        batch_size: images a forward pass; None for 16 on a CPU, and for what is found to be fastest on a GPU. Where
            memory runs out it is halved.
        device: where the backbone is.
        dtype: what the encoder computes in, as in the store's fingerprint; None for the dtype of the weights.
        skip_damaged: leave damaged crops out, listed in the result and the manifest; else the first is an error.
        share: this process's number and how many there are. Each starts with the clips dealt out to it, and then helps
            with those that nobody works on.
        manifest: bring the store's manifest up to date at the end; whoever calls this clip by clip does it once.

    Raises:
        DamagedImageError: a crop cannot be decoded and `skip_damaged` is off.
        UserError: a crop does not exist, or the disk is too small.
    """
    started = time.perf_counter()
    wanted = _by_clip(images)
    number, processes = share
    shares = deal({name: sum(map(len, clip.values())) for name, clip in wanted.items()}, processes)
    own = shares[number]
    # The ends of the others' lists come last: there this process meets them, if it meets them at all.
    others = [name for later in range(1, processes) for name in reversed(shares[(number + later) % processes])]

    report = Extraction()
    lacking = {name: _lacking(store, name, wanted[name], skip_damaged, check=True) for name in own}
    for path in (store.path(view, name) for name, clip in lacking.items() if clip for view in images):
        if path.exists() and store.held(path.parent.name, path.stem, check=False) is None:
            say(f"damaged feature file {path}: made anew")
    expected = sum(len(views) for clip in lacking.values() for views in clip.values())
    lacking |= {name: _lacking(store, name, wanted[name], skip_damaged, check=False) for name in others}
    todo = [name for name, clip in lacking.items() if clip or store.is_open(name)]
    del lacking  # of a million frames it is large, and each clip's is found again when its turn comes

    device = torch.device(device)
    opened: list[OpenShard] = []
    try:
        if todo:
            check_space(store.folder, (backbone.feature_dim * 4 + 150) * expected, "the features")
            store.create(backbone.feature_dim)
            encode = Encoding(backbone, device, dtype, batch_size)
            batches = _batches(store, todo, wanted, encode, skip_damaged, opened)
            loop = pipelined if device.type == "cuda" else in_threads
            steps = loop(encode, backbone.preprocessing, root, batches, device, skip_damaged)
            with closing(steps), Progress("features", expected, "image", show=number == 0) as progress:
                for encoded, damaged in interrupts.steps(steps):
                    report.encoded += encoded
                    progress.advance(encoded + damaged, encode.note(progress.rate()))
    finally:  # of an interrupted run too: its batches are kept, and so is what they cost
        for shard in opened:
            shard.close()
        report.seconds = time.perf_counter() - started
        if report.encoded:
            now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            store.log(date=now, seconds=round(report.seconds, 3), encoded=report.encoded, process=number)
        if manifest:
            store.finish()
    return accounted(store, images, report)


def accounted(store: FeatureStore, images: Mapping[str, Sequence[str]], report: Extraction) -> Extraction:
    """Complete a report that says what was encoded, now that the store holds all that can be had of `images`."""
    known = set(store.damaged)
    wanted = {view: set(of_view) for view, of_view in images.items()}
    report.reused = sum(len(of_view - known) for of_view in wanted.values()) - report.encoded
    report.damaged = sorted(known & set().union(*wanted.values()))
    return report


def deal(sizes: Mapping[str, int], processes: int) -> list[list[str]]:
    """Deal clips out so that each process has about as many frames: the largest first, to who has the least.

    Args:
        sizes: clip -> frames.
        processes: how many.

    Returns:
        One sorted list of clips a process.

    Example:
        >>> deal({"a": 5, "b": 3, "c": 3}, 2)
        [['a'], ['b', 'c']]
    """
    heap = [(0, number) for number in range(processes)]
    shares: list[list[str]] = [[] for _ in range(processes)]
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        load, number = heap[0]
        shares[number].append(name)
        heapq.heapreplace(heap, (load + sizes[name], number))
    return [sorted(names) for names in shares]


def fingerprint_of(backbone: Backbone, dtype: str | None = None) -> dict[str, Any]:
    """The fingerprint of a backbone's features in the dtype they are computed in, by default that of its weights."""
    return backbone.fingerprint(dtype or str(dtype_of(backbone)).removeprefix("torch."))


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise a UserError when the disk of `folder` has fewer than `needed` bytes free."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"no space for {what} in {folder}: {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free; use --out DIR"
        )


def _by_clip(images: Mapping[str, Sequence[str]]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Turn view -> images into shard -> image -> views, so that one decode serves all views."""
    clips: dict[str, dict[str, tuple[str, ...]]] = {}
    for view, of_view in images.items():
        for shard, group in by_shard(dict.fromkeys(of_view)).items():
            clip = clips.setdefault(shard, {})
            for image in group:
                clip[image] = (*clip.get(image, ()), view)
    return clips


def _lacking(
    store: FeatureStore, name: str, wanted: Mapping[str, tuple[str, ...]], skip_damaged: bool, *, check: bool
) -> dict[str, tuple[str, ...]]:
    """Those of the wanted images of a shard that its files lack, with the views."""
    have: dict[str, set[str]] = {}
    for view in {view for views in wanted.values() for view in views}:
        held = store.held(view, name, check=check)
        have[view] = {*held.keys, *(held.damaged if skip_damaged else ())} if held else set()
    lacking = {image: tuple(view for view in views if image not in have[view]) for image, views in wanted.items()}
    return {image: views for image, views in lacking.items() if views}


def _batches(
    store: FeatureStore,
    names: Sequence[str],
    wanted: Mapping[str, Mapping[str, tuple[str, ...]]],
    encode: Encoding,
    skip_damaged: bool,
    opened: list[OpenShard],
) -> Iterator[list[MissingFeature] | None]:
    """What is to be computed, a shard opened at a time. None: others work on the rest; finish yours, then ask again."""
    batch: list[MissingFeature] = []
    tell_at = time.monotonic() + _PATIENCE
    while names:
        later = []
        for name in names:
            if not store.is_open(name) and not _lacking(store, name, wanted[name], skip_damaged, check=False):
                continue
            shard = store.open(name)
            if shard is None:
                later.append(name)
                continue
            opened.append(shard)
            lacking = _lacking(store, name, wanted[name], skip_damaged, check=True)
            items = [
                MissingFeature(shard, image, view)
                for image, views in sorted(lacking.items())
                for view in views
                if not shard.has(view, image, skip_damaged)
            ]
            shard.expect(len(items))
            for item in items:
                batch.append(item)
                if len(batch) >= encode.size:
                    yield batch
                    batch = []
        if batch:
            yield batch
            batch = []
        if len(later) == len(names):
            if time.monotonic() > tell_at:
                say(f"waiting for another process, which works on {len(later)} clips of {store.folder}")
                tell_at = float("inf")
            interrupts.check()
            yield None
        else:
            tell_at = time.monotonic() + _PATIENCE
        names = later
