"""Extraction by whole processes, compared to the byte; memory that runs out."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.features.encoding import Encoding
from benchmarks.rows.provenance import HOME
from registry import BACKBONES
from tools.check_gpu.steps import Wrong, require
from tools.speed.extract_case import make_jpegs

IMAGES, BATCH = 400, 16
LIMIT = 300  # seconds of one process
ROOM = 256 << 20  # bytes that are left free while memory is made to run out


def extraction(device: torch.device) -> dict[str, Any]:
    """Extract twice and, killed once, a third time: the stores are equal to the byte."""
    with _folder() as folder:
        for store in ("one", "other"):
            run(_extract(folder, store, device))
        killed = _killed_once(_extract(folder, "killed", device), folder / "killed")
        for store in ("other", "killed"):
            require(files_of(folder / store) == files_of(folder / "one"), f"the stores one and {store} differ")
        return {"images": IMAGES, "journals at the kill": killed}


def torchrun(device: torch.device) -> dict[str, Any]:
    """Extract under torchrun, with one process and with one per GPU (on a CPU two): the same bytes."""
    many = torch.cuda.device_count() if device.type == "cuda" else 2
    with _folder() as folder:
        run(_extract(folder, "one", device))
        for count in dict.fromkeys((1, many)):
            line = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
            run([*line, *_extract(folder, f"of{count}", device)])
            require(files_of(folder / f"of{count}") == files_of(folder / "one"), f"{count} processes give other bytes")
    return {"processes": f"1 and {many}"}


def memory(device: torch.device) -> dict[str, Any]:
    """Make memory run out in a large batch: smaller ones follow, with the features of a batch that fitted."""
    backbone = BACKBONES.build({"type": "internvit_nano"}).to(device)
    side = backbone.preprocessing.size
    crops = list(np.random.default_rng(0).integers(0, 256, (2048, side, side, 3), dtype=np.uint8))
    crops = crops if device.type == "cuda" else crops[:64]
    encode = Encoding(backbone, device, None, len(crops))
    encode.prepare()
    with _little_memory(device, encode):
        found = encode(crops)
    assert encode.size is not None
    require(encode.size < len(crops), f"a batch of {len(crops)} images fitted, so nothing was checked")
    expected = Encoding(backbone, device, None, encode.size)(crops)
    require(torch.equal(found, expected), "features differ after memory ran out")
    return {"batch": f"{len(crops)} -> {encode.size}"}


def run(line: Sequence[str], limit: float = LIMIT) -> str:
    """Run Python with these arguments; returns what it printed.

    Raises:
        Wrong: it failed, or took longer than `limit` seconds.
    """
    try:
        done = subprocess.run(
            [sys.executable, *line], cwd=HOME, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        raise Wrong(f"{' '.join(line[:4])} takes longer than {limit:g} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing printed"])[-1]
        raise Wrong(f"{' '.join(line[:4])} ended with {done.returncode}: {last}")
    return done.stdout


def files_of(store: Path) -> dict[str, bytes]:
    """Path -> bytes of all files of a store."""
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder with JPEGs in `images`."""
    with tempfile.TemporaryDirectory() as name:
        make_jpegs(Path(name) / "images", IMAGES)
        yield Path(name)


def _extract(folder: Path, store: str, device: torch.device) -> list[str]:
    return [
        "bench.py", "extract", "--images", str(folder / "images"), "--backbone", "internvit_nano",
        "--batch-size", str(BATCH), "--device", device.type, "-o", str(folder / store),
    ]  # fmt: skip


def _killed_once(line: Sequence[str], store: Path) -> int:
    """Kill a run once it has written features, then run it again; returns how many journals the kill left."""
    until = time.monotonic() + LIMIT
    process = subprocess.Popen([sys.executable, *line], cwd=HOME, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and time.monotonic() < until and not _journalled(store):
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    left = len(_journalled(store))
    run(line)
    return left


def _journalled(store: Path) -> list[Path]:
    return [path for path in store.glob(".*.part") if os.path.exists(path) and path.stat().st_size]  # noqa: PTH110


@contextmanager
def _little_memory(device: torch.device, encode: Encoding) -> Iterator[None]:
    """Fill a GPU but for `ROOM`; on a CPU, refuse batches of more than five images."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        held = torch.empty(max(1, torch.cuda.mem_get_info(device)[0] - ROOM), dtype=torch.uint8, device=device)
        yield
        del held
        torch.cuda.empty_cache()
        return
    whole = encode.of_pixels

    def refuse(pixels: torch.Tensor, size: int) -> torch.Tensor:
        if len(pixels) > 5:
            raise torch.OutOfMemoryError("as on a full GPU")
        return whole(pixels, size)

    encode.of_pixels = refuse  # type: ignore[method-assign]
    yield
    encode.of_pixels = whole  # type: ignore[method-assign]
