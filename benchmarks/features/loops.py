"""The two extraction loops: batches in CPU threads, or one stream of batches that keeps a GPU busy."""

from __future__ import annotations

import functools
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from backbones.base import Preprocessing
from benchmarks.data.pictures import DamagedImageError, read_crop
from benchmarks.features.encoding import Encoding
from benchmarks.features.shard import OpenShard

_T = TypeVar("_T")


class MissingFeature(NamedTuple):
    """One feature vector to be computed."""

    shard: OpenShard
    image: str
    view: str


def in_threads(
    encode: Encoding,
    preprocessing: Preprocessing,
    root: Path,
    batches: Iterator[list[MissingFeature] | None],
    device: torch.device,
    skip_damaged: bool,
) -> Generator[tuple[int, int], None, None]:
    """Work on batches side by side; yield of each, when it is kept, how many are encoded and how many damaged.

    On a CPU each worker decodes and computes on one core: threads inside an operation wait for each other at its end,
    and for the one that decodes.
    """

    def work(batch: list[MissingFeature]) -> tuple[int, int]:
        crops: dict[str, np.ndarray | None] = {}
        for image in dict.fromkeys(item.image for item in batch):
            crops[image] = _or_none(
                functools.partial(read_crop, root, image, preprocessing=preprocessing), skip_damaged
            )
        sound = [crop[:, ::-1] if item.view == "flipped" else crop for item, crop in _with(batch, crops)]
        features = encode(torch.from_numpy(np.stack(sound)).to(device)).cpu() if sound else torch.empty(0)
        return _keep(batch, crops, features)

    threads = torch.get_num_threads()
    workers, inside = (threads, 1) if device.type == "cpu" else (4, threads)
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(inside,)) as pool:
        running: set[Future[tuple[int, int]]] = set()
        try:
            for batch in batches:
                if batch is None:
                    time.sleep(0.1)
                else:
                    running.add(pool.submit(work, batch))
                while len(running) >= 2 * workers or (batch is None and running):
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            for future in running:
                future.cancel()
            torch.set_num_threads(threads)


def pipelined(
    encode: Encoding,
    preprocessing: Preprocessing,
    root: Path,
    batches: Iterator[list[MissingFeature] | None],
    device: torch.device,
    skip_damaged: bool,
    ahead: int = 3,
) -> Generator[tuple[int, int], None, None]:
    """Keep one device in work: crops are decoded `ahead` batches ahead of it, features are copied and kept behind it.

    A batch is queued while the device computes the one before; only the writer waits for it. Yields what `_in_threads`
    does.
    """
    decoders = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    writer = ThreadPoolExecutor(1)
    copies = torch.cuda.Stream(device) if device.type == "cuda" else None
    decoding: deque[tuple[list[MissingFeature], dict[str, Future[np.ndarray]]]] = deque()
    keeping: deque[Future[tuple[int, int]]] = deque()

    def launch() -> None:
        batch, futures = decoding.popleft()
        crops = {image: _or_none(future.result, skip_damaged) for image, future in futures.items()}
        resized = _resize_on(device, crops, preprocessing)
        sound = [pixels.flip(1) if item.view == "flipped" else pixels for item, pixels in _with(batch, resized)]
        features, copied = _to_host(encode(torch.stack(sound)), copies) if sound else (torch.empty(0), None)
        keeping.append(writer.submit(keep, batch, crops, features, copied))

    def keep(
        batch: list[MissingFeature], crops: dict[str, np.ndarray | None], features: Tensor, copied: Any
    ) -> tuple[int, int]:
        if copied is not None:
            copied.synchronize()
        return _keep(batch, crops, features)

    try:
        for batch in batches:
            if batch is not None:
                images = dict.fromkeys(item.image for item in batch)
                decode_one = functools.partial(read_crop, root, preprocessing=preprocessing, resized=False)
                decoding.append((batch, {image: decoders.submit(decode_one, image) for image in images}))
            while len(decoding) > (0 if batch is None else ahead):
                launch()
                while len(keeping) > 1:
                    yield keeping.popleft().result()
            if batch is None:
                while keeping:
                    yield keeping.popleft().result()
                time.sleep(0.1)
        while decoding:
            launch()
            while len(keeping) > 1:
                yield keeping.popleft().result()
        while keeping:
            yield keeping.popleft().result()
    finally:
        decoders.shutdown(cancel_futures=True)
        writer.shutdown()  # what is computed is kept


def _or_none(get: Callable[[], np.ndarray], skip_damaged: bool) -> np.ndarray | None:
    """A decoded crop, None for a damaged one where those are skipped."""
    try:
        return get()
    except DamagedImageError:
        if not skip_damaged:
            raise
        return None


def _with(batch: Sequence[MissingFeature], crops: Mapping[str, _T | None]) -> list[tuple[MissingFeature, _T]]:
    """The items of a batch whose crop is sound, with it."""
    found = ((item, crops.get(item.image)) for item in batch)
    return [(item, crop) for item, crop in found if crop is not None]


def _keep(batch: Sequence[MissingFeature], crops: Mapping[str, np.ndarray | None], features: Tensor) -> tuple[int, int]:
    """Give the shards of a batch what was computed of it; how many are encoded and how many damaged.

    Args:
        batch: what was to be computed.
        crops: image -> its pixels, None where it is damaged.
        features: (N, D) of the sound items, in order.
    """
    rows = {item: row for row, (item, _) in enumerate(_with(batch, crops))}
    for shard in dict.fromkeys(item.shard for item in batch):
        encoded: dict[str, tuple[list[str], list[int]]] = {}
        damaged: dict[str, list[str]] = {}
        for item in batch:
            if item.shard is shard and item in rows:
                images, of_view = encoded.setdefault(item.view, ([], []))
                images.append(item.image)
                of_view.append(rows[item])
            elif item.shard is shard:
                damaged.setdefault(item.view, []).append(item.image)
        shard.add({view: (images, features[of_view]) for view, (images, of_view) in encoded.items()}, damaged)
    return len(rows), len(batch) - len(rows)


def _resize_on(
    device: torch.device, crops: Mapping[str, np.ndarray | None], preprocessing: Preprocessing
) -> dict[str, Tensor]:
    """Upload crops and resize them there, those of one size together: image -> uint8 (size, size, 3)."""
    by_size: dict[tuple[int, ...], list[tuple[str, np.ndarray]]] = {}
    for image, crop in crops.items():
        if crop is not None:
            by_size.setdefault(crop.shape, []).append((image, crop))
    resized: dict[str, Tensor] = {}
    for of_size in by_size.values():
        pixels = torch.from_numpy(np.stack([crop for _, crop in of_size]))
        if device.type == "cuda":
            pixels = pixels.pin_memory()
        done = preprocessing.resize_crop_batch(pixels.to(device, non_blocking=True))
        resized.update(zip((image for image, _ in of_size), done, strict=True))
    return resized


def _to_host(features: Tensor, copies: torch.cuda.Stream | None) -> tuple[Tensor, Any]:
    """Start copying features to the host beside the next batch's computation: the copy, and the event of its end."""
    if copies is None:
        return features, None
    host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
    copies.wait_stream(torch.cuda.current_stream(features.device))
    with torch.cuda.stream(copies):
        host.copy_(features, non_blocking=True)
        features.record_stream(copies)
        copied = copies.record_event()
    return host, copied
