"""Ego4D's annotations as downloaded and as prepared: parsed, checked, and listed on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.frames import LARGEST
from registry import UserError
from zoo.files.untrusted import checked_id, distinct, read_json

_RECORD = itemgetter("frameNumber", "x", "y", "width", "height")


def annotated_clips(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the clips of an annotation file `av_train.json` or `av_val.json`, in file order.

    Raises:
        UserError: the file is missing, broken, or not in the form
            `{"videos": [{"clips": [{"clip_uid": "...", "social_segments_looking": [{...}] or null}]}]}`.
    """
    clips = [clip for video in _annotated_videos(path) for clip in video["clips"]]
    for number, clip in enumerate(clips):
        uid = checked_id(clip["clip_uid"], f"{path}: clip {number}")
        if "social_segments_looking" not in clip and "looking_at_me" in clip:
            raise UserError(
                f"{path}: clip {uid} lacks social_segments_looking; this is another release of the annotations, with "
                "looking_at_me; download those of version 2: ego4d --datasets annotations --version v2"
            )
        segments = clip.get("social_segments_looking")
        if not (segments is None or (isinstance(segments, list) and all(isinstance(one, dict) for one in segments))):
            raise UserError(f"{path}: clip {uid}: social_segments_looking must be null or a list of objects")
    distinct((clip["clip_uid"] for clip in clips), f"{path}: clips")
    yield from clips


def clip_videos(path: Path) -> dict[str, str]:
    """Reads clip -> video from an annotation file; without the clips of videos that it does not name.

    Raises:
        UserError: the file is missing, broken, or not in the form of `annotated_clips`.
    """
    named = ((video.get("video_uid"), video["clips"]) for video in _annotated_videos(path))
    return {clip["clip_uid"]: name for name, clips in named if isinstance(name, str) for clip in clips}


def _annotated_videos(path: Path) -> list[dict[str, Any]]:
    """Reads the videos of an annotation file, each with its `clips`; errors as in `clip_videos`."""
    content = read_json(path, "the annotations as downloaded")
    try:
        videos: list[dict[str, Any]] = content["videos"]
        well_formed = all(isinstance(clip["clip_uid"], str) for video in videos for clip in video["clips"])
    except (KeyError, TypeError):
        well_formed = False
    if not well_formed:
        raise UserError(f"{path}: not an Ego4D AV annotation file (expected videos -> clips -> clip_uid)")
    return videos


def boxes_of(records: list, where: str) -> tuple[np.ndarray, set[Any]]:
    """Checks the boxes of a track and converts them to an array.

    Args:
        records: R boxes as parsed JSON.
        where: their source, for the messages.

    Returns:
        float64 (R, 5) frame, x, y, width, height; and the ids of the persons.

    Raises:
        UserError: a box lacks a number or has an impossible one; names the box.
    """
    try:
        numbers = list(chain.from_iterable(map(_RECORD, records)))
        people = {record["Person ID"] for record in records}
        if not {*map(type, numbers)} <= {int, float} or not {*map(type, people)} <= {str, int}:
            raise TypeError
        boxes = np.array(numbers, dtype=np.float64).reshape(-1, 5)
    except (KeyError, TypeError, OverflowError):
        raise UserError(f"{where}: {_bad_record(records)}") from None
    wrong = ~(np.abs(boxes) < LARGEST)  # NaN too
    wrong[:, 0] |= boxes[:, 0] != np.round(boxes[:, 0])
    if wrong.any():
        number, column = np.argwhere(wrong)[0].tolist()
        key = ("frameNumber", "x", "y", "width", "height")[column]
        expected = "a number below 2^31" if column else "a whole number below 2^31"
        raise UserError(f"{where}: box {number}: {key} is {boxes[number, column]:g}, expected {expected}")
    return boxes, people


def _bad_record(records: list) -> str:
    """Describes the first malformed box."""
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            return f"box {number} is not an object"
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
    raise AssertionError("every box is well formed")


def read_segment(where: str, segment: Any, person: str) -> tuple[str, int, int]:
    """Reads (person, start, end) of a looking segment whose person is under the key `person`."""
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


def list_folder(folder: Path, what: str) -> list[str]:
    """Returns the sorted names in a folder.

    Args:
        folder: to list.
        what: its content, for the messages.

    Raises:
        UserError: the folder is missing or unreadable, or a name in it is not UTF-8.
    """
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 (up to a million names, no paths needed)
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


def list_subfolders(folder: Path, what: str) -> list[str]:
    """Returns the sorted names of the folders in a folder; errors as in `list_folder`."""
    return [name for name in list_folder(folder, what) if (folder / name).is_dir()]
