"""The two extraction loops: batches in CPU threads, or one stream of batches that keeps a GPU busy."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from backbones.checkpoints import all_finite
from benchmarks.data.pictures import DamagedImageError, read_crop
from benchmarks.features.backlog import MissingFeature
from benchmarks.features.encoding import Encoding
from benchmarks.system.launch import own_cores
from benchmarks.system.shortage import is_out_of_memory
from registry import UserError

_T = TypeVar("_T")

_AHEAD = 3  # batches that are decoded before a GPU needs them
_DECODERS = 16  # threads at most; they keep up with any GPU
_PAUSE = 0.1  # seconds between looks at other processes' progress


def cpu_loop(
    encode: Encoding, root: Path, batches: Iterator[list[MissingFeature] | None], skip_damaged: bool
) -> Generator[tuple[int, int], None, None]:
    """Work on batches in parallel.

    On a CPU each worker decodes and encodes on one core: threads inside an operation would wait for each other at its
    end, and for the thread that decodes.

    Args:
        encode: the backbone's encoder.
        root: folder of the images.
        batches: missing features; None while other processes work on the rest.
        skip_damaged: count crops that cannot be decoded, instead of raising.

    Yields:
        Numbers of encoded and of damaged image-views of each batch, once it is in the store.
    """
    device = encode.device

    def work(batch: list[MissingFeature]) -> tuple[int, int]:
        crops: dict[str, np.ndarray | None] = {}
        for image in dict.fromkeys(missing.image for missing in batch):
            decode_one = functools.partial(read_crop, root, image, preprocessing=encode.backbone.preprocessing)
            crops[image] = _or_none(decode_one, skip_damaged)
        sound = [crop[:, ::-1] if missing.view == "flipped" else crop for missing, crop in _sound(batch, crops)]
        features = encode(sound).cpu() if sound else torch.empty(0)
        return _keep(batch, crops, features)

    threads = torch.get_num_threads()
    workers, inside = (threads, 1) if device.type == "cpu" else (4, threads)
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(inside,)) as pool:
        running: set[Future[tuple[int, int]]] = set()
        try:
            for batch in batches:
                if batch is None:
                    time.sleep(_PAUSE)
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


def gpu_loop(
    encode: Encoding,
    root: Path,
    batches: Iterator[list[MissingFeature] | None],
    skip_damaged: bool,
    cores: int | None = None,
) -> Generator[tuple[int, int], None, None]:
    """Keep one GPU busy: crops are decoded ahead of it, and features are copied and written behind it.

    A batch is queued while the device computes the one before; only the writer waits for the device.

    Args:
        encode: the backbone's encoder.
        root: folder of the images.
        batches: missing features; None while other processes work on the rest.
        skip_damaged: count crops that cannot be decoded, instead of raising.
        cores: of this process, for decoding; None for its share of those of the machine.

    Yields:
        As `cpu_loop`.
    """
    device = encode.device
    decoders = ThreadPoolExecutor(min(_DECODERS, cores or own_cores()))
    writer = ThreadPoolExecutor(1)
    copies = torch.cuda.Stream(device) if device.type == "cuda" else None
    decoding: deque[tuple[list[MissingFeature], dict[str, Future[np.ndarray]]]] = deque()
    keeping: deque[Future[tuple[int, int]]] = deque()

    def launch() -> None:
        batch, futures = decoding.popleft()
        crops = {image: _or_none(future.result, skip_damaged) for image, future in futures.items()}
        sound = [crop[:, ::-1] if missing.view == "flipped" else crop for missing, crop in _sound(batch, crops)]
        features, copied = _to_host(encode(sound), copies) if sound else (torch.empty(0), None)
        keeping.append(writer.submit(keep, batch, crops, features, copied))

    def keep(
        batch: list[MissingFeature], crops: dict[str, np.ndarray | None], features: Tensor, copied: Any
    ) -> tuple[int, int]:
        if copied is not None:
            copied.synchronize()
        return _keep(batch, crops, features)

    def finished(ahead: int, unwritten: int) -> Iterator[tuple[int, int]]:
        """Launch batches until `ahead` are left to launch, and wait for the writer until it has `unwritten` left."""
        while len(decoding) > ahead:
            launch()
            while len(keeping) > 1:
                yield keeping.popleft().result()
        while len(keeping) > unwritten:
            yield keeping.popleft().result()

    try:
        for batch in batches:
            if batch is None:
                yield from finished(0, 0)
                time.sleep(_PAUSE)
                continue
            images = dict.fromkeys(missing.image for missing in batch)
            decode_one = functools.partial(read_crop, root, preprocessing=encode.backbone.preprocessing)
            decoding.append((batch, {image: decoders.submit(decode_one, image) for image in images}))
            yield from finished(_AHEAD, 1)
        yield from finished(0, 0)
    finally:
        decoders.shutdown(cancel_futures=True)
        writer.shutdown()  # computed features are kept


def _or_none(get: Callable[[], np.ndarray], skip_damaged: bool) -> np.ndarray | None:
    """Get a decoded crop; None for a damaged one if those are skipped."""
    try:
        return get()
    except DamagedImageError:
        if not skip_damaged:
            raise
        return None


def _sound(batch: Sequence[MissingFeature], crops: Mapping[str, _T | None]) -> list[tuple[MissingFeature, _T]]:
    """The features of a batch that can be computed, with their crops."""
    found = ((missing, crops.get(missing.image)) for missing in batch)
    return [(missing, crop) for missing, crop in found if crop is not None]


def _keep(batch: Sequence[MissingFeature], crops: Mapping[str, np.ndarray | None], features: Tensor) -> tuple[int, int]:
    """Add the results of a batch to its shards.

    Args:
        batch: features that were missing.
        crops: image -> its pixels, None if it is damaged.
        features: (N, D) of the sound crops, in order.

    Returns:
        Numbers of encoded and of damaged image-views.

    Raises:
        UserError: a feature is NaN or infinite; none of the batch is kept.
    """
    sound = [missing for missing, _ in _sound(batch, crops)]
    rows = {missing: row for row, missing in enumerate(sound)}
    if not all_finite(features):
        raise _not_finite(sound, features)
    for shard in dict.fromkeys(missing.shard for missing in batch):
        encoded: dict[str, tuple[list[str], list[int]]] = {}
        damaged: dict[str, list[str]] = {}
        for missing in batch:
            if missing.shard is shard and missing in rows:
                images, of_view = encoded.setdefault(missing.view, ([], []))
                images.append(missing.image)
                of_view.append(rows[missing])
            elif missing.shard is shard:
                damaged.setdefault(missing.view, []).append(missing.image)
        shard.add({view: (images, features[of_view]) for view, (images, of_view) in encoded.items()}, damaged)
    return len(rows), len(batch) - len(rows)


def _not_finite(sound: Sequence[MissingFeature], features: Tensor) -> UserError:
    """The error of features that are NaN or infinite; names the first image."""
    first = sound[int((~features.isfinite()).flatten(1).any(dim=1).nonzero()[0])]
    dtype = str(features.dtype).removeprefix("torch.")
    remedy = "the weights do not work; use others"
    if dtype == "float16":
        remedy = "float16 ends at 65,504; use --dtype bfloat16 or float32, or weights stored in one of them"
    return UserError(f"image {first.image} ({first.view}): its features in {dtype} are NaN or infinite; {remedy}")


def _to_host(features: Tensor, copies: torch.cuda.Stream | None) -> tuple[Tensor, Any]:
    """Copy features to the host while the next batch computes; returns the copy, and the event of its end."""
    if copies is None:
        return features, None
    host = _empty_on_host(features)
    copies.wait_stream(torch.cuda.current_stream(features.device))
    with torch.cuda.stream(copies):
        host.copy_(features, non_blocking=True)
        features.record_stream(copies)
        copied = torch.cuda.Event(blocking=True)  # the writer sleeps until it happens; by default it would spin
        copied.record(copies)
    return host, copied


def _empty_on_host(features: Tensor) -> Tensor:
    """Host memory for features; pinned, so that the copy runs beside the next batch, if there is enough of that."""
    try:
        return torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return torch.empty(features.shape, dtype=features.dtype)
