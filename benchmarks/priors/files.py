"""Priors from JSON files, written by an estimator's tools or shipped with SynthLAM."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.priors.base import Prior, Priors
from registry import PRIORS, UserError
from zoo.files.untrusted import read_bytes, read_json

POSE_FORM = "'clip:track:frame' -> [yaw, pitch, roll] in degrees"
LANDMARK_FORM = "clip -> track -> frame -> five [x, y, z, visibility] in units of the crop"


class FromFiles(Prior):
    """Priors from two JSON files, each read once."""

    #: Whether a file without any of the requested frames is an error.
    must_match = True

    def files(self) -> tuple[Path, Path]:
        """Paths of the files of head poses and of landmarks."""
        raise NotImplementedError

    @functools.cached_property
    def _content(self) -> tuple[tuple[pd.Index, np.ndarray], tuple[pd.Index, np.ndarray]]:
        pose, landmarks = self.files()
        return read_head_pose(pose), read_landmarks(landmarks)

    def read(self, frames: pd.DataFrame) -> Priors:
        """Look up the rows; rows missing from a file are unknown.

        Raises:
            UserError: a file is missing, broken or in another format, or has none of these frames.
        """
        keys = frames["clip"] + ":" + frames["track"] + ":" + frames["frame"].astype(str)
        found = []
        for path, (index, values) in zip(self.files(), self._content, strict=True):
            at = index.get_indexer(pd.Index(keys))
            if self.must_match and len(keys) and not (at >= 0).any():
                has = f"such as {index[0]}" if len(index) else "it is empty"
                raise UserError(f"{path}: has none of the {len(keys)} frames requested, such as {keys.iloc[0]} ({has})")
            answer = np.full((len(keys), *values.shape[1:]), np.nan, dtype=np.float32)
            answer[at >= 0] = values[at[at >= 0]]
            found.append(answer)
        return Priors(found[0], _relative(found[1]))

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of both files."""
        return {
            name: hashlib.sha256(read_bytes(path, "priors")).hexdigest()
            for name, path in zip(("head_pose", "landmarks"), self.files(), strict=True)
        }


@PRIORS.register_module(name="file")
class File(FromFiles):
    """JSON files as written by the estimators' tools.

    Args:
        root: of the data set; the files may be elsewhere.
        cache: not used.
        head_pose: path of a file `'clip:track:frame' -> [yaw, pitch, roll]`, degrees.
        landmarks: path of a file `clip -> track -> frame -> five [x, y, z, visibility]`, units of the crop: left eye,
            right eye, nose, left and right corner of the mouth.
    """

    how = "your own files, with head_pose=FILE and landmarks=FILE"

    def __init__(self, root: Path, cache: Path, head_pose: str, landmarks: str) -> None:
        super().__init__(root, cache)
        self._files = Path(head_pose), Path(landmarks)

    def files(self) -> tuple[Path, Path]:
        return self._files


@PRIORS.register_module(name="synthlam")
class SynthLAM(FromFiles):
    """SynthLAM's priors: the true angles and points with an estimator's errors.

    Args:
        root: of SynthLAM, with `priors/head_pose.json` and `priors/landmarks.json`.
        cache: not used.
    """

    how = "shipped with SynthLAM, for that data set only"

    def files(self) -> tuple[Path, Path]:
        folder = self.root / "priors"
        if not folder.is_dir():
            raise UserError(
                f"{folder}: no such folder; only SynthLAM ships priors; for other crops use face_mesh, which computes "
                "them, or file"
            )
        return folder / "head_pose.json", folder / "landmarks.json"


def read_head_pose(path: Path) -> tuple[pd.Index, np.ndarray]:
    """Read a file of head poses, skipping entries of null.

    Returns:
        Keys `clip:track:frame`, and yaw, pitch, roll ``(K, 3)`` float32, NaN for numbers that are not finite.

    Raises:
        UserError: the file is missing, broken or in another format; names the key.
    """
    content = read_json(path, "head poses")
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected {POSE_FORM}, found {_kind(content)}")
    entries = {_key(path, *_split(path, key)): pose for key, pose in content.items() if pose is not None}
    return pd.Index(list(entries), dtype=object), _numbers(path, entries, (3,), "[yaw, pitch, roll]")


def read_landmarks(path: Path) -> tuple[pd.Index, np.ndarray]:
    """Read a file of landmarks, skipping entries of null.

    Returns:
        Keys `clip:track:frame`, and ``(K, 5, 3)`` float32: x and y in units of the crop, and visibility.

    Raises:
        UserError: the file is missing, broken, in another format (names the key), or in pixels.
    """
    entries = {}
    for clip, tracks in _items(path, read_json(path, "landmarks"), ""):
        for track, of_track in _items(path, tracks, clip):
            for frame, points in _items(path, of_track, f"{clip}:{track}"):
                if points is not None:
                    entries[_key(path, clip, track, frame)] = points
    points = _numbers(path, entries, (5, 4), "five [x, y, z, visibility]")
    at = points[..., :2]
    known = np.isfinite(at)
    if known.any() and np.mean((at[known] < -1) | (at[known] > 2)) > 0.5:
        raise UserError(f"{path}: most points lie far outside of their crop; x and y must be in units of the crop, 0-1")
    return pd.Index(list(entries), dtype=object), points[..., [0, 1, 3]]


def _relative(points: np.ndarray) -> np.ndarray:
    """Move the origin of x and y to the mid-point of the eyes, and clip confidences to [0, 1]."""
    points[..., :2] -= points[:, :2, :2].mean(axis=1, keepdims=True)
    unknown = ~np.isfinite(points).all(axis=-1)
    points[unknown] = [np.nan, np.nan, 0]
    points[..., 2] = points[..., 2].clip(0, 1)
    return points


def _items(path: Path, value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        at = f" at {where}" if where else ""
        raise UserError(f"{path}: expected {LANDMARK_FORM}, found {_kind(value)}{at}")
    yield from value.items()


def _split(path: Path, key: str) -> tuple[str, str, str]:
    parts = key.rsplit(":", 2)
    if len(parts) != 3:
        raise UserError(f"{path}: key '{key}' is not clip:track:frame")
    return parts[0], parts[1], parts[2]


def _key(path: Path, clip: str, track: str, frame: str) -> str:
    """The key of a frame, without leading zeros in its number."""
    if not frame.isdecimal():
        raise UserError(f"{path}: key '{clip}:{track}:{frame}' does not end in a frame number")
    return f"{clip}:{track}:{int(frame)}"


def _numbers(path: Path, entries: dict[str, Any], shape: tuple[int, ...], form: str) -> np.ndarray:
    """Return all entries as ``(K, *shape)`` float32; an error names the first malformed entry."""
    if not entries:
        return np.empty((0, *shape), dtype=np.float32)

    def converted(values: list) -> np.ndarray | None:
        try:
            array = np.array(values)
        except ValueError:  # not all of one shape
            return None
        return array if array.shape[1:] == shape and array.dtype.kind in "iuf" else None

    array = converted(list(entries.values()))
    if array is None:
        wrong = next((key for key, value in entries.items() if converted([value]) is None), next(iter(entries)))
        raise UserError(f"{path}: {wrong}: expected {form}, found {entries[wrong]!r:.120}")
    array = array.astype(np.float32)
    array[~np.isfinite(array)] = np.nan
    return array


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "text", type(None): "null"}.get(type(value), repr(value)[:40])
