"""Ego4D's annotation files, split lists, tracklets, looking segments and the challenge's test tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from benchmarks.data import ego4d, windows
from registry import UserError
from tests.fuzz.harness import Kind, command, filled
from tests.fuzz.values import file_of, ids, place, spoilt_csv, spoilt_json, styled


def _track(first: int, count: int = 6) -> list[dict[str, Any]]:
    return [
        {"frame": number, "x": 10.5, "y": 20.25, "width": 30.0, "height": 40.0}
        for number in range(first, first + count)
    ]


def _clip(uid: str) -> dict[str, Any]:
    return {
        "clip_uid": uid,
        "persons": [
            {"person_id": "0", "camera_wearer": True, "tracking_paths": []},
            {"person_id": "1", "tracking_paths": [{"track_id": "t1", "track": _track(1)}]},
            {"person_id": "2", "tracking_paths": [{"track_id": "t2", "track": _track(3)}]},
        ],
        "social_segments_looking": [
            {"person": "1", "start_frame": 2, "end_frame": 4, "is_at_me": True},
            {"person": None, "start_frame": 2, "end_frame": 4, "is_at_me": True},
        ],
    }


ANNOTATION = {"version": "v2", "videos": [{"video_uid": "v", "clips": [_clip("c1"), _clip("c2")]}]}
BOXES = [
    {"clip_uid": "c1", "frameNumber": frame, "Person ID": "1", "x": 10.5, "y": 20.25, "height": 40, "width": 30.0}
    for frame in range(1, 7)
]
SEGMENTS = [{"label": "1", "start_frame": 2, "end_frame": 4}, {"label": "1", "start_frame": 5, "end_frame": 5}]
LABELS = [
    ["clip", "track", "frame", "unique_id", "person", "x1", "y1", "x2", "y2", "label"],
    *(["v1", "t1", frame, f"{frame}ab", "1", 1, 2, 30, 40, frame % 2] for frame in range(1, 6)),
]


def _use(folder: Path, split: str) -> None:
    """Read a split like a training: table, key frames and windows."""
    table = ego4d.read_split(folder, split)
    windows.windows(table, centres=windows.key_frames(table))


def _prepared(folder: Path, listing: bytes | str = b"c1\nc2\n") -> None:
    """Write a sound prepared folder with two training clips."""
    for clip in ("c1", "c2"):
        place(folder / "json_original" / clip / "t1.json", json.dumps(BOXES).encode())
        place(folder / "result_LAM" / f"{clip}.json", json.dumps(SEGMENTS).encode())
        place(folder / "face_imgs" / clip / "t1" / "face_00001.jpg", b"")
    place(folder / "json" / "av_train.json", json.dumps(ANNOTATION).encode())
    place(folder / "split" / "train.list", listing)


def _write_annotation(folder: Path, case: bytes | str) -> None:
    if isinstance(case, bytes):
        case = case.replace(b"{outside}", str(folder.parent / "secret").encode())
    place(folder / "json" / "av_train.json", case)


def _prepare(folder: Path, case: Any) -> None:
    command("prepare", "--root", folder, "--annotations-only", "--split-lists", "official")
    _check_tracks(folder)
    ego4d.read_split(folder, "train", images=False)


def _check_tracks(folder: Path) -> None:
    """Check that prepare wrote JSON two levels deep: clip, then track."""
    for path in (path for path in (folder / "json_original").rglob("*.json") if path.is_file()):
        assert path.parent.parent == folder / "json_original", path
        json.loads(path.read_text(encoding="utf-8"))


def _write_ids(folder: Path, case: tuple[str, str, str, str]) -> None:
    clip, track, other, person = (filled(text, folder) for text in case)
    content = json.loads(json.dumps(ANNOTATION))
    first, second = content["videos"][0]["clips"]
    first["clip_uid"] = clip
    first["persons"][1]["tracking_paths"][0]["track_id"] = track
    first["persons"][2]["tracking_paths"][0]["track_id"] = other
    second["persons"][1]["person_id"] = person
    second["social_segments_looking"][0]["person"] = person
    place(folder / "json" / "av_train.json", json.dumps(content).encode())


def _write_list(folder: Path, case: bytes | str) -> None:
    if isinstance(case, bytes):
        case = case.replace(b"{outside}", str(folder.parent / "secret").encode())
    _prepared(folder, case)


def _write_boxes(folder: Path, case: bytes | str) -> None:
    _prepared(folder)
    place(folder / "json_original" / "c1" / "t1.json", case)


def _write_segments(folder: Path, case: bytes | str) -> None:
    _prepared(folder)
    place(folder / "result_LAM" / "c1.json", case)


def _write_test(folder: Path, case: tuple[bytes | str, list[str]]) -> None:
    labels, names = case
    for name in ["00001_1ab.jpg", "00002_2ab.jpg", "00003_3ab.jpg", "00004_4ab.jpg", "00005_5ab.jpg", *names]:
        path = folder / "videos_challenge" / "v1" / "t1" / name
        if not path.exists():
            place(path, b"")
    if labels != "none":
        place(folder / "labels_challenge.csv", labels)


_lines = st.lists(st.one_of(st.sampled_from(["c1", "c2", "c1", "", "  ", "# c1", "C1"]), ids), max_size=4)
_names = st.lists(
    st.sampled_from(
        [
            "00006_6ab.jpg",
            "1_",
            "_.jpg",
            "abc_1.jpg",
            "-1_a.jpg",
            "1_1ab.jpg",
            "9" * 18 + "_a.jpg",
            "9" * 30 + "_a.jpg",
            "00001_.jpg",
            "1.jpg",
            "a_b_c.jpg",
            "\x1b[31m.jpg",
            "0x1_a.jpg",
            "1e3_a.jpg",
            "１_a.jpg",
            ".jpg",
            "7_7\n.jpg",
            "00007_\udcff.jpg",
            "000001_1ab.jpg",
            "7_7ab.JPG",
        ]  # fmt: skip
    ),
    max_size=2,
    unique=True,
)

_boxes = st.lists(st.integers(-2, 4), max_size=4).map(
    lambda frames: [{"frame": frame, "x": 1.0, "y": 2.5, "width": 9.0, "height": 9.0} for frame in frames]
)
_path = st.fixed_dictionaries({"track_id": st.sampled_from("ab"), "track": _boxes})
_person = st.fixed_dictionaries(
    {"person_id": st.sampled_from(["0", "1", 1, "2"]), "tracking_paths": st.lists(_path, max_size=2)},
    optional={"camera_wearer": st.booleans()},
)
_segments = st.none() | st.lists(
    st.fixed_dictionaries(
        {"person": st.sampled_from(["0", "1", None]), "start_frame": st.integers(-3, 3), "end_frame": st.just(4)}
    ),
    max_size=2,
)
_people = st.fixed_dictionaries(
    {"clip_uid": st.just("c"), "persons": st.lists(_person, max_size=4)},
    optional={"social_segments_looking": _segments, "looking_at_me": _segments},
)


def _prepare_and_read(folder: Path, case: object) -> None:
    """What `prepare` accepts can be read."""
    command("prepare", "--root", folder, "--annotations-only", "--split-lists", "official")
    _check_tracks(folder)
    if (folder / "split" / "train.list").exists():
        try:
            ego4d.read_split(folder, "train", images=False)
        except UserError as error:
            raise AssertionError("written and then unreadable") from error


KINDS = (
    Kind(
        "persons, wearers and releases",
        _people.map(lambda clip: json.dumps({"videos": [{"clips": [clip]}]}).encode()),
        _write_annotation,
        _prepare_and_read,
    ),
    Kind("annotations (av_train.json)", file_of(spoilt_json(ANNOTATION)), _write_annotation, _prepare),
    Kind("ids in annotations", st.tuples(st.one_of(ids, st.just("c1")), ids, ids, ids), _write_ids, _prepare),
    Kind(
        "segments marked is_at_me",
        file_of(spoilt_json(ANNOTATION)),
        lambda folder, case: (_prepared(folder), place(folder / "json" / "av_train.json", case)),
        lambda folder, case: ego4d.read_split(folder, "train", label_policy="is_at_me"),
    ),
    Kind(
        "split lists",
        file_of(_lines.map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")).flatmap(styled)),
        _write_list,
        lambda folder, case: _use(folder, "train"),
    ),
    Kind(
        "tracklets (json_original)",
        file_of(spoilt_json(BOXES)),
        _write_boxes,
        lambda folder, case: _use(folder, "train"),
    ),
    Kind(
        "looking segments (result_LAM)",
        file_of(spoilt_json(SEGMENTS)),
        _write_segments,
        lambda folder, case: command("index", "--root", folder, "--split", "train", "-o", folder / "index.csv"),
    ),
    Kind(
        "test crops and their labels",
        st.tuples(st.one_of(st.just("none"), file_of(spoilt_csv(LABELS))), _names),
        _write_test,
        lambda folder, case: _use(folder, "test"),
    ),
)  # fmt: skip
