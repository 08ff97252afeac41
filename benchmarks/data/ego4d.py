"""Reader of data sets in the Ego4D Looking-At-Me layout, SynthLAM's included: a prepared folder -> FrameTable.

A root holds `split/<split>.list` (one clip a line), `json_original/<clip>/<track>.json` (face boxes),
`result_LAM/<clip>.json` (looking segments), `face_imgs/<clip>/<track>/face_%05d.jpg` (crops) and, for the challenge
test set, `videos_challenge/<video>/<track>/<frame>_<unique id>.jpg` with an optional `labels_challenge.csv`.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import time
from collections.abc import Iterator
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data import cache, frames
from benchmarks.data.frames import BOX, COLUMNS, LARGEST, frame_table, repeated
from registry import UserError
from zoo.files.untrusted import checked_id, distinct, read_bytes, read_json, read_text

SPLITS = ("train", "val", "test")
LABEL_POLICIES = ("published", "is_at_me")

# A file that was written this recently (ns) may be written again within the same tick of its file system's clock, which
# its time would not show. Two seconds is the coarsest clock there is, FAT's.
_SETTLED = 2_000_000_000

# Rows that interpolation may make, whatever there is, and of each box that there is: one in 10 seconds is enough.
ROWS, ROWS_A_BOX = 100_000, 300

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
    asked = (str(root.resolve()), split, label_policy, f"images={images}")
    signature, settled = _signature(root, split, clips, images, label_policy)
    table = cache.load(asked, signature)
    if table is None:
        table = _read_annotated(root, split, clips, images, label_policy)
        if settled:
            cache.store(asked, signature, table)
    return table


def _read_annotated(root: Path, split: str, clips: list[str], images: bool, label_policy: str) -> pd.DataFrame:
    """Read the annotations themselves, for `read_split`."""
    tracks, track, boxes = _read_boxes(root, clips)
    columns, of_row = _interpolated(root, tracks, track, boxes)
    segments = _marked_segments(root, split, clips) if label_policy == "is_at_me" else _result_segments(root, clips)
    columns["label"] = _label(tracks, of_row, columns["frame"], segments)
    # Rows of a track stand together, so each text is repeated; from as many strings it would take ten times as long.
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
            raise UserError(f"{root / 'face_imgs'}: no crop of any frame of {split}; run `bench.py prepare`")
    return frame_table(columns, str(root))


def _signature(root: Path, split: str, clips: list[str], images: bool, label_policy: str) -> tuple[str, bool]:
    """Digest this code, and the names, sizes and times of all that a split is read from, without opening any of it.

    Returns:
        The digest, and whether a change from now on would show in it.
    """
    seen: list[str] = [_code(), str(pd.__version__), *clips]
    newest = 0

    def note(name: str, status: os.stat_result) -> None:
        nonlocal newest
        newest = max(newest, status.st_mtime_ns)
        seen.append(f"{name}/{status.st_size}/{status.st_mtime_ns}/{status.st_ctime_ns}")

    folders = [f"json_original/{clip}" for clip in clips]
    files = [f"result_LAM/{clip}.json" for clip in clips]
    if label_policy == "is_at_me":
        files = [f"json/av_{split}.json"]
    if images:  # each track's own folder changes whenever a crop is written or removed
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
            note(name, os.stat(f"{top}/{name}"))  # noqa: PTH116 (a path object for each takes twice as long)
        except OSError:
            seen.append(f"{name}/absent")
    digest = hashlib.sha256("\0".join(seen).encode("utf-8", "surrogateescape")).hexdigest()
    return digest, newest < time.time_ns() - _SETTLED


@functools.cache
def _code() -> str:
    """Digest the code that makes the table, so that no change of it can leave an old table in use."""
    sources = [Path(str(module.__file__)).read_bytes() for module in (cache, frames)] + [Path(__file__).read_bytes()]
    return hashlib.sha256(b"\0".join(sources)).hexdigest()


def read_list(root: str | Path, split: str) -> list[str]:
    """Read the clips of `split/<split>.list`, in file order; blank lines do not count.

    Raises:
        UserError: the file is missing or empty, or names a clip twice, or one that can be no folder's name.
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
    """List the clips of a split that have no `result_LAM` file: annotated as having no looking segments at all.

    All their frames are labelled 0. The published lists leave such clips out.
    """
    return [clip for clip in read_list(root, split) if not os.path.lexists(_segments_file(Path(root), clip))]


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
            boxes, people = boxes_of(records, str(path))
            if len(people) > 1:
                raise UserError(f"{path}: boxes of more than one person ({', '.join(sorted(map(str, people)))})")
            found.append((clip, name[: -len(".json")], str(people.pop()) if people else ""))
            counts.append(len(boxes))
            parts.append(boxes)
    tracks = pd.DataFrame(found, columns=["clip", "track", "person"], dtype=object)
    return tracks, np.repeat(np.arange(len(found)), counts), np.concatenate([np.empty((0, 5)), *parts])


def boxes_of(records: list, where: str) -> tuple[np.ndarray, set[Any]]:
    """Check the boxes of a track and put them in an array.

    Args:
        records: R of them, as JSON has them.
        where: they were read from, for the messages.

    Returns:
        float64 (R, 5) frame, x, y, width, height; and the persons named.

    Raises:
        UserError: one of them lacks a number, or has one that no frame or picture has; says which.
    """
    try:
        numbers = list(chain.from_iterable(map(_RECORD, records)))
        people = {record["Person ID"] for record in records}
        if not {*map(type, numbers)} <= {int, float} or not {*map(type, people)} <= {str, int}:
            raise TypeError
        boxes = np.array(numbers, dtype=np.float64).reshape(-1, 5)
    except (KeyError, TypeError, OverflowError):
        raise UserError(f"{where}: {_bad_record(records)}") from None
    wrong = np.abs(boxes) >= LARGEST
    wrong[:, 0] |= boxes[:, 0] != np.round(boxes[:, 0])  # NaN too
    if wrong.any():
        number, column = np.argwhere(wrong)[0].tolist()
        key = ("frameNumber", "x", "y", "width", "height")[column]
        expected = "a number below 2^31" if column else "a whole number below 2^31"
        raise UserError(f"{where}: box {number}: {key} is {boxes[number, column]:g}, expected {expected}")
    return boxes, people


def _bad_record(records: list) -> str:
    """The first box that is not of the form, and why."""
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            return f"box {number} is no object"
        for key in ("frameNumber", "Person ID", "x", "y", "width", "height"):
            if key not in record:
                return f"box {number} has no {key!r}"
            kinds, expected = (
                ((int, float), "a number") if key != "Person ID" else ((str, int), "text or a whole number")
            )
            if type(record[key]) not in kinds:
                return f"box {number}: {key} is {record[key]!r:.80}, expected {expected}"
            if key != "Person ID" and abs(record[key]) >= LARGEST:
                return f"box {number}: {key} is {record[key]!r:.20}..., expected a number below 2^31"
    raise AssertionError("every box is of the form")


def _interpolated(
    root: Path, tracks: pd.DataFrame, track: np.ndarray, boxes: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    """Apply the clean-up and interpolation rules of `read_split` to all tracks at once.

    Returns:
        Columns frame, x1, y1, x2, y2 of the table, N rows, track after track; int64 (N,) the track of each.
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
    # One line over all tracks: each starts where the one before ended, so that no frame is interpolated between two.
    # Whole numbers of this size are exact in float64.
    shift = np.cumsum(lengths) - lengths - frame[starts]
    at = full + shift[rows]
    known = frame + np.repeat(shift, ends - starts + 1)
    corners = np.stack([np.interp(at, known, corner) for corner in corners]) if len(track) else corners
    return {"frame": full, **dict(zip(BOX, corners, strict=True))}, track[starts][rows]


def _result_segments(root: Path, clips: list[str]) -> list[tuple[str, str, int, int]]:
    """Read (clip, person, start, end) of every segment in `result_LAM`; a clip without a file has none."""
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
    """The file of a clip's looking segments; a link that leads nowhere is there, and cannot be read."""
    return root / "result_LAM" / f"{clip}.json"


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
        well_formed = all(isinstance(clip["clip_uid"], str) for clip in clips)
    except (KeyError, TypeError):
        well_formed = False
    if not well_formed:
        raise UserError(f"{path}: not an Ego4D AV annotation file (expected videos -> clips -> clip_uid)")
    for number, clip in enumerate(clips):
        uid = checked_id(clip["clip_uid"], f"{path}: clip {number}")
        segments = clip.get("social_segments_looking")
        if not (segments is None or (isinstance(segments, list) and all(isinstance(one, dict) for one in segments))):
            raise UserError(f"{path}: clip {uid}: social_segments_looking is no list of objects, and not null")
    distinct((clip["clip_uid"] for clip in clips), f"{path}: clips")
    yield from clips


def read_segment(where: str, segment: Any, person: str) -> tuple[str, int, int]:
    """Read (person, start, end) of a looking segment that names its person under the key `person`."""
    try:
        who, *frame = (segment[key] for key in (person, "start_frame", "end_frame"))
        whole = all(type(at) in (int, float) and abs(at) < LARGEST and at % 1 == 0 for at in frame)
        if whole and type(who) in (str, int):
            return str(who), int(frame[0]), int(frame[1])
    except (KeyError, TypeError):
        pass
    raise UserError(
        f"{where}: expected {person}, start_frame and end_frame, whole numbers below 2^31, found {segment!r:.120}"
    )


def _label(
    tracks: pd.DataFrame, track: np.ndarray, frame: np.ndarray, segments: list[tuple[str, str, int, int]]
) -> np.ndarray:
    """Label the frames that lie in a segment of their clip and person: int64 (N,) of 0 and 1.

    Args:
        tracks: the tracks, one row each.
        track: int64 (N,) the track of each frame.
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
    # A frame is inside a segment when more have begun by then than have ended before it.
    at = own[track] * span + (frame - low)
    begun = np.searchsorted(np.sort((base + begin)[valid]), at, side="right")
    ended = np.searchsorted(np.sort((base + end)[valid]), at, side="left")
    return (begun > ended).astype(np.int64)


def _folders(folder: Path, what: str) -> list[str]:
    return [name for name in _listing(folder, what) if (folder / name).is_dir()]


def _listing(folder: Path, what: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 (names are all that is needed, a million of them)
        if not (joined := "".join(names)).isascii():
            joined.encode()
        return names
    except UnicodeEncodeError:
        bad = next(name for name in names if not name.isprintable())
        raise UserError(f"{folder}: the name {bad!r} in it is not UTF-8 ({what})") from None
    except FileNotFoundError:
        raise UserError(f"{folder}: no such folder ({what})") from None
    except NotADirectoryError:
        raise UserError(f"{folder}: not a folder ({what})") from None
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror} ({what})") from None


def _find_images(root: Path, folders: list[str], frame: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Find the crop of each row, "" where there is none. One listing a track, because a stat for each of millions of
    frames takes minutes on a network disk.

    Args:
        root: what the folders are relative to.
        folders: of each track in turn.
        frame: int64 (N,) of all tracks.
        counts: how many of them each track has.
    """  # noqa: D205
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


def read_challenge(top: Path, labels: Path | None = None, prefix: str = "") -> pd.DataFrame:
    """Read a tree of challenge crops, `<video>/<track>/<frame>_<unique id>.jpg`, as the test split of `read_split`.

    Args:
        top: the folder of the videos.
        labels: a file in the form of `labels_challenge.csv`, used where it exists.
        prefix: put before each image's path, which otherwise is relative to `top`.
    """
    found: list[tuple[str, str]] = []
    counts, numbers, images, unique_ids = [], [], [], []
    for video in _folders(top, "the challenge's test crops"):
        for track in _folders(top / video, "a test video"):
            folder = top / video / track
            names = [name for name in _listing(folder, "a test track") if name.endswith(".jpg")]
            number, ids = _parsed_names(folder, names)
            found.append((video, track))
            counts.append(len(names))
            numbers.append(number)
            images += [f"{prefix}{video}/{track}/{name}" for name in names]
            unique_ids += ids
    if not images:
        raise UserError(f"{top}: no <video>/<track>/<frame>_<unique id>.jpg below it")
    videos, tracks = (repeated(list(values), counts) for values in zip(*found, strict=True))
    columns: dict[str, Any] = {"clip": videos, "track": tracks, "frame": np.concatenate(numbers)}
    columns |= {"image": np.array(images, dtype=object), "unique_id": np.array(unique_ids, dtype=object)}
    if labels is not None and os.path.lexists(labels):
        table = pd.DataFrame(columns)
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
        columns = {name: table[name] for name in COLUMNS}
    else:
        columns |= {"person": "", "label": -1, **dict.fromkeys(BOX, np.nan)}
    return frame_table(columns, str(top))


def _parsed_names(folder: Path, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Split names `<frame>_<unique id>.jpg`: int64 (N,) frame numbers, and the ids."""
    width = names[0].find("_") if names else 0
    text = "".join(names).encode("ascii", "replace")
    if width in range(1, 16) and len(text) == len(names) * len(names[0]) and len(set(map(len, names))) == 1:
        # Names of one length, as every track has them: all digits of all names at once.
        letters = np.frombuffer(text, dtype=np.uint8).reshape(len(names), -1)
        digits = letters[:, :width] - np.uint8(ord("0"))
        if (digits <= 9).all() and (letters[:, width] == ord("_")).all() and len(names[0]) > width + len("_.jpg"):
            return digits @ 10 ** np.arange(width)[::-1], [name[width + 1 : -len(".jpg")] for name in names]
    split = [name[: -len(".jpg")].partition("_") for name in names]
    for name, (number, _, unique_id) in zip(names, split, strict=True):
        if not (number.isdigit() and number.isascii() and len(number) < 19 and unique_id):
            raise UserError(f"{folder / name}: a test crop is named <frame>_<unique id>.jpg")
    return np.array([int(number) for number, _, _ in split], dtype=np.int64), [unique_id for _, _, unique_id in split]


def _read_labels(path: Path) -> pd.DataFrame:
    wanted = ["clip", "track", "frame", "unique_id", "person", *BOX, "label"]
    types: dict[str, Any] = dict.fromkeys(["clip", "track", "unique_id", "person"], str)
    types |= {"frame": np.int64, "label": np.int64, **dict.fromkeys(BOX, np.float64)}
    data = io.BytesIO(read_bytes(path, "labels of the test crops"))
    try:
        return pd.read_csv(data, dtype=types, keep_default_na=False, na_values=dict.fromkeys(BOX, [""]))[wanted]
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]}; its header must be {','.join(wanted)}") from None
    except (ValueError, OverflowError) as error:  # pandas' own errors are of the first
        raise UserError(f"{path}: {error}") from None
