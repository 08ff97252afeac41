"""Frames to features: a frozen backbone runs once a frame and view, and a store remembers it.

Crops are decoded side by side; on a CPU each worker resizes and encodes its own batch on one core, on a GPU one stream
of batches is fed by decoding ahead and emptied by a writer. A batch takes what is lacking as it comes, across clips and
views: an encoder gives a picture the same bits in any company, so they depend neither on interruptions nor on how many
processes share the work.
"""

from __future__ import annotations

import datetime
import functools
import heapq
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from backbones.base import Backbone, Preprocessing
from backbones.encoding import dtype_of
from benchmarks import interrupts
from benchmarks.data.pictures import MAX_PIXELS, is_of_machine, open_picture
from benchmarks.progress import Progress, say
from benchmarks.shortage import is_out_of_memory
from benchmarks.store import FeatureStore, OpenShard, by_shard
from registry import UserError
from zoo.inputs import below

CPU_BATCH = 16  # images; the passes that encoders make on a CPU divide it
_FIRST_GUESS, _LARGEST = 16, 512  # images a pass on a GPU
_PATIENCE = 10  # seconds of waiting for others before a word of it
_WORTH = 1.01  # what a batch of twice the size has to bring


_T = TypeVar("_T")


class DamagedImageError(UserError):
    """A crop that cannot be decoded; `image` is its path relative to the images' root."""

    def __init__(self, path: Path, image: str, reason: str) -> None:
        super().__init__(f"damaged crop {path}: {reason}; repair or delete it, or go on without it: --skip-damaged")
        self.image = image


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


class Item(NamedTuple):
    """One feature vector to be computed."""

    shard: OpenShard
    image: str
    view: str


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
            loop = _pipelined if device.type == "cuda" else _in_threads
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


class Encoding:
    """A backbone's encoder that knows how many images it takes at once, and takes fewer when memory runs out.

    Args:
        backbone: whose.
        device: where.
        dtype: what it computes in; None for the dtype of the weights.
        size: images at once; None to find out.
    """

    def __init__(self, backbone: Backbone, device: torch.device, dtype: str | None, size: int | None) -> None:
        self._full = device.type == "cuda"
        if size is None:
            size = find_batch_size(backbone, device, dtype) if self._full else CPU_BATCH
        self.size = size
        self._encode = backbone.encoder(device, dtype)
        # What one image takes, and what the device does a second at most.
        self._work = (flops_of(backbone), measured_flops(device)) if self._full else None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Features (B, D) of uint8 (B, size, size, 3), in as many steps as memory asks for.

        Raises:
            UserError: not even one image fits.
        """
        while True:
            size = self.size
            try:
                return torch.cat([self._of_part(part, size) for part in pixels.split(size)])
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise UserError("the device has too little memory for one image; use a smaller backbone") from error
            if self._full:
                torch.cuda.empty_cache()
            self.size = max(1, min(size, len(pixels)) // 2)
            say(f"out of memory with {min(size, len(pixels))} images at once; going on with {self.size}")

    def note(self, rate: float | None) -> str:
        """What the progress says of the rate (images/s): its share of what the GPU can do."""
        return f"{self._work[0] * rate / self._work[1]:.0%} of peak" if self._work and rate else ""

    def _of_part(self, pixels: Tensor, size: int) -> Tensor:
        """A GPU is given batches of one size only: its results depend on it."""
        count = len(pixels)
        if self._full and count < size:
            pixels = torch.cat([pixels, pixels.new_zeros(size - count, *pixels.shape[1:])])
        return self._encode(pixels)[:count]


def find_batch_size(backbone: Backbone, device: torch.device, dtype: str | None) -> int:
    """Double the batch while that brings more images a second and memory lasts, or halve it until it fits."""
    # An encoder of its own: what that keeps of the largest batch goes with it.
    rate = functools.partial(_rate, backbone.encoder(device, dtype), backbone.preprocessing.size, device)
    size, best = _FIRST_GUESS, rate(_FIRST_GUESS)
    while not best and size > 1:
        size //= 2
        best = rate(size)
    while _FIRST_GUESS <= size < _LARGEST:
        doubled = rate(2 * size)
        if doubled < _WORTH * best:
            break
        size, best = 2 * size, doubled
    del rate
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return size


def _rate(encode: Callable[[Tensor], Tensor], side: int, device: torch.device, size: int) -> float:
    """Images a second in batches of `size`; 0 where memory runs out."""
    try:
        pixels = torch.zeros(size, side, side, 3, dtype=torch.uint8, device=device)
        encode(pixels)  # compiles, records, allocates
        _synchronize(device)
        started = time.perf_counter()
        encode(pixels)
        _synchronize(device)
        return size / (time.perf_counter() - started)
    except torch.OutOfMemoryError:
        return 0.0


def flops_of(backbone: Backbone) -> int:
    """Operations that a backbone takes for one image: two for each multiplication of its matrix products."""
    side = backbone.preprocessing.size
    first = next(backbone.parameters())
    pixels = torch.zeros(1, 3, side, side, dtype=first.dtype, device=first.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(pixels)
    return counter.get_total_flops()


def measured_flops(device: torch.device) -> float:
    """Operations a second of a bfloat16 product of 8192 x 8192 matrices: what the device can do at most."""
    a = torch.randn(8192, 8192, dtype=torch.bfloat16, device=device)
    a @ a
    _synchronize(device)
    started = time.perf_counter()
    for _ in range(10):
        a @ a
    _synchronize(device)
    return 10 * 2 * 8192**3 / (time.perf_counter() - started)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def decode(root: Path, image: str, *, preprocessing: Preprocessing, resized: bool = True) -> np.ndarray:
    """Decode one crop as RGB: what Pillow's `convert("RGB")` makes of grey, CMYK, palettes and alpha, as it is stored.

    Args:
        root: the images' root.
        image: path relative to it.
        preprocessing: of the backbone.
        resized: resize and cut it too; otherwise only an image that is much larger than the result is resized.

    Returns:
        uint8 (size, size, 3), or (H, W, 3) of the crop as it is.

    Raises:
        DamagedImageError: it cannot be decoded, or is too large.
        UserError: it does not exist.
    """
    path = below(root, image, "an image of a frame table")
    try:
        with open_picture(path) as opened:
            (short, long), area = sorted(opened.size), opened.width * opened.height
            if preprocessing.resize**2 * long / short > MAX_PIXELS:
                raise ValueError(f"{opened.width} x {opened.height} pixels: resized, more than {MAX_PIXELS:,}")
            if resized or area > 4 * preprocessing.resize**2:
                return preprocessing.resize_crop(opened)
            return np.asarray(opened.convert("RGB"))
    except FileNotFoundError as error:
        if not path.is_symlink():
            raise UserError(f"crop {path} does not exist; prepare the data again") from error
        raise DamagedImageError(path, image, "a link to a file that does not exist") from error
    except Exception as error:  # Pillow's decoders raise anything
        if is_of_machine(error):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = " ".join(reason.replace(str(path), "").split()) or type(error).__name__
        raise DamagedImageError(path, image, reason) from error


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
) -> Iterator[list[Item] | None]:
    """What is to be computed, a shard opened at a time. None: others work on the rest; finish yours, then ask again."""
    batch: list[Item] = []
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
                Item(shard, image, view)
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


def _in_threads(
    encode: Encoding,
    preprocessing: Preprocessing,
    root: Path,
    batches: Iterator[list[Item] | None],
    device: torch.device,
    skip_damaged: bool,
) -> Generator[tuple[int, int], None, None]:
    """Work on batches side by side; yield of each, when it is kept, how many are encoded and how many damaged.

    On a CPU each worker decodes and computes on one core: threads inside an operation wait for each other at its end,
    and for the one that decodes.
    """

    def work(batch: list[Item]) -> tuple[int, int]:
        crops: dict[str, np.ndarray | None] = {}
        for image in dict.fromkeys(item.image for item in batch):
            crops[image] = _or_none(functools.partial(decode, root, image, preprocessing=preprocessing), skip_damaged)
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


def _pipelined(
    encode: Encoding,
    preprocessing: Preprocessing,
    root: Path,
    batches: Iterator[list[Item] | None],
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
    decoding: deque[tuple[list[Item], dict[str, Future[np.ndarray]]]] = deque()
    keeping: deque[Future[tuple[int, int]]] = deque()

    def launch() -> None:
        batch, futures = decoding.popleft()
        crops = {image: _or_none(future.result, skip_damaged) for image, future in futures.items()}
        resized = _resize_on(device, crops, preprocessing)
        sound = [pixels.flip(1) if item.view == "flipped" else pixels for item, pixels in _with(batch, resized)]
        features, copied = _to_host(encode(torch.stack(sound)), copies) if sound else (torch.empty(0), None)
        keeping.append(writer.submit(keep, batch, crops, features, copied))

    def keep(batch: list[Item], crops: dict[str, np.ndarray | None], features: Tensor, copied: Any) -> tuple[int, int]:
        if copied is not None:
            copied.synchronize()
        return _keep(batch, crops, features)

    try:
        for batch in batches:
            if batch is not None:
                images = dict.fromkeys(item.image for item in batch)
                decode_one = functools.partial(decode, root, preprocessing=preprocessing, resized=False)
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


def _with(batch: Sequence[Item], crops: Mapping[str, _T | None]) -> list[tuple[Item, _T]]:
    """The items of a batch whose crop is sound, with it."""
    found = ((item, crops.get(item.image)) for item in batch)
    return [(item, crop) for item, crop in found if crop is not None]


def _keep(batch: Sequence[Item], crops: Mapping[str, np.ndarray | None], features: Tensor) -> tuple[int, int]:
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
