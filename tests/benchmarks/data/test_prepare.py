"""Preparation against the published scripts' output, and on annotations with faults."""

import json
import shutil
from pathlib import Path

import pytest

import bench
from benchmarks.data.ego4d import read_split
from benchmarks.data.prepare import prepare_annotations
from registry import UserError

GOLDEN = Path(__file__).parents[2] / "golden"


def contents(root, *folders):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.is_file()
    }


def test_published_output_byte_for_byte_and_again(tmp_path):
    shutil.copytree(GOLDEN / "ego4d_tree", tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "split")
    report = prepare_annotations(tmp_path, official_lists=True)
    folders = ("json_original", "result_LAM")
    assert contents(tmp_path, *folders) == contents(GOLDEN / "ego4d_expected", *folders)
    assert contents(tmp_path, "split") == contents(GOLDEN / "ego4d_tree", "split")
    stats = json.loads((GOLDEN / "ego4d_expected/stats.json").read_text())
    assert report.without_segments.get("train", []) == stats["clips_without_looking_segments"]["train"]
    assert report.without_segments["val"] == stats["clips_without_looking_segments"]["val"]
    dates = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = prepare_annotations(tmp_path, official_lists=True)
    assert again.written == 0 and {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == dates
    assert contents(tmp_path, *folders) == contents(GOLDEN / "ego4d_expected", *folders)
    assert len(read_split(tmp_path, "train", images=False)) == stats["stats"]["train_stride1"]["frames"]


def person(person_id, tracks=None, **more):
    paths = [{"track_id": track, "track": boxes} for track, boxes in (tracks or {}).items()]
    return {"person_id": person_id, "tracking_paths": paths} | more


def box(frame, width=9, height=9):
    return {"frame": frame, "x": 1, "y": 2.5, "width": width, "height": height}


def write(root, split="val", *clips, lists=True):
    (root / "json").mkdir(parents=True, exist_ok=True)
    annotation = {"videos": [{"video_uid": "v", "clips": [clip]} for clip in clips]}
    (root / "json" / f"av_{split}.json").write_text(json.dumps(annotation))
    if lists:
        (root / "split").mkdir(exist_ok=True)
        (root / "split" / f"{split}.list").write_text("".join(f"{clip['clip_uid']}\n" for clip in clips))
    return root


def clip(uid, persons, segments=()):
    looking = None if segments is None else list(segments)
    return {"clip_uid": uid, "persons": persons, "social_segments_looking": looking}


def segment(person, start=1, end=2):
    return {"person": person, "start_frame": start, "end_frame": end, "target": "0"}


def prepared(root, uid="c"):
    return sorted(path.stem for path in (root / "json_original" / uid).iterdir())


def test_who_the_wearer_is(tmp_path):
    tracks = {name: {name: [box(1)]} for name in "abc"}
    first = clip("first", [person("0", tracks["a"]), person("1", tracks["b"])])
    marked = clip("marked", [person("1", tracks["a"]), person("0", tracks["b"], camera_wearer=True)])
    nobody = clip("nobody", [person("1", tracks["a"], camera_wearer=False), person("2", tracks["b"])])
    usual = clip("usual", [person("0", tracks["a"], camera_wearer=True), person("1", tracks["b"], camera_wearer=False)])
    report = prepare_annotations(write(tmp_path, "val", first, marked, nobody, usual))
    assert prepared(tmp_path, "first") == ["b"]
    assert prepared(tmp_path, "marked") == ["a"]
    assert prepared(tmp_path, "nobody") == ["a", "b"]
    assert prepared(tmp_path, "usual") == ["b"]
    assert report.wearer_differs == ["marked"] and report.no_wearer == ["nobody"]
    text = "\n".join(report.lines())
    assert "camera_wearer is not persons[0]" in text and "\n  marked\n" in text


def test_report_counts(tmp_path):
    persons = [person("0"), person("1", {"t": [box(0), box(1, width=0), box(2, height=-3), box(3)]})]
    looking = clip("c", persons, [segment("1"), segment(None), segment("7")])
    root = write(tmp_path, "val", looking, clip("quiet", [person("0")], None))
    (root / "split/val.list").write_text("c\nquiet\nelsewhere\n")
    report = prepare_annotations(root)
    counts = (report.tracks, report.boxes, report.no_size, report.before_frame_1, report.segments)
    assert counts == (1, 4, 2, 1, 2)
    assert report.segments_without_person == 1 and report.segments_of_unlisted == 1
    assert report.without_segments == {"val": ["quiet"]} and report.not_annotated == {"val": ["elsewhere"]}
    assert any("av_train.json" in path for path in report.missing_files)
    (root / "split/val.list").write_text("c\nquiet\n")
    frames = read_split(root, "val", images=False)  # the trackless clip is fine
    assert frames["frame"].tolist() == [3] and frames["label"].tolist() == [0]


def test_lists_are_not_overwritten(tmp_path):
    root = write(tmp_path, "train", clip("a", [person("0")]), clip("b", [person("0")], None), lists=False)
    assert any("--split-lists official" in path for path in prepare_annotations(root).missing_files)
    prepare_annotations(root, official_lists=True)
    assert (root / "split/train.list").read_text() == "a\n"
    assert not prepare_annotations(root, official_lists=True).other_lists
    (root / "split/train.list").write_text("a\nb\n")
    report = prepare_annotations(root, official_lists=True)
    assert (root / "split/train.list").read_text() == "a\nb\n"
    assert (
        f"not the official list: {root / 'split/train.list'}; delete it and prepare again to have that written"
        in report.lines()
    )


def test_left_overs_of_other_annotations_are_told(tmp_path):
    root = write(tmp_path, "val", clip("c", [person("0"), person("1", {"t": [box(1)], "old": [box(1)]})]))
    prepare_annotations(root)
    write(root, "val", clip("c", [person("0"), person("1", {"t": [box(1)]})], None))
    report = prepare_annotations(root)
    assert report.stale == [str(root / "json_original/c/old.json"), str(root / "result_LAM/c.json")]


def test_one_track_in_two_paths_is_one_file(tmp_path):
    persons = [
        person("0"),
        {"person_id": "1", "tracking_paths": [{"track_id": "t", "track": [box(f)]} for f in (1, 2)]},
    ]
    prepare_annotations(write(tmp_path, "val", clip("c", persons)))
    assert [record["frameNumber"] for record in json.loads((tmp_path / "json_original/c/t.json").read_text())] == [1, 2]


def test_one_track_of_two_persons_is_refused_before_it_is_written(tmp_path):
    persons = [
        person("0", camera_wearer=True),
        person("1", {"t": [box(1)]}),
        person("2", {"u": [box(1)], "t": [box(7)]}),
    ]
    root = write(tmp_path, "val", clip("c", persons))
    with pytest.raises(UserError, match="av_val.json: clip c: track t belongs to persons 1 and 2, so its labels"):
        prepare_annotations(root)
    assert not (root / "json_original").exists()
    persons[2]["tracking_paths"][1]["track_id"] = "v"
    prepare_annotations(write(tmp_path, "val", clip("c", persons)))
    assert prepared(root) == ["t", "u", "v"] and len(read_split(root, "val", images=False)) == 3


def test_frames_below_1_are_counted_and_dropped(tmp_path):
    root = write(tmp_path, "val", clip("c", [person("0"), person("1", {"t": [box(f) for f in (-7, -1, 0, 1, 2)]})]))
    report = prepare_annotations(root)
    assert report.before_frame_1 == 3
    assert "3 at frame 0 or below (frames count from 1)" in "\n".join(report.lines())
    assert read_split(root, "val", images=False)["frame"].tolist() == [1, 2]


def test_two_wearers_are_told(tmp_path):
    persons = [person(str(number), {str(number): [box(1)]}, camera_wearer=number < 2) for number in range(3)]
    report = prepare_annotations(write(tmp_path, "val", clip("c", persons)))
    assert prepared(tmp_path) == ["2"] and report.several_wearers == ["c"] and report.wearer_differs == []
    assert "clips with more than one camera_wearer; none of them has boxes: 1\n  c" in "\n".join(report.lines())


def test_the_first_releases_key_is_named(tmp_path):
    older = {"clip_uid": "c", "persons": [person("0"), person("1", {"t": [box(1)]})], "looking_at_me": [segment("1")]}
    with pytest.raises(UserError, match="clip c lacks social_segments_looking; this is .*looking_at_me"):
        prepare_annotations(write(tmp_path, "val", older), official_lists=True)


def test_a_list_without_clips_is_not_written(tmp_path, capsys):
    persons = [person("0"), person("1", {"t": [box(1)]})]
    root = write(tmp_path, "val", clip("c", persons, None), lists=False)
    report = prepare_annotations(root, official_lists=True)
    assert not (root / "split/val.list").exists() and report.lists_written == []
    said = "\n".join(report.lines())
    assert f"not written: {root / 'split/val.list'}; no clip of its annotation file has social_segments_looking" in said
    assert "--split-lists official writes it" not in said.replace("av_train", "")
    assert bench.main(["prepare", "--root", str(root), "--split-lists", "official"]) == 2
    assert "no clip has social_segments_looking; download the annotations again" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["x", "y", "width", "height"])
def test_boxes_that_are_not_finite_are_refused(tmp_path, key):
    for value in (float("nan"), float("inf"), 2.0**31):
        root = write(tmp_path, "val", clip("c", [person("0"), person("1", {"t": [box(1), box(2) | {key: value}]})]))
        with pytest.raises(UserError, match=rf"clip c, track t: box 1: {key} is .*, expected a number below 2\^31"):
            prepare_annotations(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "broken JSON at line 1, column 2"),
        ("[]", "not an Ego4D AV annotation file"),
        ('{"videos": [{"clips": [{"clip_uid": "c"}]}]}', "clip c: expected persons"),
        (
            '{"videos": [{"clips": [{"clip_uid": "c", "persons": [{}, {"person_id": "1"}]}]}]}',
            "clip c: expected persons",
        ),
        (
            '{"videos": [{"clips": [{"clip_uid": "c", "persons": [], "social_segments_looking": [{"person": "1"}]}]}]}',
            "clip c, social_segments_looking.0.: expected person, start_frame and end_frame",
        ),
    ],
)
def test_faults_are_named(tmp_path, content, message):
    write(tmp_path, "train")
    (tmp_path / "json/av_train.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        prepare_annotations(tmp_path)
    assert "av_train.json" in str(caught.value) and "\n" not in str(caught.value)


def test_no_annotations_or_one_clip_twice(tmp_path):
    with pytest.raises(UserError, match="av_train.json nor av_val.json exists"):
        prepare_annotations(tmp_path)
    write(tmp_path, "train", clip("c", [person("0")]))
    write(tmp_path, "val", clip("c", [person("0")]))
    with pytest.raises(UserError, match="clip c is in both train and val"):
        prepare_annotations(tmp_path)
