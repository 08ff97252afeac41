"""Reads data sets in the Ego4D Looking-At-Me layout, including SynthLAM: prepared folder -> FrameTable.

A root holds `split/<split>.list` (one clip per line), `json_original/<clip>/<track>.json` (face boxes),
`result_LAM/<clip>.json` (looking segments), `face_imgs/<clip>/<track>/face_%05d.jpg` (crops) and, for the challenge
test set, `videos_challenge/<video>/<track>/<frame>_<unique id>.jpg` with an optional `labels_challenge.csv`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data import cache
from benchmarks.data.annotations import annotated_clips, boxes_of, list_folder, read_segment
from benchmarks.data.challenge import read_challenge
from benchmarks.data.frames import BOX, frame_table, repeated
from registry import UserError
from zoo.files.untrusted import checked_id, distinct, read_json, read_text

SPLITS = ("train", "val", "test")
LABEL_POLICIES = ("published", "is_at_me")

# A file modified this recently (ns) may change again within one tick of the file system's clock without a new time
# stamp. FAT has the coarsest clock, two seconds.
_SETTLED = 2_000_000_000

# Limits of interpolation: rows in total, and rows per box (one box in 10 seconds). The larger limit counts.
ROWS, ROWS_A_BOX = 100_000, 300


def read_split(root: str | Path, split: str, images: bool = True, label_policy: str = "published") -> pd.DataFrame:
    """Reads one split of a prepared root: train and val from the annotations, test from the challenge crops.

    Rules of train and val, with the evidence in the published programs' index of a known tree:

    1. *Clean-up.* Boxes with zero or negative width or height are dropped, and so is frame 0, since frames count from
       1: the index has none of these boxes, and a track that starts with one starts later. A negative x or y becomes
       0 while width and height stay, so the box moves into the picture (y -5.4, height 73.9 gives 0 .. 73.9). Right
       and lower edges beyond the picture stay (x2 up to 2016 of 1920).
    2. *Interpolation.* A track has every frame between its first and last remaining box. Corners of absent frames are
       interpolated linearly after clean-up, however long the gap. Nothing is extrapolated. No published case covers
       three situations, settled as follows: a dropped frame 0 is not an end point; a frame listed twice keeps its
       first box; a track without a person has no rows, since it cannot have a label.
    3. *Labels.* 1 if a segment of the clip names the track's person and start <= frame <= end, else 0. This includes
       interpolated frames and all tracks of the person; segments may overlap. A clip without segments is 0 throughout
       (`clips_without_segments` lists these clips).
    4. *Key frames* are selected by `windows.key_frames`.

    The test split has one row per crop. The file name gives `frame` and, after the first underscore, `unique_id`. Boxes
    are NaN, person "" and label -1 unless `labels_challenge.csv` gives them; nothing is interpolated.

    Args:
        root: the prepared folder.
        split: "train", "val" or "test".
        images: look up crops on disk, with one listing per track. False leaves `image` empty and needs no crops; the
            test split always needs them, because their names are its index.
        label_policy: "published": any segment naming the person. "is_at_me": only segments marked so in
            `json/av_<split>.json` (`result_LAM` lacks the mark). It does not affect the test split.

    Returns:
        FrameTable, sorted by clip, track and frame; `image` is relative to the root.

    Raises:
        UserError: a folder or file is missing, JSON is broken (with file and position), or a name cannot be read.
    """
    root = Path(root)
    if split not in SPLITS:
        raise UserError(f"split {split!r}: must be one of {', '.join(SPLITS)}")
    if label_policy not in LABEL_POLICIES:
        raise UserError(f"label_policy {label_policy!r}: must be one of {', '.join(LABEL_POLICIES)}")
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; --root is the folder that holds split/ and json_original/")
    if split == "test":
        return read_challenge(root / "videos_challenge", root / "labels_challenge.csv", prefix="videos_challenge/")
    if images and not (root / "face_imgs").is_dir():
        raise UserError(f"{root / 'face_imgs'}: no such folder, so there are no face crops; run `bench.py prepare`")
    clips = read_list(root, split)
    asked = (str(root.resolve()), split, label_policy, f"images={images}")
    signature, settled = _signature(root, split, clips, images, label_policy)
    table = cache.load_table(asked, signature)
    if table is None:
        table = read_annotated(root, split, clips, images, label_policy)
        if settled:
            cache.store_table(asked, signature, table)
    return table


def read_annotated(root: Path, split: str, clips: list[str], images: bool, label_policy: str) -> pd.DataFrame:
    """Reads a train or val split from the annotations, bypassing the cache; arguments as in `read_split`."""
    tracks, track, boxes = _read_boxes(root, clips)
    columns, of_row = _interpolated(root, tracks, track, boxes)
    segments = _marked_segments(root, split, clips) if label_policy == "is_at_me" else _result_segments(root, clips)
    columns["label"] = _label(tracks, of_row, columns["frame"], segments)
    # Rows of a track are consecutive, so texts are repeated; columns built from single strings take ten times as long.
    first = np.flatnonzero(np.diff(of_row, prepend=-1))
    counts = np.diff(np.append(first, len(of_row)))
    for name in ("clip", "track", "person"):
        columns[name] = repeated(tracks[name].to_numpy()[of_row[first]], counts)
    columns["image"] = ""
    columns["unique_id"] = ""
    if images:
        folders = [f"face_imgs/{clip}/{name}" for clip, name in zip(tracks["clip"], tracks["track"], strict=True)]
        columns["image"] = _find_images(root, [folders[number] for number in of_row[first]], columns["frame"], counts)
        if len(of_row) and not any(columns["image"]):
            raise UserError(
                f"{root / 'face_imgs'}: no crop of any frame of {split} under its name, "
                "<clip>/<track>/face_<frame, five digits>.jpg; run `bench.py prepare`"
            )
    return frame_table(columns, str(root))


def _signature(root: Path, split: str, clips: list[str], images: bool, label_policy: str) -> tuple[str, bool]:
    """Digests the code and the names, sizes and times of all files of a split, without opening them.

    Returns:
        The digest, and whether it would show any later change.
    """
    seen: list[str] = [code_digest(), str(pd.__version__), *clips]
    newest = 0

    def note(name: str, status: os.stat_result) -> None:
        nonlocal newest
        newest = max(newest, status.st_mtime_ns)
        seen.append(f"{name}/{status.st_size}/{status.st_mtime_ns}/{status.st_ctime_ns}")

    folders = [f"json_original/{clip}" for clip in clips]
    files = [f"result_LAM/{clip}.json" for clip in clips]
    if label_policy == "is_at_me":
        files = [f"json/av_{split}.json"]
    if images:  # the folder of a track changes whenever a crop is written or removed
        folders += [f"face_imgs/{clip}" for clip in clips]
    top = str(root)
    for folder in folders:
        seen.append(folder)
        try:
            with os.scandir(f"{top}/{folder}") as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    note(entry.name, entry.stat())
        except OSError:
            seen.append("/absent")
    for name in files:
        try:
            note(name, os.stat(f"{top}/{name}"))  # noqa: PTH116 (path objects take twice as long)
        except OSError:
            seen.append(f"{name}/absent")
    digest = hashlib.sha256("\0".join(seen).encode("utf-8", "surrogateescape")).hexdigest()
    return digest, newest < time.time_ns() - _SETTLED


@functools.cache
def code_digest() -> str:
    """Digests the code that builds the table, so that a change of the code invalidates cached tables."""
    sources = [
        Path(__file__).with_name(f"{name}.py").read_bytes() for name in ("annotations", "cache", "ego4d", "frames")
    ]
    return hashlib.sha256(b"\0".join(sources)).hexdigest()


def read_list(root: str | Path, split: str) -> list[str]:
    """Reads the clips of `split/<split>.list` in file order, skipping blank lines.

    Raises:
        UserError: the file is missing or empty, or names a clip twice or one that cannot be a folder's name.
    """
    path = Path(root) / "split" / f"{split}.list"
    lines = read_text(path, "the list of the split's clips").splitlines()
    clips = [
        checked_id(line.strip(), f"{path}: line {number}") for number, line in enumerate(lines, start=1) if line.strip()
    ]
    if not clips:
        raise UserError(f"{path}: lists no clip; add some, or delete it and prepare with --split-lists official")
    distinct(clips, f"{path}: clips")
    return clips


def clips_without_segments(root: str | Path, split: str) -> list[str]:
    """Lists the clips of a split without a `result_LAM` file, which means no looking segments.

    All their frames are labelled 0. The published lists leave these clips out.
    """
    return [clip for clip in read_list(root, split) if not os.path.lexists(_segments_file(Path(root), clip))]


def _read_boxes(root: Path, clips: list[str]) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Reads the box files of clips.

    Returns:
        The tracks, one per row (clip, track, person); int64 (R,) the track of each record; float64 (R, 5) frame, x,
        y, width, height as annotated.
    """
    folder = root / "json_original"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; run `bench.py prepare --root {root}` first")
    found: list[tuple[str, str, str]] = []
    counts: list[int] = []
    parts: list[np.ndarray] = []
    for clip in clips:
        for name in list_folder(folder / clip, f"boxes of clip {clip}; run `bench.py prepare`"):
            if not name.endswith(".json"):
                continue
            path = folder / clip / name
            records = read_json(path, "face boxes")
            if not isinstance(records, list):
                raise UserError(f"{path}: expected a list of boxes, found {type(records).__name__}")
            boxes, people = boxes_of(records, str(path))
            if len(people) > 1:
                raise UserError(f"{path}: boxes of more than one person ({', '.join(sorted(map(str, people)))})")
            found.append((clip, name[: -len(".json")], str(people.pop()) if people else ""))
            counts.append(len(boxes))
            parts.append(boxes)
    tracks = pd.DataFrame(found, columns=["clip", "track", "person"], dtype=object)
    return tracks, np.repeat(np.arange(len(found)), counts), np.concatenate([np.empty((0, 5)), *parts])


def _interpolated(
    root: Path, tracks: pd.DataFrame, track: np.ndarray, boxes: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    """Applies the clean-up and interpolation rules of `read_split` to all tracks at once.

    Returns:
        Columns frame, x1, y1, x2, y2 of N rows, track by track; int64 (N,) the track of each row.
    """
    frame, x, y, width, height = boxes.T
    named = (tracks["person"] != "").to_numpy(dtype=bool)[track]  # a box without a person can never be labelled
    keep = (width > 0) & (height > 0) & (frame >= 1) & named
    track, frame = track[keep], frame[keep].astype(np.int64)
    left, top = np.maximum(x[keep], 0), np.maximum(y[keep], 0)
    corners = np.stack([left, top, left + width[keep], top + height[keep]])
    order = np.lexsort((frame, track))  # stable, so the first of two boxes of a frame stays first
    track, frame, corners = track[order], frame[order], corners[:, order]
    single = np.diff(track, prepend=-1).astype(bool) | np.diff(frame, prepend=-1).astype(bool)
    track, frame, corners = track[single], frame[single], corners[:, single]

    starts = np.flatnonzero(np.diff(track, prepend=-1))
    ends = np.append(starts[1:], len(track)) - 1
    lengths = frame[ends] - frame[starts] + 1 if len(track) else np.empty(0, dtype=np.int64)
    if lengths.sum() > max(ROWS, ROWS_A_BOX * len(track)):
        longest = int(np.argmax(lengths))
        first, last = starts[longest], ends[longest]
        clip, name = tracks.loc[track[first], ["clip", "track"]]
        raise UserError(
            f"{root / 'json_original' / clip / name}.json: {last - first + 1} boxes from frame {frame[first]} to "
            f"{frame[last]}; filling in what lies between the {len(track)} boxes of this split would take "
            f"{lengths.sum():,} rows, so these are no frame numbers"
        )
    rows = np.repeat(np.arange(len(starts)), lengths)
    full = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + frame[starts][rows]
    # All tracks lie on one axis, each starting where the previous one ends, so that no frame is interpolated between
    # two tracks. Integers of this size are exact in float64.
    shift = np.cumsum(lengths) - lengths - frame[starts]
    at = full + shift[rows]
    known = frame + np.repeat(shift, ends - starts + 1)
    corners = np.stack([np.interp(at, known, corner) for corner in corners]) if len(track) else corners
    return {"frame": full, **dict(zip(BOX, corners, strict=True))}, track[starts][rows]


def _result_segments(root: Path, clips: list[str]) -> list[tuple[str, str, int, int]]:
    """Reads (clip, person, start, end) of every segment in `result_LAM`; a clip without a file has none."""
    folder = root / "result_LAM"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; run `bench.py prepare --root {root}` first")
    segments = []
    for clip in clips:
        path = _segments_file(root, clip)
        if os.path.lexists(path):
            content = read_json(path, "looking segments")
            if not isinstance(content, list):
                raise UserError(f"{path}: expected a list of segments, found {type(content).__name__}")
            for number, segment in enumerate(content):
                segments.append((clip, *read_segment(f"{path}: segment {number}", segment, "label")))
    return segments


def _segments_file(root: Path, clip: str) -> Path:
    """Returns the file of a clip's looking segments."""
    return root / "result_LAM" / f"{clip}.json"


def _marked_segments(root: Path, split: str, clips: list[str]) -> list[tuple[str, str, int, int]]:
    """Reads (clip, person, start, end) of the segments that the annotation file marks as looking at the wearer."""
    path = root / "json" / f"av_{split}.json"
    wanted = set(clips)
    segments = []
    marked = 0
    for clip in annotated_clips(path):
        for number, segment in enumerate(clip.get("social_segments_looking") or []):
            if segment.get("is_at_me") and segment.get("person") is not None:
                marked += 1
                if clip["clip_uid"] in wanted:
                    where = f"{path}: clip {clip['clip_uid']}, social_segments_looking[{number}]"
                    segments.append((clip["clip_uid"], *read_segment(where, segment, "person")))
    if not marked:  # the first release of the annotations, in which every mark is false although every segment counts
        raise UserError(f"{path}: no segment is marked 'is_at_me'; use label_policy 'published'")
    return segments


def _label(
    tracks: pd.DataFrame, track: np.ndarray, frame: np.ndarray, segments: list[tuple[str, str, int, int]]
) -> np.ndarray:
    """Labels the frames inside a segment of their clip and person: int64 (N,) of 0 and 1.

    Args:
        tracks: one row per track.
        track: int64 (N,) track of each frame.
        frame: int64 (N,).
        segments: clip, person, start and end, both included.
    """
    if not segments or not len(frame):
        return np.zeros(len(frame), dtype=np.int64)
    named = dict.fromkeys((clip, person) for clip, person, _, _ in segments)
    people = {who: number for number, who in enumerate(named)}
    own = np.array([people.get(who, -1) for who in zip(tracks["clip"], tracks["person"], strict=True)], dtype=np.int64)
    low, high = frame.min(), frame.max()
    span = high - low + 1
    begin = np.maximum([start for _, _, start, _ in segments], low) - low
    end = np.minimum([end for _, _, _, end in segments], high) - low
    base = np.array([people[clip, person] for clip, person, _, _ in segments], dtype=np.int64) * span
    valid = begin <= end
    # A frame is inside a segment if more segments have begun by then than have ended before it.
    at = own[track] * span + (frame - low)
    begun = np.searchsorted(np.sort((base + begin)[valid]), at, side="right")
    ended = np.searchsorted(np.sort((base + end)[valid]), at, side="left")
    return (begun > ended).astype(np.int64)


def _find_images(root: Path, folders: list[str], frame: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Finds the crop of each row, "" if there is none.

    One listing per track, because a stat per frame takes minutes on a network disk with millions of frames.

    Args:
        root: folder that `folders` are relative to.
        folders: folder of each track.
        frame: int64 (N,) frame numbers, track by track.
        counts: frames per track.
    """
    image = np.full(len(frame), "", dtype=object)
    ends = np.cumsum(counts)
    for folder, start, end in zip(folders, ends - counts, ends, strict=True):
        try:
            names = set(os.listdir(root / folder))  # noqa: PTH208
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"{root / folder}: {error.strerror} (face crops of a track)") from None
        for row, number in enumerate(frame[start:end].tolist(), start):
            name = f"face_{number:05d}.jpg"
            if name in names:
                image[row] = f"{folder}/{name}"
    return image
