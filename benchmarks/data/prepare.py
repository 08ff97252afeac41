"""Prepares Ego4D downloads for the reader: face boxes per track, looking segments, split lists.

The output depends only on the downloaded files and is written atomically, so running it again gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.data.annotations import annotated_clips, boxes_of, read_segment
from benchmarks.data.ego4d import read_list
from registry import UserError
from zoo.files.atomic import cannot_write, replacing
from zoo.files.untrusted import below, checked_id, distinct

SPLITS = ("train", "val")


@dataclass
class PreparationReport:
    """Counts and findings of a preparation."""

    clips: dict[str, int] = field(default_factory=dict)  # by split
    tracks: int = 0
    boxes: int = 0
    segments: int = 0
    written: int = 0  # new or changed files
    no_size: int = 0  # boxes that the reader drops, by reason
    before_frame_1: int = 0
    segments_without_person: int = 0
    segments_of_unlisted: int = 0
    without_segments: dict[str, list[str]] = field(default_factory=dict)
    wearer_differs: list[str] = field(default_factory=list)
    several_wearers: list[str] = field(default_factory=list)
    no_wearer: list[str] = field(default_factory=list)
    not_annotated: dict[str, list[str]] = field(default_factory=dict)  # in split/<split>.list only
    missing_files: list[str] = field(default_factory=list)
    lists_written: list[str] = field(default_factory=list)
    without_list: list[str] = field(default_factory=list)  # lists that would be empty
    other_lists: list[str] = field(default_factory=list)  # existing lists with other content
    stale: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Returns the report, one finding per line."""
        counts = ", ".join(f"{count} clips of {split}" for split, count in self.clips.items())
        said = [
            f"annotations: {counts}; {self.tracks} tracks, {self.boxes} boxes, {self.segments} looking segments",
            f"files written: {self.written} (existing files with the same content are kept)",
            f"boxes dropped by the reader: {self.no_size} without width or height, {self.before_frame_1} at "
            f"frame 0 or below (frames count from 1); gaps inside a track are interpolated",
        ]
        if self.segments_without_person:
            said.append(f"segments without a person, dropped: {self.segments_without_person}")
        if self.segments_of_unlisted:
            said.append(
                f"segments of persons that the clip does not list, kept without effect: {self.segments_of_unlisted}"
            )
        for split, clips in self.without_segments.items():
            said += _listed(
                f"{split} clips without looking segments; if split/ lists them, their frames count as not looking",
                clips,
            )
        said += _listed("clips whose camera_wearer is not persons[0]; camera_wearer is used", self.wearer_differs)
        said += _listed("clips with more than one camera_wearer; none of them has boxes", self.several_wearers)
        said += _listed("clips without a camera_wearer; all persons are kept", self.no_wearer)
        for split, clips in self.not_annotated.items():
            said += _listed(f"clips of split/{split}.list without annotations", clips)
        said += _listed("files of an earlier preparation, not in the annotations; remove them by hand", self.stale)
        said += [f"written: {path}" for path in self.lists_written]
        said += [
            f"not written: {path}; no clip of its annotation file has social_segments_looking"
            for path in self.without_list
        ]
        said += [
            f"not the official list: {path}; delete it and prepare again to have that written"
            for path in self.other_lists
        ]
        said += [f"missing: {path}" for path in self.missing_files]
        return said


def prepare_annotations(
    root: str | Path, official_lists: bool = False, progress: Callable[[int], None] = lambda count: None
) -> PreparationReport:
    """Converts `json/av_train.json` and `json/av_val.json` to `json_original/` and `result_LAM/`.

    `json_original/<clip>/<track>.json` lists the boxes of a track as annotated, in order; the reader cleans them up and
    interpolates. The camera wearer (`camera_wearer` true, or `persons[0]` without that key) gets no boxes.
    `result_LAM/<clip>.json` lists the looking segments that name a person; a clip whose `social_segments_looking` is
    null gets no file.

    Args:
        root: folder that holds `json/`; one of the two files may be missing.
        official_lists: write missing `split/train.list` and `split/val.list`: the clips with a list of looking
            segments, in file order, as in the published lists.
        progress: called with 1 after each clip.

    Raises:
        UserError: neither file exists, or one is unreadable or malformed.
    """
    root = Path(root)
    report = PreparationReport()
    split_of: dict[str, str] = {}
    for split in SPLITS:
        path = root / "json" / f"av_{split}.json"
        if not path.exists():
            report.missing_files.append(str(path))
            continue
        clips = list(annotated_clips(path))
        report.clips[split] = len(clips)
        for clip in clips:
            uid = clip["clip_uid"]
            if uid in split_of:
                raise UserError(f"{path}: clip {uid} is in both {split_of[uid]} and {split}")
            split_of[uid] = split
        distinct(split_of, f"{path}: clips of all splits")
        for clip in clips:
            _prepare_clip(root, path, clip, report)
            progress(1)
        annotated = [clip["clip_uid"] for clip in clips if clip.get("social_segments_looking") is not None]
        without = [clip["clip_uid"] for clip in clips if clip.get("social_segments_looking") is None]
        if without:
            report.without_segments[split] = without
        listing = root / "split" / f"{split}.list"
        official = "".join(f"{uid}\n" for uid in annotated)
        if official_lists and not listing.exists():
            if annotated:
                _write(listing, official, report)
            (report.lists_written if annotated else report.without_list).append(str(listing))
        elif official_lists and not _has(listing, official.encode()):
            report.other_lists.append(str(listing))
    if not report.clips:
        raise UserError(
            f"neither {root / 'json' / 'av_train.json'} nor av_val.json exists; download Ego4D's AV annotations"
        )
    for split in report.clips:
        listing = root / "split" / f"{split}.list"
        if str(listing) in report.without_list:
            continue
        if not listing.exists():
            report.missing_files.append(f"{listing} (--split-lists official writes it from the annotations)")
        elif unknown := [uid for uid in read_list(root, split) if uid not in split_of]:
            report.not_annotated[split] = unknown
    return report


def _prepare_clip(root: Path, source: Path, clip: dict[str, Any], report: PreparationReport) -> None:
    uid = clip["clip_uid"]
    where = f"{source}: clip {uid}"
    folder = root / "json_original"
    tracks: dict[str, list[dict[str, Any]]] = {}
    owner: dict[str, str] = {}  # of each track
    people = set()
    try:
        for person in _partners(clip, report):
            people.add(_person(person))
            for path in person["tracking_paths"]:
                track = checked_id(path["track_id"], f"{where}, a track_id")
                if owner.setdefault(track, _person(person)) != _person(person):
                    raise UserError(
                        f"{where}: track {track} belongs to persons {owner[track]} and {_person(person)}, so its "
                        "labels are unknown; correct the file, or download it again"
                    )
                records = tracks.setdefault(track, [])
                for box in path["track"]:
                    records.append(
                        {
                            "clip_uid": uid,
                            "frameNumber": box["frame"],
                            "Person ID": _person(person),
                            "x": box["x"],
                            "y": box["y"],
                            "height": box["height"],
                            "width": box["width"],
                        }
                    )
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{where}: expected persons -> tracking_paths -> track -> frame, x, y, width, height ({error})"
        ) from None
    distinct(tracks, f"{where}: tracks")
    for track, records in tracks.items():
        numbers, _ = boxes_of(records, f"{where}, track {track}")
        report.no_size += int((~(numbers[:, 3:] > 0).all(axis=1)).sum())
        report.before_frame_1 += int((numbers[:, 0] < 1).sum())
        _write(below(folder, f"{uid}/{track}.json", where, written=True), json.dumps(records), report)
        report.boxes += len(records)
    report.tracks += len(tracks)
    folder /= uid
    try:
        folder.mkdir(parents=True, exist_ok=True)  # also for a clip without tracks
    except OSError as error:
        raise cannot_write(folder, error) from None
    report.stale += sorted(str(path) for path in folder.glob("*.json") if path.stem not in tracks)

    result = below(root / "result_LAM", f"{uid}.json", where, written=True)
    if clip.get("social_segments_looking") is None:
        result.parent.mkdir(parents=True, exist_ok=True)
        report.stale += [str(result)] if result.exists() else []
        return
    segments = []
    for number, segment in enumerate(clip["social_segments_looking"]):
        if segment.get("person") is None:
            report.segments_without_person += 1
            continue
        label, start, end = read_segment(f"{where}, social_segments_looking[{number}]", segment, "person")
        segments.append({"label": label, "start_frame": start, "end_frame": end})
        report.segments_of_unlisted += label not in people
    report.segments += len(segments)
    _write(result, json.dumps(segments), report)


def _person(person: dict[str, Any]) -> str:
    """Returns the id of a person, which is text or an integer in the annotations."""
    if type(person["person_id"]) not in (str, int):
        raise TypeError(f"person_id is {person['person_id']!r:.80}")
    return str(person["person_id"])


def _partners(clip: dict[str, Any], report: PreparationReport) -> list[dict[str, Any]]:
    """Lists the persons of a clip except the camera wearer."""
    persons = clip["persons"]
    if not any("camera_wearer" in person for person in persons):
        return persons[1:]
    wearers = [person for person in persons if person.get("camera_wearer")]
    if not wearers:
        report.no_wearer.append(clip["clip_uid"])
    elif len(wearers) > 1:
        report.several_wearers.append(clip["clip_uid"])
    elif wearers != persons[:1]:
        report.wearer_differs.append(clip["clip_uid"])
    return [person for person in persons if not person.get("camera_wearer")]


def _write(path: Path, text: str, report: PreparationReport) -> None:
    """Writes a file unless it has this content already, so that a second run changes no time stamp."""
    data = text.encode()
    if _has(path, data):
        return
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    report.written += 1


def _has(path: Path, data: bytes) -> bool:
    """Whether a file has this content."""
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data


def _listed(what: str, names: list[str]) -> list[str]:
    return [f"{what}: {len(names)}", *(f"  {name}" for name in names)] if names else []
