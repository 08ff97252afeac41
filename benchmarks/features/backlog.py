"""Missing features: what a store lacks of the requested images, in batches, shared among processes."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.features.encoding import Encoding
from benchmarks.features.shard import OpenShard
from benchmarks.features.shard_files import by_shard
from benchmarks.features.store import FeatureStore
from benchmarks.system import interrupts
from benchmarks.system.progress import say

_PATIENCE = 10  # seconds of waiting for other processes before a message


class MissingFeature(NamedTuple):
    """A feature vector to compute."""

    shard: OpenShard
    image: str
    view: str


class Backlog:
    """The features that a store lacks of the requested images.

    Args:
        store: receives the features.
        images: view -> image paths.
        skip_damaged: skip images known to be damaged.
    """

    def __init__(self, store: FeatureStore, images: Mapping[str, Sequence[str]], skip_damaged: bool) -> None:
        self._store = store
        self._skip_damaged = skip_damaged
        self._opened: list[OpenShard] = []
        # shard -> image -> views, so that one decode serves all views
        self._requested: dict[str, dict[str, tuple[str, ...]]] = {}
        for view, of_view in images.items():
            for shard, group in by_shard(dict.fromkeys(of_view)).items():
                requested = self._requested.setdefault(shard, {})
                for image in group:
                    requested[image] = (*requested.get(image, ()), view)

    def shards_for(self, share: tuple[int, int]) -> tuple[list[str], int]:
        """Find the shards for one process to work on.

        Its own share comes first. The shares of the other processes follow in reverse, so that two processes meet only
        at the end.

        Args:
            share: number of the process, and number of processes.

        Returns:
            Incomplete shards in order, and the number of missing features in its own share.
        """
        number, processes = share
        shares = deal({name: sum(map(len, images.values())) for name, images in self._requested.items()}, processes)
        others = [name for later in range(1, processes) for name in reversed(shares[(number + later) % processes])]
        missing = {name: self._missing_count(name, check=True) for name in shares[number]}
        for name in (name for name, count in missing.items() if count):
            self._report_damaged(name)
        expected = sum(missing.values())
        missing |= {name: self._missing_count(name, check=False) for name in others}
        return [name for name, count in missing.items() if count or self._store.is_open(name)], expected

    def batches(self, shards: Sequence[str], encode: Encoding) -> Iterator[list[MissingFeature] | None]:
        """Open one shard after another, and batch its missing features.

        Args:
            shards: from `shards_for`.
            encode: gives the batch size, which may shrink meanwhile.

        Yields:
            A batch, or None while other processes work on the remaining shards; the caller then finishes its batches
            before it asks again.
        """
        batch: list[MissingFeature] = []
        speak_at = time.monotonic() + _PATIENCE
        while shards:
            busy = []
            for name in shards:
                missing = self._open(name)
                if missing is None:
                    busy.append(name)
                    continue
                for feature in missing:
                    batch.append(feature)
                    if len(batch) >= encode.prepare():
                        yield batch
                        batch = []
            if batch:
                yield batch
                batch = []
            if len(busy) < len(shards):
                speak_at = time.monotonic() + _PATIENCE
            else:
                if time.monotonic() > speak_at:
                    say(f"waiting for another process, which is working on {len(busy)} clips of {self._store.folder}")
                    speak_at = float("inf")
                interrupts.check()
                yield None
            shards = busy

    def close(self) -> None:
        """Unlock the shards of an interrupted extraction; their journals stay."""
        for shard in self._opened:
            shard.close()

    def _open(self, name: str) -> list[MissingFeature] | None:
        """Open a shard for its missing features; None while another process works on it."""
        if not self._store.is_open(name) and not self._missing_count(name, check=False):
            return []
        shard = self._store.open(name)
        if shard is None:
            return None
        self._opened.append(shard)
        missing = [
            MissingFeature(shard, image, view)
            for image, views in sorted(self._missing_images(name, check=True).items())
            for view in views
            if not shard.has(view, image, self._skip_damaged)
        ]
        shard.expect(len(missing))
        return missing

    def _missing_count(self, name: str, *, check: bool) -> int:
        return sum(map(len, self._missing_images(name, check=check).values()))

    def _missing_images(self, name: str, *, check: bool) -> dict[str, tuple[str, ...]]:
        """Requested images of a shard -> views that its files lack."""
        requested = self._requested[name]
        present: dict[str, set[str]] = {}
        for view in {view for views in requested.values() for view in views}:
            read_shard = self._store.read_shard(view, name, check=check)
            damaged = read_shard.damaged if read_shard and self._skip_damaged else ()
            present[view] = {*read_shard.keys, *damaged} if read_shard else set()
        missing = {
            image: tuple(view for view in views if image not in present[view]) for image, views in requested.items()
        }
        return {image: views for image, views in missing.items() if views}

    def _report_damaged(self, name: str) -> None:
        for view in {view: None for views in self._requested[name].values() for view in views}:
            path = self._store.path(view, name)
            if path.exists() and self._store.read_shard(view, name, check=False) is None:
                say(f"damaged feature file {path}: rebuilding it")


def deal(sizes: Mapping[str, int], processes: int) -> list[list[str]]:
    """Distribute clips among processes, the largest first, each to the process with the fewest frames.

    Args:
        sizes: clip -> frames.
        processes: number of shares.

    Returns:
        One sorted list of clips per process.

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
