"""The shipped SynthLAM archive: verified, unpacked once into the cache, and its ground truth."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import lzma
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data.cache import cache_folder
from benchmarks.data.csv_fields import read_csv
from benchmarks.data.frames import KEY
from benchmarks.system.locks import locked
from registry import UserError
from zoo.files.untrusted import read_bytes, read_json

ARCHIVE = Path(__file__).with_name("synthlam") / "synthlam-2.tar.xz"
REMEDY = "set LAMZOO_CACHE to a folder with 350 MB free"
MARKER = ".unpacked.json"  # written last; holds the file sizes of a complete copy


@functools.cache
def shipped_record() -> dict[str, Any]:
    """Returns the record beside the shipped archive: its sha256, size and origin."""
    path = ARCHIVE.with_suffix("").with_suffix(".json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: the record of the shipped dataset cannot be read ({error}); restore it with git"
        ) from error


def checksum() -> str:
    """Returns the sha256 of the shipped archive, as recorded beside it."""
    return str(shipped_record()["sha256"])


def unpacked() -> Path:
    """Returns the folder of the cache that holds the data set once it is unpacked."""
    return cache_folder() / f"{ARCHIVE.name.partition('.')[0]}-{checksum()[:12]}"


def root() -> Path:
    """Returns the folder of the unpacked data set, in Ego4D's layout; unpacks it if it is missing or damaged.

    If several processes call this at once, the first unpacks and the others wait.

    Raises:
        UserError: the archive is missing or fails its checksum, or the cache cannot be written.
    """
    target = unpacked()
    if not is_whole(target):
        with locked(target.with_name(f".{target.name}.lock"), str(target), wait=True, remedy=REMEDY):
            for path in target.parent.glob(f"{target.name}.*"):  # left by a killed process
                shutil.rmtree(path, ignore_errors=True)
            if not is_whole(target):
                unpack(ARCHIVE, target, checksum())
    return target


def is_whole(folder: Path) -> bool:
    """Whether every unpacked file exists with the recorded size."""
    try:
        sizes = read_json(folder / MARKER, "the list of unpacked files")
    except UserError:
        return False
    if not isinstance(sizes, dict):
        return False
    found: dict[str, int] = {}
    queue = [""]
    while queue:  # one listing per folder takes a tenth of the time of ten thousand stat calls
        name = queue.pop()
        try:
            with os.scandir(folder / name) as entries:
                for entry in entries:
                    path = f"{name}/{entry.name}" if name else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        queue.append(path)
                    elif path in sizes:
                        found[path] = entry.stat().st_size
        except OSError:
            return False
    return found == sizes


def unpack(archive: Path, target: Path, sha256: str) -> None:
    """Verifies an archive and unpacks it atomically to `target`, replacing a damaged copy.

    Raises:
        UserError: the archive is missing, fails its checksum or holds a path outside `target`, or the folder cannot be
            written.
    """
    try:
        content = archive.read_bytes()
    except OSError as error:
        raise UserError(f"{archive}: cannot be read ({error.strerror}); restore it with git") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{archive}: not the recorded archive (sha256 differs); restore it with git")
    scratch: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=target.name + ".", dir=target.parent))
        sizes = _extract(lzma.decompress(content), scratch)
        (scratch / MARKER).write_text(json.dumps(sizes), encoding="utf-8")
        scratch.chmod(0o755)  # mkdtemp creates private folders
        _swap(scratch, target)
    except (tarfile.TarError, lzma.LZMAError) as error:
        raise UserError(f"{archive}: cannot be unpacked ({error}); restore it with git") from error
    except OSError as error:
        raise UserError(
            f"{target.parent}: cannot unpack the dataset there ({error.strerror or error}); {REMEDY}"
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _extract(content: bytes, folder: Path) -> dict[str, int]:
    """Writes the files of an uncompressed tar; returns path -> size. Seventy thousand take `extractall` 20 seconds.

    Raises:
        tarfile.TarError: a member is no file, or its path leads outside.
    """
    sizes: dict[str, int] = {}
    folders: set[Path] = set()
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        for member in tar:
            if not member.isreg() or member.name.startswith("/") or ".." in member.name.split("/"):
                raise tarfile.TarError(f"{member.name}: not a file below the folder")
            path = folder / member.name
            if path.parent not in folders:
                path.parent.mkdir(parents=True, exist_ok=True)
                folders.add(path.parent)
            path.write_bytes(memoryview(content)[member.offset_data : member.offset_data + member.size])
            sizes[member.name] = member.size
    return sizes


def _swap(scratch: Path, target: Path) -> None:
    """Moves `scratch` to `target`, unless another process has put a complete copy there meanwhile."""
    for _ in range(10):
        try:
            scratch.replace(target)
            return
        except OSError:
            if is_whole(target):
                return
            # The existing copy is damaged: move it away in one step, so that no process reads half of it.
            away = Path(tempfile.mkdtemp(prefix=target.name + ".old.", dir=target.parent))
            with contextlib.suppress(OSError):
                target.replace(away / "old")
                if is_whole(away / "old"):  # another process has just repaired it: put it back
                    (away / "old").replace(target)
            shutil.rmtree(away, ignore_errors=True)
    scratch.replace(target)


def truth(folder: Path) -> pd.DataFrame:
    """Returns the ground truth of every crop: identity, angles in degrees, distance in metres, label.

    Columns: split, clip, track, frame, person, identity, image, width, height (pixels), label, gaze_angle (between the
    gaze and the line to the camera), gaze_yaw, gaze_pitch, head_yaw, head_pitch, head_roll (relative to that line; the
    head's with the camera's roll), eye_yaw, eye_pitch (in the head), blink (0 open, 1 shut), distance, occluded,
    motion (pixels of blur).

    Raises:
        UserError: the file is missing or broken, or has a frame twice.
    """
    path = folder / "truth.csv"
    text = dict.fromkeys(("split", "clip", "track", "person", "identity", "image"), str)
    try:
        table = read_csv(read_bytes(path, "the ground truth"), dtype={**text, "frame": np.int64, "gaze_angle": float})
        missing = [name for name in (*KEY, "gaze_angle") if name not in table]
        if missing:
            raise ValueError(f"no column {', '.join(missing)}")
        if table.duplicated(KEY).any():
            raise ValueError("a frame of a track is listed twice")
    except ValueError as error:
        raise UserError(f"{path}: not SynthLAM's ground truth ({error})") from error
    return table
