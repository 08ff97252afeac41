"""Priors from JSON files: those of GazePose's authors, other estimators', or SynthLAM's."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.priors.base import LANDMARKS, Prior, Priors
from registry import PRIORS, UserError
from zoo.files.untrusted import read_bytes, read_json

VERSION = 2  # raised when the same files give other numbers than before

POSE_FORM = "'clip:track:frame' -> [yaw, pitch, roll] in degrees"
LANDMARK_FORM = "clip -> track -> frame -> five [x, y, z, visibility] in units of the crop"
POSE_LENGTHS = (3, 6)  # GazePose's files have the label and two zeros behind the angles of train and val

# If a frame has no landmarks, GazePose takes those of the first of these neighbours that has some, in this order.
NEIGHBOURS = (-1, 1, -2, 2, 3, -3)


class Entries(NamedTuple):
    """The entries of files of one kind.

    Attributes:
        keys: K keys, as `_key` and `_id_key` make them.
        values: ``(K, ...)`` float32.
        by_id: clips whose frames are named by their unique ids, as in the challenge's test crops.
    """

    keys: pd.Index
    values: np.ndarray
    by_id: frozenset[str]


class FromFiles(Prior):
    """Priors from JSON files, each read once."""

    #: Whether files without any of the requested frames are an error.
    must_match = True
    #: Frames whose landmarks stand in for missing ones, as offsets.
    neighbours: tuple[int, ...] = ()

    def files(self) -> tuple[Sequence[Path], Sequence[Path]]:
        """Paths of the files of head poses, and of the files of landmarks."""
        raise NotImplementedError

    def order(self) -> Sequence[str]:
        """The landmarks in the order of the files."""
        return LANDMARKS

    @functools.cached_property
    def _content(self) -> tuple[Entries, Entries]:
        poses, landmarks = self.files()
        return _merged(poses, map(read_head_pose, poses)), _merged(landmarks, map(read_landmarks, landmarks))

    def read(self, frames: pd.DataFrame) -> Priors:
        """Look up the rows; rows missing from the files are unknown.

        Raises:
            UserError: a file is missing, broken or in another format, or the files have none of these frames.
        """
        poses, landmarks = self._content
        names = [", ".join(map(str, paths)) for paths in self.files()]
        found = self._look_up(names[0], poses, frames), self._look_up(names[1], landmarks, frames, self.neighbours)
        order = self.order()
        return Priors(found[0], _relative(found[1][:, [order.index(name) for name in LANDMARKS]]))

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of the files, and the version of this code."""
        return {
            name: hashlib.sha256(
                b"".join(hashlib.sha256(read_bytes(path, "priors")).digest() for path in paths)
            ).hexdigest()
            for name, paths in zip(("head_pose", "landmarks"), self.files(), strict=True)
        } | {"version": VERSION}

    def _look_up(
        self, names: str, entries: Entries, frames: pd.DataFrame, neighbours: Sequence[int] = ()
    ) -> np.ndarray:
        """The values of N rows, ``(N, ...)`` float32, NaN where unknown."""
        has_id = (frames["unique_id"] != "").to_numpy()
        _check_ids(names, entries, frames[~has_id])
        track = frames["clip"] + ":" + frames["track"] + ":"
        at = entries.keys.get_indexer(pd.Index(track + frames["frame"].astype(str)))
        if has_id.any():
            of_id = entries.keys.get_indexer(pd.Index(track + _ID + frames["unique_id"]))
            at = np.where(has_id & (of_id >= 0), of_id, at)
        if self.must_match and len(frames) and not (at >= 0).any():
            first, has = frames.iloc[0], f"such as {entries.keys[0]}" if len(entries.keys) else "it is empty"
            wanted = f"{first['clip']}:{first['track']}:{first['frame']}"
            raise UserError(f"{names}: has none of the {len(frames)} frames requested, such as {wanted} ({has})")
        for offset in neighbours:
            missing = np.flatnonzero(at < 0)
            shifted = (frames["frame"].iloc[missing] + offset).astype(str)
            at[missing] = entries.keys.get_indexer(pd.Index(track.iloc[missing] + shifted))
        answer = np.full((len(frames), *entries.values.shape[1:]), np.nan, dtype=np.float32)
        answer[at >= 0] = entries.values[at[at >= 0]]
        return answer


@PRIORS.register_module(name="file")
class File(FromFiles):
    """JSON files in the formats of GazePose's authors, or of other estimators.

    A frame without landmarks takes those of a frame up to three away, as published.

    Args:
        root: of the data set; the files may be elsewhere.
        cache: not used.
        head_pose: path or paths of files `'clip:track:frame' -> [yaw, pitch, roll]`, degrees; on test crops also
            `'video:track:unique id:frame'`. Numbers 4 to 6 of a list of six are ignored.
        landmarks: path or paths of files `clip -> track -> frame -> five [x, y, z, visibility]`, units of the crop, in
            the order of `LANDMARKS`; on test crops also by unique id instead of frame.
    """

    how = "your own files, with head_pose=FILE and landmarks=FILE"
    neighbours = NEIGHBOURS

    def __init__(
        self, root: Path, cache: Path, head_pose: str | tuple[str, ...], landmarks: str | tuple[str, ...]
    ) -> None:
        super().__init__(root, cache)
        self._files = _paths(head_pose), _paths(landmarks)

    def files(self) -> tuple[Sequence[Path], Sequence[Path]]:
        return self._files


@PRIORS.register_module(name="synthlam")
class SynthLAM(FromFiles):
    """SynthLAM's priors: the true angles and points with an estimator's errors.

    Args:
        root: of SynthLAM, with `priors/head_pose.json` and `priors/landmarks.json`.
        cache: not used.
    """

    how = "shipped with SynthLAM, for that data set only"

    def files(self) -> tuple[Sequence[Path], Sequence[Path]]:
        folder = self.root / "priors"
        if not folder.is_dir():
            raise UserError(
                f"{folder}: no such folder; only SynthLAM ships priors; for other crops use face_mesh, which computes "
                "them, or file"
            )
        return [folder / "head_pose.json"], [folder / "landmarks.json"]

    def order(self) -> Sequence[str]:
        """As in `scene.json`."""
        path = self.root / "scene.json"
        scene = read_json(path, "the scene of SynthLAM")
        named = scene.get("landmarks") if isinstance(scene, dict) else None
        if not isinstance(named, list) or sorted(map(str, named)) != sorted(LANDMARKS):
            raise UserError(f"{path}: landmarks must name {', '.join(LANDMARKS)} in the order of the file")
        return named


def read_head_pose(path: Path) -> Entries:
    """Read a file of head poses, skipping entries of null.

    Returns:
        Yaw, pitch, roll ``(K, 3)`` float32, NaN for numbers that are not finite.

    Raises:
        UserError: the file is missing, broken or in another format; names the key.
    """
    content = read_json(path, "head poses")
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected {POSE_FORM}, found {_kind(content)}")
    entries, by_id = {}, set()
    for key, pose in content.items():
        if pose is None:
            continue
        clip, track, unique_id, frame = _split(path, key)
        if unique_id is not None:
            by_id.add(clip)
        named = _key(path, clip, track, frame) if unique_id is None else _id_key(clip, track, unique_id)
        entries[named] = pose[:3] if isinstance(pose, list) and len(pose) in POSE_LENGTHS else pose
    values = _numbers(path, entries, (3,), "[yaw, pitch, roll]")
    return Entries(pd.Index(list(entries), dtype=object), values, frozenset(by_id))


def read_landmarks(path: Path) -> Entries:
    """Read a file of landmarks, skipping entries of null.

    A clip is keyed by frames if all its keys are numbers, and otherwise by unique ids. A unique id may be a number too.

    Returns:
        ``(K, 5, 3)`` float32: x and y in units of the crop, and visibility, in the order of the file.

    Raises:
        UserError: the file is missing, broken, in another format (names the key), or in pixels.
    """
    entries, by_id = {}, set()
    for clip, tracks in _items(path, read_json(path, "landmarks"), ""):
        of_clip = [(track, [*_items(path, named, f"{clip}:{track}")]) for track, named in _items(path, tracks, clip)]
        ids = not all(key.isdecimal() for _, named in of_clip for key, _ in named)
        if ids:
            by_id.add(clip)
        for track, named in of_clip:
            for key, points in named:
                if points is not None:
                    entries[_id_key(clip, track, key) if ids else _key(path, clip, track, key)] = points
    points = _numbers(path, entries, (len(LANDMARKS), 4), "five [x, y, z, visibility]")
    at = points[..., :2]
    known = np.isfinite(at)
    if known.any() and np.mean((at[known] < -1) | (at[known] > 2)) > 0.5:
        raise UserError(f"{path}: most points lie far outside of their crop; x and y must be in units of the crop, 0-1")
    return Entries(pd.Index(list(entries), dtype=object), points[..., [0, 1, 3]], frozenset(by_id))


def _merged(paths: Sequence[Path], parts: Iterable[Entries]) -> Entries:
    """Join the entries of several files.

    Raises:
        UserError: two files have an entry of the same frame.
    """
    read = list(parts)
    keys = read[0].keys.append([part.keys for part in read[1:]])
    if not keys.is_unique:
        twice = keys[keys.duplicated()][0]
        first, second = [path for path, part in zip(paths, read, strict=True) if twice in part.keys][:2]
        raise UserError(f"{first} and {second} both have {twice}; name files that share no frame")
    values = np.concatenate([part.values for part in read])
    return Entries(keys, values, frozenset[str]().union(*(part.by_id for part in read)))


def _check_ids(names: str, entries: Entries, frames: pd.DataFrame) -> None:
    """Raise if some clip is keyed by unique ids, but these frames of it have none."""
    wrong = sorted(entries.by_id.intersection(frames["clip"].unique())) if entries.by_id else []
    if wrong:
        named = [key.replace(_ID, "") for key in entries.keys if key.startswith(f"{wrong[0]}:")]
        key = min(named, key=lambda key: key.rpartition(":")[2].isdecimal())
        raise UserError(f"{names}: '{key}' does not end in a frame number, and {wrong[0]} has no unique ids")


def _relative(points: np.ndarray) -> np.ndarray:
    """Move the origin of x and y to the mid-point of the eyes, and clip confidences to [0, 1]."""
    eyes = [LANDMARKS.index("left_eye"), LANDMARKS.index("right_eye")]
    points[..., :2] -= points[:, eyes, :2].mean(axis=1, keepdims=True)
    unknown = ~np.isfinite(points).all(axis=-1)
    points[unknown] = [np.nan, np.nan, 0]
    points[..., 2] = points[..., 2].clip(0, 1)
    return points


def _paths(given: str | tuple[str, ...]) -> tuple[Path, ...]:
    paths = (Path(given),) if isinstance(given, str) else tuple(map(Path, given))
    if not paths:
        raise UserError("prior file: name at least one file of head poses and one of landmarks")
    return paths


def _items(path: Path, value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        at = f" at {where}" if where else ""
        raise UserError(f"{path}: expected {LANDMARK_FORM}, found {_kind(value)}{at}")
    yield from value.items()


def _split(path: Path, key: str) -> tuple[str, str, str | None, str]:
    """Clip, track, unique id (None if the key has none) and frame of a head pose."""
    parts = key.split(":")
    if len(parts) not in (3, 4):
        raise UserError(f"{path}: key '{key}' is not clip:track:frame")
    return parts[0], parts[1], parts[2] if len(parts) == 4 else None, parts[-1]


_ID = "id "  # marks a unique id in a key, which may be a number like a frame


def _id_key(clip: str, track: str, unique_id: str) -> str:
    return f"{clip}:{track}:{_ID}{unique_id}"


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
