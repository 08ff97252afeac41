"""Helpers of the extraction tests: trees of pictures, interruptions, and the bytes of a store."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.features.shard import OpenShard
from registry import load_plugin

HOME = Path(__file__).resolve().parents[3]
SLOW = HOME / "tests" / "parts" / "slow_means.py"
load_plugin(SLOW)


def make_crops(root: Path, clips: dict[str, int], seed: int = 0) -> list[str]:
    """Write PNGs of noise, 20 to 30 pixels wide and high; returns their paths relative to `root`, sorted."""
    random = np.random.default_rng(seed)
    images = [f"{clip}/t/{number:03d}.png" for clip, count in clips.items() for number in range(count)]
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        shape = (*random.integers(20, 30, 2), 3)
        Image.fromarray(random.integers(0, 255, shape, dtype=np.uint8)).save(root / image)
    return sorted(images)


def stop_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Interrupt an extraction after some batches of one shard each; returns a growing list of features per batch."""
    add, kept = OpenShard.add, []

    def stop(shard: OpenShard, features: dict, damaged: dict) -> None:
        if len(kept) == batches:
            raise KeyboardInterrupt
        add(shard, features, damaged)
        kept.append(sum(len(images) for images, _ in features.values()))

    monkeypatch.setattr(OpenShard, "add", stop)
    return kept


def files_of(store: Path) -> dict[str, bytes]:
    """Path -> bytes of all files of a store, hidden ones too."""
    found = (path for path in store.rglob("*") if path.is_file())
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in found}


def names_that_differ(one: Path, other: Path) -> Sequence[str]:
    """Paths that exist in one store only, or whose bytes differ."""
    a, b = files_of(one), files_of(other)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
