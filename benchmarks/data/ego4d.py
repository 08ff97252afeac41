"""Reader of data sets in the Ego4D Looking-At-Me layout, SynthLAM's included: a prepared folder -> FrameTable.

A root holds `split/<split>.list` (one clip a line), `json_original/<clip>/<track>.json` (face boxes),
`result_LAM/<clip>.json` (looking segments), `face_imgs/<clip>/<track>/face_%05d.jpg` (crops) and, for the challenge
test set, `videos_challenge/<video>/<track>/<frame>_<unique id>.jpg` with an optional `labels_challenge.csv`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data.frames import BOX, COLUMNS, frame_table
from registry import UserError

SPLITS = ("train", "val", "test")
LABEL_POLICIES = ("published", "is_at_me")

_RECORD = itemgetter("frameNumber", "x", "y", "width", "height")


def read_split(root: str | Path, split: str, images: bool = True, label_policy: str = "published") -> pd.DataFrame:
    """Read one split of a prepared root: train and val from its annotations, test from the tree of challenge crops.

    The rules of train and val, each with what shows it in the published programs' index of a known tree:

    1. *Clean-up.* A box of no width or height (0 or negative) is no detection, nor is frame 0, since frames count from
       1: none of them is in the index with its own box, and a track that starts with one starts later. A negative x or
       y becomes 0 with width and height kept, so the box moves into the picture (y -5.4, height 73.9 gives 0 .. 73.9);
       right and lower edges beyond the picture stay as they are (x2 up to 2016 of 1920).
    2. *Interpolation.* Between the first and the last box that is left, a track has every frame: absent ones, however
       long the gap, get the straight line between their neighbours, corner by corner, on the boxes after clean-up.
       Nothing is extrapolated. Three things that no published case shows are settled so: a dropped frame 0 is no end
       of a line either; a frame listed twice counts once, with its first box; a track of no person has no rows, since
       it can have no label.
    3. *Labels.* 1 where some segment of the clip names the track's person and start <= frame <= end, both included,
       interpolated frames and all tracks of the person alike; segments may overlap. Otherwise 0; a clip that has no
       segments at all is 0 throughout (`clips_without_segments` lists such clips).
    4. *Key frames* are not chosen here: see `frames.key_frames`.

    The test split has one row a crop, `frame` before the first underscore of the file's name and `unique_id` after
    it, boxes NaN, person "" and label -1 unless `labels_challenge.csv` gives them; nothing is interpolated.

    Args:
        root: the prepared folder.
        split: "train", "val" or "test".
        images: look the crops up on disk, one listing a track. False leaves `image` empty and needs no crops
            (the test split's crops are its index, so there they are always looked up).
        label_policy: "published": any segment naming the person. "is_at_me": only segments that the annotation file
            `json/av_<split>.json` marks so (`result_LAM` does not hold the mark). The test split's labels are as given.

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
    table, people = _interpolated(*_read_boxes(root, clips))
    segments = _marked_segments(root, split, clips) if label_policy == "is_at_me" else _result_segments(root, clips)
    table["label"] = _label(table["clip"], people, table["frame"], segments)
    table["person"] = people
    table["image"] = _find_images(root, table) if images else ""
    if images and len(people) and not any(table["image"]):
        raise UserError(f"{root / 'face_imgs'}: no crop of any frame of {split}; run `bench.py prepare`")
    table["unique_id"] = ""
    return frame_table(table, str(root))


def read_list(root: str | Path, split: str) -> list[str]:
    """Read the clips of `split/<split>.list`, in file order; blank lines do not count.

    Raises:
        UserError: the file is missing or empty, or names a clip twice.
    """
    path = Path(root) / "split" / f"{split}.list"
    clips = [line.strip() for line in _text(path, "the list of the split's clips").splitlines() if line.strip()]
    if not clips:
        raise UserError(f"{path}: lists no clip")
    twice = sorted({clip for clip in clips if clips.count(clip) > 1}) if len(set(clips)) < len(clips) else []
    if twice:
        raise UserError(f"{path}: clip {twice[0]} is listed twice")
    return clips


def clips_without_segments(root: str | Path, split: str) -> list[str]:
    """List the clips of a split that have no `result_LAM` file: annotated as having no looking segments at all.

    All their frames are labelled 0. The published lists leave such clips out.
    """
    return [clip for clip in read_list(root, split) if not (Path(root) / "result_LAM" / f"{clip}.json").exists()]


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file; a missing or broken one is a UserError with the file and the position."""
    text = _text(path, what)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file ({what})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file (byte {error.start}: {error.reason})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror} ({what})") from None


def _read_boxes(root: Path, clips: list[str]) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Read the box files of some clips.

    Returns:
        The tracks, one row each (clip, track, person); int64 (R,) the track of each record; float64 (R, 5) frame, x,
        y, width, height as annotated.
    """
    folder = root / "json_original"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; run `bench.py prepare --root {root}` first")
    found: list[tuple[str, str, str]] = []
    counts: list[int] = []
    parts: list[np.ndarray] = []
    for clip in clips:
        for name in _listing(folder / clip, f"boxes of clip {clip}; run `bench.py prepare`"):
            if not name.endswith(".json"):
                continue
            path = folder / clip / name
            records = read_json(path, "face boxes")
            if not isinstance(records, list):
                raise UserError(f"{path}: expected a list of boxes, found {type(records).__name__}")
            try:
                boxes = np.array(list(map(_RECORD, records)), dtype=np.float64).reshape(-1, 5)
                people = {record["Person ID"] for record in records}
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{path}: {_bad_record(records, error)}") from None
            if len(people) > 1:
                raise UserError(f"{path}: boxes of more than one person ({', '.join(sorted(map(str, people)))})")
            if not np.array_equal(boxes[:, 0], np.round(boxes[:, 0])):
                raise UserError(f"{path}: frameNumber {boxes[boxes[:, 0] != np.round(boxes[:, 0]), 0][0]} is not whole")
            found.append((clip, name[: -len(".json")], str(people.pop()) if people else ""))
            counts.append(len(boxes))
            parts.append(boxes)
    tracks = pd.DataFrame(found, columns=["clip", "track", "person"], dtype=object)
    return tracks, np.repeat(np.arange(len(found)), counts), np.concatenate([np.empty((0, 5)), *parts])


def _bad_record(records: list, error: Exception) -> str:
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            return f"box {number} is no object"
        for key in ("frameNumber", "Person ID", "x", "y", "width", "height"):
            if key not in record:
                return f"box {number} has no {key!r}"
            if key != "Person ID" and (isinstance(record[key], bool) or not isinstance(record[key], (int, float))):
                return f"box {number}: {key} is {record[key]!r}, expected a number"
    return f"unexpected content ({error})"


def _interpolated(tracks: pd.DataFrame, track: np.ndarray, boxes: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """Apply the clean-up and interpolation rules of `read_split` to all tracks at once.

    Returns:
        Columns clip, track, frame, x1, y1, x2, y2 of the table, N rows; object (N,) the person of each.
    """
    frame, x, y, width, height = boxes.T
    named = (tracks["person"] != "").to_numpy(dtype=bool)[track]  # a box of no person can never be labelled
    keep = (width > 0) & (height > 0) & (frame >= 1) & np.isfinite(boxes).all(axis=1) & named
    track, frame = track[keep], frame[keep].astype(np.int64)
    left, top = np.maximum(x[keep], 0), np.maximum(y[keep], 0)
    corners = np.stack([left, top, left + width[keep], top + height[keep]])
    order = np.lexsort((frame, track))  # stable: of a frame listed twice, the first in the file comes first
    track, frame, corners = track[order], frame[order], corners[:, order]
    single = np.diff(track, prepend=-1).astype(bool) | np.diff(frame, prepend=-1).astype(bool)
    track, frame, corners = track[single], frame[single], corners[:, single]

    starts = np.flatnonzero(np.diff(track, prepend=-1))
    ends = np.append(starts[1:], len(track)) - 1
    lengths = frame[ends] - frame[starts] + 1 if len(track) else np.empty(0, dtype=np.int64)
    rows = np.repeat(np.arange(len(starts)), lengths)
    full = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + frame[starts][rows]
    # One line over all tracks: each starts where the one before ended, so that no frame is interpolated between two.
    # Whole numbers of this size are exact in float64.
    shift = np.cumsum(lengths) - lengths - frame[starts]
    at = full + shift[rows]
    known = frame + np.repeat(shift, ends - starts + 1)
    corners = np.stack([np.interp(at, known, corner) for corner in corners]) if len(track) else corners
    of_row = track[starts][rows]
    table: dict[str, Any] = {name: tracks[name].to_numpy(dtype=object)[of_row] for name in ("clip", "track")}
    table["frame"] = full.astype(np.int64)
    table.update(zip(BOX, corners, strict=True))
    return table, tracks["person"].to_numpy(dtype=object)[of_row]


def _result_segments(root: Path, clips: list[str]) -> list[tuple[str, str, int, int]]:
    """Read (clip, person, start, end) of every segment in `result_LAM`; a clip without a file has none."""
    folder = root / "result_LAM"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; run `bench.py prepare --root {root}` first")
    segments = []
    for clip in clips:
        path = folder / f"{clip}.json"
        if path.exists():
            content = read_json(path, "looking segments")
            if not isinstance(content, list):
                raise UserError(f"{path}: expected a list of segments, found {type(content).__name__}")
            for number, segment in enumerate(content):
                segments.append((clip, *read_segment(f"{path}: segment {number}", segment, "label")))
    return segments


def _marked_segments(root: Path, split: str, clips: list[str]) -> list[tuple[str, str, int, int]]:
    """Read (clip, person, start, end) of the segments that the annotation file marks as looking at the wearer."""
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
    if not marked:  # as in the first release of the annotations, where every mark is false and every segment meant
        raise UserError(f"{path}: no segment is marked 'is_at_me'; use label_policy 'published'")
    return segments


def annotated_clips(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the clips of an annotation file `av_train.json` or `av_val.json`, in file order.

    Raises:
        UserError: the file is missing, broken, or not of the form
            `{"videos": [{"clips": [{"clip_uid": "...", "social_segments_looking": [{...}] or null}]}]}`.
    """
    content = read_json(path, "the annotations as downloaded")
    try:
        clips = [clip for video in content["videos"] for clip in video["clips"]]
        well_formed = all(
            isinstance(clip["clip_uid"], str)
            and all(isinstance(segment, dict) for segment in clip.get("social_segments_looking") or [])
            for clip in clips
        )
    except (AttributeError, KeyError, TypeError):
        well_formed = False
    if not well_formed:
        raise UserError(f"{path}: not an Ego4D AV annotation file (expected videos -> clips -> clip_uid)")
    yield from clips


def read_segment(where: str, segment: Any, person: str) -> tuple[str, int, int]:
    """Read (person, start, end) of a looking segment that names its person under the key `person`."""
    try:
        return str(segment[person]), int(segment["start_frame"]), int(segment["end_frame"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{where}: expected {person}, start_frame and end_frame, found {segment!r:.120}") from None


def _label(clip: Any, person: np.ndarray, frame: np.ndarray, segments: list[tuple[str, str, int, int]]) -> np.ndarray:
    """Label the frames that lie in a segment of their clip and person: int64 (N,) of 0 and 1."""
    if not segments or not len(frame):
        return np.zeros(len(frame), dtype=np.int64)
    s_clip, s_person, s_start, s_end = zip(*segments, strict=True)
    count = len(frame)
    clips, _ = pd.factorize(np.concatenate([clip, np.array(s_clip, dtype=object)]))
    people, names = pd.factorize(np.concatenate([person, np.array(s_person, dtype=object)]))
    low, high = frame.min(), frame.max()
    base = (clips.astype(np.int64) * len(names) + people) * (high - low + 1) - low
    start, end = np.maximum(s_start, low), np.minimum(s_end, high)
    valid = start <= end
    # A frame is inside a segment when more have begun by then than have ended before it.
    begun = np.searchsorted(np.sort((base[count:] + start)[valid]), base[:count] + frame, side="right")
    ended = np.searchsorted(np.sort((base[count:] + end)[valid]), base[:count] + frame, side="left")
    return (begun > ended).astype(np.int64)


def _folders(folder: Path, what: str) -> list[str]:
    return [name for name in _listing(folder, what) if (folder / name).is_dir()]


def _listing(folder: Path, what: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 (names are all that is needed, a million of them)
    except FileNotFoundError:
        raise UserError(f"{folder}: no such folder ({what})") from None
    except NotADirectoryError:
        raise UserError(f"{folder}: not a folder ({what})") from None


def _find_images(root: Path, table: dict[str, Any]) -> np.ndarray:
    """Find the crop of each row, "" where there is none. One listing a track, because a stat for each of millions of
    frames takes minutes on a network disk.
    """  # noqa: D205
    image = np.full(len(table["frame"]), "", dtype=object)
    change = (table["clip"][1:] != table["clip"][:-1]) | (table["track"][1:] != table["track"][:-1])
    starts = np.concatenate([[0], np.flatnonzero(change) + 1]) if len(image) else np.empty(0, dtype=np.int64)
    for start, end in zip(starts, np.append(starts[1:], len(image)), strict=True):
        folder = f"face_imgs/{table['clip'][start]}/{table['track'][start]}"
        try:
            names = set(os.listdir(root / folder))  # noqa: PTH208
        except FileNotFoundError:
            continue
        for row, frame in enumerate(table["frame"][start:end].tolist(), start):
            name = f"face_{frame:05d}.jpg"
            if name in names:
                image[row] = f"{folder}/{name}"
    return image


def read_challenge(top: Path, labels: Path | None = None, prefix: str = "") -> pd.DataFrame:
    """Read a tree of challenge crops, `<video>/<track>/<frame>_<unique id>.jpg`, as the test split of `read_split`.

    Args:
        top: the folder of the videos.
        labels: a file in the form of `labels_challenge.csv`, used where it exists.
        prefix: put before each image's path, which otherwise is relative to `top`.
    """
    columns: dict[str, list] = {name: [] for name in ("clip", "track", "frame", "image", "unique_id")}
    for video in _folders(top, "the challenge's test crops"):
        for track in _folders(top / video, "a test video"):
            folder = top / video / track
            names = [name for name in _listing(folder, "a test track") if name.endswith(".jpg")]
            split = [name[: -len(".jpg")].partition("_") for name in names]
            for name, (number, _, unique_id) in zip(names, split, strict=True):
                if not (number.isdigit() and number.isascii() and unique_id):
                    raise UserError(f"{folder / name}: a test crop is named <frame>_<unique id>.jpg")
            columns["clip"] += [video] * len(names)
            columns["track"] += [track] * len(names)
            columns["frame"] += [int(number) for number, _, _ in split]
            columns["image"] += [f"{prefix}{video}/{track}/{name}" for name in names]
            columns["unique_id"] += [unique_id for _, _, unique_id in split]
    if not columns["frame"]:
        raise UserError(f"{top}: no <video>/<track>/<frame>_<unique id>.jpg below it")
    table = pd.DataFrame(columns)
    if labels is not None and labels.exists():
        table = table.merge(_read_labels(labels), how="outer", on=["clip", "track", "frame"], suffixes=("", "_label"))
        both = table["unique_id"].notna() & table["unique_id_label"].notna()
        differ = table[both & (table["unique_id"] != table["unique_id_label"])]
        if len(differ):
            row = differ.iloc[0]
            raise UserError(
                f"{labels}: {len(differ)} rows name another unique id than the crop's file: clip {row['clip']}, "
                f"track {row['track']}, frame {row['frame']}: {row['unique_id_label']}, but {row['image']}"
            )
        table["unique_id"] = table["unique_id"].fillna(table["unique_id_label"])
        table = table.drop(columns="unique_id_label").fillna({"image": "", "person": "", "label": -1})
    else:
        table = table.assign(person="", label=-1, **dict.fromkeys(BOX, np.nan))
    return frame_table({name: table[name] for name in COLUMNS}, str(top))


def _read_labels(path: Path) -> pd.DataFrame:
    wanted = ["clip", "track", "frame", "unique_id", "person", *BOX, "label"]
    types = dict.fromkeys(["clip", "track", "unique_id", "person"], str)
    try:
        labels = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=dict.fromkeys(BOX, [""]))
        labels = labels[wanted].astype({"frame": np.int64, "label": np.int64})
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]}; its header must be {','.join(wanted)}") from None
    except (ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{path}: {error}") from None
    return labels
