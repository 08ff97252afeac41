"""SynthLAM as shipped: find the archive, verify it, unpack it once into the cache, and describe what is in it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data.cache import cache_folder
from benchmarks.system.locks import locked
from registry import UserError
from zoo import archives
from zoo.files.untrusted import read_json

ARCHIVE = Path(__file__).with_name("synthlam") / "synthlam-1.tar.xz"
MARKER = ".unpacked.json"  # written last: file sizes of a whole copy
SPLITS = ("train", "val", "test")
GAZE_BINS = (0, 3, 6, 9, 12, 18, 25, 40, 180)  # degrees
YAW_BINS = (0, 10, 20, 30, 45, 60, 90, 180)  # degrees
SIZE_BINS = (22, 32, 40, 50, 60, 80, 113)  # pixels, the crop's larger side


@functools.cache
def _record() -> dict[str, Any]:
    path = ARCHIVE.with_suffix("").with_suffix(".json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: the record of the shipped dataset cannot be read ({error}); restore it with git"
        ) from error


def checksum() -> str:
    """The sha256 of the shipped archive, as recorded beside it."""
    return str(_record()["sha256"])


def root() -> Path:
    """The folder of the unpacked dataset, in Ego4D's layout; unpacked first where it is missing or damaged.

    Of several processes that call this at once the first unpacks, and the others wait for it.

    Raises:
        UserError: the archive is missing or not the one recorded, or the cache cannot be written.
    """
    target = cache_folder() / f"synthlam-1-{checksum()[:12]}"
    if not is_whole(target):
        remedy = "set LAMZOO_CACHE to a folder with 60 MB free"
        with locked(target.with_name(f".{target.name}.lock"), str(target), wait=True, remedy=remedy):
            for path in target.parent.glob(f"{target.name}.*"):  # of a process that was killed
                shutil.rmtree(path, ignore_errors=True)
            if not is_whole(target):
                unpack(ARCHIVE, target, checksum())
    return target


def is_whole(folder: Path) -> bool:
    """Whether every file that was unpacked is there with its size."""
    try:
        sizes = read_json(folder / MARKER, "what was unpacked")
    except UserError:
        return False
    if not isinstance(sizes, dict):
        return False
    found: dict[str, int] = {}
    queue = [""]
    while queue:  # one listing a folder: a tenth of the time of a call for each of ten thousand files
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
    """Unpack a verified archive to `target`, whole or not at all; a damaged `target` is replaced.

    Raises:
        UserError: the archive is missing, is not the one with this sha256 or holds a path that leads outside; or the
            folder cannot be written.
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
        archives.unpack(archive, scratch)
        sizes = {p.relative_to(scratch).as_posix(): p.stat().st_size for p in sorted(scratch.rglob("*")) if p.is_file()}
        (scratch / MARKER).write_text(json.dumps(sizes), encoding="utf-8")
        scratch.chmod(0o755)  # mkdtemp makes private folders
        _swap(scratch, target)
    except UserError as error:
        raise UserError(f"{error}; restore it with git") from error
    except OSError as error:
        raise UserError(
            f"{target.parent}: cannot unpack the dataset there ({error.strerror or error}); "
            "set LAMZOO_CACHE to a folder with 60 MB free"
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _swap(scratch: Path, target: Path) -> None:
    """Put `scratch` in the place of `target`, unless another process has put a whole copy there meanwhile."""
    for _ in range(10):
        try:
            scratch.replace(target)
            return
        except OSError:
            if is_whole(target):
                return
            # What is there is damaged: move it away in one step, so that nobody reads half of it.
            away = Path(tempfile.mkdtemp(prefix=target.name + ".old.", dir=target.parent))
            with contextlib.suppress(OSError):
                target.replace(away / "old")
                if is_whole(away / "old"):  # another process has mended it in this very moment: put it back
                    (away / "old").replace(target)
            shutil.rmtree(away, ignore_errors=True)
    scratch.replace(target)


def truth(folder: Path) -> pd.DataFrame:
    """What the renderer knows of every crop: identity, angles in degrees, distance in metres, label.

    Columns: split, clip, track, frame, person, identity, image, width, height (pixels), label, gaze_angle (between the
    gaze and the line to the camera), gaze_yaw, gaze_pitch, head_yaw, head_pitch, head_roll (relative to that line; the
    head's with the camera's roll), eye_yaw, eye_pitch (in the head), blink (0 open, 1 shut), distance, occluded,
    motion (pixels of blur).
    """
    text = dict.fromkeys(("split", "clip", "track", "person", "identity", "image"), str)
    return pd.read_csv(folder / "truth.csv", dtype=text)


def statistics(folder: Path) -> dict[str, dict[str, Any]]:
    """What the data card says of each split, from the files in `folder`.

    Returns:
        For each split: counts of clips, tracks, people (identities), crops, rows (the reader's, absent frames
        included), the share of looking rows, looks (runs of looking frames) and their median length, gaps (runs of
        frames without a crop inside a track) and their median length, crop sizes, histograms as shares, and the
        figures that the true angles alone reach against the annotators' labels.
    """
    from benchmarks.data.ego4d import read_split
    from benchmarks.evaluation.metrics import lam_map

    known = truth(folder)
    out: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        rows = read_split(folder, split)
        crops = known[known.split == split]
        side = crops[["width", "height"]].max(axis=1)
        gaps = [int(g) - 1 for _, track in crops.groupby("track") for g in np.diff(track.frame) if g > 1]
        looks = []
        for _, track in rows.groupby(["clip", "track"]):
            change = np.flatnonzero(np.diff(np.concatenate([[0], track.label, [0]])))
            looks += (change[1::2] - change[::2]).tolist()

        def shares(values: pd.Series, bins: tuple[int, ...], count: int = len(crops)) -> list[float]:
            return (np.histogram(values, bins)[0] / count).round(4).tolist()

        at_camera = lam_map(1 - crops.gaze_angle.to_numpy() / 180, crops.label.to_numpy())
        facing = lam_map(1 - np.hypot(crops.head_yaw, crops.head_pitch).to_numpy() / 360, crops.label.to_numpy())
        out[split] = dict(
            clips=int(rows["clip"].nunique()),
            tracks=int(rows.groupby("clip").track.nunique().sum()),
            identities=int(crops.identity.nunique()),
            crops=len(crops),
            rows=len(rows),
            rows_without_crop=int((rows.image == "").sum()),
            positive_rate=round(float(rows.label.mean()), 4),
            positive_rate_of_crops=round(float(crops.label.mean()), 4),
            looks=len(looks),
            look_median=float(np.median(looks)),
            gaps=len(gaps),
            gap_median=float(np.median(gaps)),
            gap_longest=max(gaps),
            side_percentiles=[float(p) for p in np.percentile(side, [5, 25, 50, 75, 95])],
            gaze_angle=shares(crops.gaze_angle, GAZE_BINS),
            head_yaw=shares(crops.head_yaw.abs(), YAW_BINS),
            crop_side=shares(side, SIZE_BINS),
            blinking=round(float((crops.blink > 0.5).mean()), 4),
            occluded=round(float(crops.occluded.mean()), 4),
            true_gaze=[at_camera.map, at_camera.ap_looking, at_camera.ap_not_looking],
            true_head_pose=[facing.map, facing.ap_looking, facing.ap_not_looking],
        )
    return out
