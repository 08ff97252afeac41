"""The files of a store: safetensors' own reader, damage to every byte, locks, full disks."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from benchmarks.features.store import FeatureStore
from registry import UserError

KEYS = ["c/t/2.png", "c/t/10.png", "c/t/1 ü\n.png"]


def new_store(folder: Path, dim: int = 4, **fingerprint: str) -> FeatureStore:
    store = FeatureStore(folder, {"weights": "w", **fingerprint})
    store.create(dim)
    return store


def add(store: FeatureStore, keys: list[str], features: torch.Tensor, view: str = "original") -> None:
    shard = store.open("c")
    assert shard is not None
    shard.expect(len(keys))
    shard.add({view: (keys, features)}, {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_safetensors_reads_the_files(tmp_path: Path, dtype: torch.dtype) -> None:
    features = torch.randn(3, 4).to(dtype)
    add(new_store(tmp_path), KEYS, features)
    with safe_open(tmp_path / "original" / "c.safetensors", "pt") as file:
        keys = json.loads(file.metadata()["keys"])
        assert keys == sorted(KEYS)
        assert torch.equal(file.get_tensor("features"), features[[KEYS.index(key) for key in keys]])
    assert torch.equal(FeatureStore(tmp_path, {"weights": "w"}).read("original", KEYS), features)


def test_overhead_is_at_most_fifty_bytes_per_frame(tmp_path: Path) -> None:
    """3,200 numbers in bfloat16 are 6,400 bytes; names as short as SynthLAM's leave room in 6,450."""
    keys = [f"c/t0/face_{number:05d}.jpg" for number in range(500)]
    add(new_store(tmp_path, 3200), keys, torch.zeros(500, 3200, dtype=torch.bfloat16))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) / 500 <= 6450


def test_bytes_do_not_depend_on_the_order_of_extraction(tmp_path: Path) -> None:
    features = torch.randn(3, 4)
    for name, order in (("one", [0, 1, 2]), ("other", [2, 0, 1])):
        add(new_store(tmp_path / name), [KEYS[row] for row in order], features[order])
    for row in (1, 0, 2):  # one at a time, each joining those that are there
        add(new_store(tmp_path / "grown"), [KEYS[row]], features[[row]])
    of = [(tmp_path / name / "original" / "c.safetensors").read_bytes() for name in ("one", "other", "grown")]
    assert of[0] == of[1] == of[2]


def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path) -> None:
    add(new_store(tmp_path), KEYS, torch.randn(3, 4))
    path = tmp_path / "original" / "c.safetensors"
    sound = path.read_bytes()
    random = np.random.default_rng(0)
    flipped = [(place, bytes([sound[place] ^ 1 << int(random.integers(8))])) for place in range(len(sound))]
    damaged = [sound[:place] + byte + sound[place + 1 :] for place, byte in flipped]
    damaged += [sound[:length] for length in range(len(sound))] + [sound + b"\0"]
    for bytes_ in damaged:
        path.write_bytes(bytes_)
        store = FeatureStore(tmp_path, {"weights": "w"})
        assert store.read_shard("original", "c") is None
        with pytest.raises(UserError, match=r"damaged feature file .*c\.safetensors"):
            store.read("original", KEYS)
    path.write_bytes(sound)
    assert FeatureStore(tmp_path, {"weights": "w"}).read_shard("original", "c") is not None


def test_features_of_another_fingerprint_never_mix(tmp_path: Path) -> None:
    add(new_store(tmp_path / "exact"), KEYS, torch.randn(3, 4))
    with pytest.raises(UserError, match="of another backbone, weights, preprocessing or dtype"):
        FeatureStore(tmp_path / "exact", {"weights": "w", "dtype": "bfloat16"})
    # Not where the manifest is gone either, nor where a file was carried from one store to another.
    (tmp_path / "exact" / "manifest.json").unlink()
    with pytest.raises(UserError, match="of another backbone"):
        new_store(tmp_path / "exact", dtype="bfloat16")
    assert len(new_store(tmp_path / "exact").read("original", KEYS)) == 3
    store = new_store(tmp_path / "rounded", dtype="bfloat16")
    shutil.copytree(tmp_path / "exact" / "original", tmp_path / "rounded" / "original")
    with pytest.raises(UserError, match="of another backbone"):
        store.read("original", KEYS)


def test_feature_files_of_others_are_left_alone(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "original").mkdir()
    save_file({"features": torch.zeros(1, 4)}, tmp_path / "original" / "c.safetensors", {"keys": '["c/1.png"]'})
    with pytest.raises(UserError, match=r"c\.safetensors but no manifest"):
        new_store(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', "nothing"])
def test_an_invalid_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json is not the manifest of a feature store"):
        new_store(tmp_path)


def test_an_older_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 1, "fingerprint": {}}')
    with pytest.raises(UserError, match="format 1, not 2; delete it"):
        new_store(tmp_path)


def test_only_one_process_at_a_time_opens_a_shard(tmp_path: Path) -> None:
    store, other = new_store(tmp_path), new_store(tmp_path)
    shard = store.open("c")
    assert shard is not None
    assert other.open("c") is None
    shard.close()
    again = other.open("c")
    assert again is not None
    again.close()
    assert not (tmp_path / ".c.part").exists()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        kept = store.open("c")
        os.write(writing, b"!" if kept else b"?")
        os.read(os.pipe()[0], 1)  # for ever
    os.read(reading, 1)
    assert store.open("c") is None
    os.kill(child, 9)
    os.waitpid(child, 0)
    shard = store.open("c")
    assert shard is not None
    shard.close()


def test_a_full_disk_is_reported_and_finished_batches_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store(tmp_path)
    shard = store.open("c")
    assert shard is not None
    shard.expect(3)
    shard.add({"original": (KEYS[:1], torch.ones(1, 4))}, {})
    write = os.pwrite

    def half(descriptor: int, data: bytes, at: int) -> int:
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) // 2], at)

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(UserError, match="no space left"):
        shard.add({"original": (KEYS[1:], torch.ones(2, 4))}, {})
    monkeypatch.setattr(os, "pwrite", write)
    shard.close()
    again = store.open("c")
    assert again is not None
    assert [again.has("original", key) for key in KEYS] == [True, False, False]
    again.expect(0)
    kept = store.read_shard("original", "c")
    assert kept is not None
    assert kept.keys == KEYS[:1]


def test_reading_many_is_a_gather(tmp_path: Path) -> None:
    """Across shards, in any order, with repeats."""
    store = new_store(tmp_path)
    features = {}
    for clip in "abc":
        shard = store.open(clip)
        assert shard is not None
        shard.expect(50)
        keys = [f"{clip}/{number}.png" for number in range(50)]
        tensor = torch.randn(50, 4)
        shard.add({"original": (keys, tensor)}, {})
        features |= dict(zip(keys, tensor, strict=True))
    wanted = list(np.random.default_rng(0).choice(list(features), 400))
    assert torch.equal(store.read("original", wanted), torch.stack([features[key] for key in wanted]))
    assert store.read("original", []).numel() == 0
    with pytest.raises(UserError, match=r"no original features of b/99.png \(and 1 more of b\)"):
        store.read("original", ["a/1.png", "b/99.png", "b/98.png"])
