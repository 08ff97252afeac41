"""Feature stores."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from tests.fuzz.harness import Kind
from tests.fuzz.made import lay, once
from tests.fuzz.values import file_of, spoilt_bytes, spoilt_json

FINGERPRINT = {"architecture": "a", "dtype": "float32"}
IMAGES = [f"c{clip}/t/{frame:05d}.jpg" for clip in range(2) for frame in range(3)]


@once
def store_files(folder: Path) -> None:
    from benchmarks.features.store import FeatureStore

    store = FeatureStore(folder, FINGERPRINT)
    store.create(4)
    for shard in ("c0", "c1"):
        rows = {
            image: np.full(4, number, np.float32).view(np.uint8)
            for number, image in enumerate(IMAGES)
            if shard in image
        }
        store.write("original", shard, rows, [], "F32")
    store.finish()
    shard = store.open("c1")
    assert shard is not None
    shard.expect(9)
    shard.add({"flipped": (IMAGES[3:], torch.ones(3, 4))}, {"flipped": ["c1/t/lost.jpg"]})
    shard.close()


@st.composite
def store_folder(draw: st.DrawFn) -> dict[str, Any]:
    files: dict[str, Any] = {name: content for name, content in store_files().items() if not name.startswith("..")}
    name = draw(st.sampled_from([name for name in files if not name.endswith(".lock")]))
    how = draw(st.sampled_from(["bytes", "file", "json"]))
    if how == "json" and name == "manifest.json":
        files[name] = draw(spoilt_json(json.loads(files[name])))
    elif how == "json" and name.endswith(".safetensors"):
        files[name] = draw(spoilt_shard(files[name]))
    elif how == "json":
        files[name] = draw(spoilt_journal(files[name]))
    else:
        files[name] = draw(spoilt_bytes(files[name]) if how == "bytes" else file_of(st.just(files[name])))
    return files


@st.composite
def spoilt_shard(draw: st.DrawFn, whole: bytes) -> bytes:
    """A shard with a spoilt header and the right checksum."""
    length = int.from_bytes(whole[:8], "little")
    text = draw(spoilt_json(json.loads(whole[8 : 8 + length])))
    data = whole[8 + length :]
    try:
        header = json.loads(text)
        header["__metadata__"]["crc32"] = "0" * 8
        from benchmarks.features.shard_files import encode_header

        crc = zlib.crc32(data, zlib.crc32(encode_header(header)))
        header["__metadata__"]["crc32"] = f"{crc:08x}"
        return encode_header(header) + data
    except (ValueError, KeyError, TypeError, RecursionError):
        return len(text).to_bytes(8, "little") + text + data


@st.composite
def spoilt_journal(draw: st.DrawFn, whole: bytes) -> bytes:
    """A journal with a spoilt first record and the right checksum."""
    line, _, rest = whole.partition(b"\n")
    text = draw(spoilt_json(json.loads(line))).replace(b"\n", b" ") + b"\n"
    data = rest[: json.loads(line)["bytes"]]
    return text + data + zlib.crc32(data, zlib.crc32(text)).to_bytes(4, "little")


def use_store(folder: Path, case: object) -> None:
    from benchmarks.features.store import FeatureStore

    store = FeatureStore(folder / "store", FINGERPRINT)
    store.create(4)
    store.read_shard("original", "c0")
    shard = store.open("c1")
    if shard is not None:
        shard.has("flipped", IMAGES[3])
        shard.expect(0)
    store.finish()
    _ = store.damaged, store.seconds
    store.read("original", IMAGES)


KINDS = (Kind("feature store", store_folder(), lambda folder, case: lay(folder / "store", case), use_store),)
