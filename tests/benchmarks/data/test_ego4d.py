"""The reader against the published index, against a loop with one dict a frame, and on broken input."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.data.annotations import clip_videos
from benchmarks.data.ego4d import clips_without_segments, read_list, read_split
from benchmarks.data.windows import key_frames
from registry import UserError

GOLDEN = Path(__file__).parents[2] / "golden"
KEY = ["clip", "track", "frame"]
BOX = ["x1", "y1", "x2", "y2"]


@pytest.fixture
def golden_root(tmp_path):
    shutil.copytree(GOLDEN / "ego4d_tree", tmp_path, dirs_exist_ok=True)
    shutil.copytree(GOLDEN / "ego4d_expected", tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("split", ["train", "val"])
def test_published_index(golden_root, split):
    names = {"clip_uid": "clip", "track_id": "track"}
    expected = pd.read_csv(golden_root / f"index_{split}.csv", dtype=dict.fromkeys(names, str)).rename(columns=names)
    expected = expected.sort_values(KEY).reset_index(drop=True)
    frames = read_split(golden_root, split, images=False)
    for name in [*KEY, "label"]:
        assert frames[name].tolist() == expected[name].tolist()
    np.testing.assert_allclose(frames[BOX], expected[BOX], atol=1e-6)
    assert key_frames(frames, 13).tolist() == (expected["keyframe_stride13"] == 1).tolist()
    stats = json.loads((golden_root / "stats.json").read_text())["stats"]
    for stride in (1, 3, 13):
        facts = stats[f"{split}_stride{stride}"]
        assert len(frames) == facts["frames"]
        assert key_frames(frames, stride).sum() == facts["keyframes"]
        assert (frames["label"] == 1).sum() == facts["positive_frames"]
        assert (frames["label"] == 0).sum() == facts["negative_frames"]


def write_root(root, tracks, segments, split="val"):
    """A prepared root from {clip: {track: (person, [(frame, x, y, width, height)])}} and {clip: [(person, a, b)]}."""
    (root / "split").mkdir(parents=True)
    (root / "split" / f"{split}.list").write_text("".join(f"{clip}\n" for clip in tracks))
    (root / "result_LAM").mkdir()
    for clip, of_clip in tracks.items():
        (root / "json_original" / clip).mkdir(parents=True)
        for track, (person, boxes) in of_clip.items():
            records = [
                {"clip_uid": clip, "frameNumber": f, "Person ID": person, "x": x, "y": y, "height": h, "width": w}
                for f, x, y, w, h in boxes
            ]
            (root / "json_original" / clip / f"{track}.json").write_text(json.dumps(records))
        if clip in segments:
            result = [{"label": p, "start_frame": a, "end_frame": b} for p, a, b in segments[clip]]
            (root / "result_LAM" / f"{clip}.json").write_text(json.dumps(result))
    return root


def index_by_loop(tracks, segments):
    """The rules one frame at a time: {(clip, track, frame): (x1, y1, x2, y2, label)}."""
    rows = {}
    for clip, of_clip in tracks.items():
        for track, (person, boxes) in of_clip.items():
            known = {}
            for frame, x, y, width, height in boxes:
                if width > 0 and height > 0 and frame > 0 and frame not in known:
                    x, y = max(x, 0), max(y, 0)
                    known[frame] = (x, y, x + width, y + height)
            if not known:
                continue
            for frame in range(min(known), max(known) + 1):
                before = max(f for f in known if f <= frame)
                after = min(f for f in known if f >= frame)
                part = 0 if before == after else (frame - before) / (after - before)
                box = [a + part * (b - a) for a, b in zip(known[before], known[after], strict=True)]
                looking = any(p == person and a <= frame <= b for p, a, b in segments.get(clip, []))
                rows[clip, track, frame] = (*box, int(looking))
    return rows


@pytest.mark.parametrize("seed", range(12))
def test_rules_on_random_trees(tmp_path, seed):
    rng = random.Random(seed)
    tracks, segments = {}, {}
    for clip in ("c1", "c0", "zz", "none"):
        tracks[clip] = {}
        for track in range(rng.randint(0, 4)):
            start, length = rng.choice([0, 1, 7, 900]), rng.choice([1, 2, 30])
            frames = [f for f in range(start, start + length) if rng.random() < 0.7]
            rng.shuffle(frames)
            frames += frames[:1] if rng.random() < 0.3 else []
            boxes = [
                (
                    f,
                    rng.uniform(-9, 1900),
                    rng.uniform(-9, 1000),
                    rng.choice([-3, 0, 60.5, 99]),
                    rng.choice([0, 50, 80]),
                )
                for f in frames
            ]
            tracks[clip][f"t{track}"] = (rng.choice(["1", "2", "10"]), boxes)
        if clip != "none":
            starts = [
                rng.randint(0, 920) if rng.random() < 0.3 else rng.randint(0, 30) for _ in range(rng.randint(0, 5))
            ]
            segments[clip] = [(rng.choice(["1", "2", "3"]), a, a + rng.choice([-2, 0, 4, 12])) for a in starts]
    root = write_root(tmp_path / "root", tracks, segments)
    frames = read_split(root, "val", images=False)
    expected = index_by_loop(tracks, segments)
    assert list(zip(frames["clip"], frames["track"], frames["frame"], strict=True)) == sorted(expected)
    for row, key in enumerate(sorted(expected)):
        np.testing.assert_allclose(frames.loc[row, [*BOX, "label"]].astype(float), expected[key], rtol=0, atol=1e-9)
        assert frames["person"][row] == tracks[key[0]][key[1]][0]
    assert clips_without_segments(root, "val") == ["none"]


BOXES = st.tuples(
    st.integers(0, 30),
    st.floats(-9, 1900),
    st.floats(-9, 1000),
    st.sampled_from([-3, 0, 60.5]),
    st.sampled_from([0, 50]),
)
TREES = st.dictionaries(
    st.sampled_from(["c1", "c0", "10"]),
    st.dictionaries(
        st.sampled_from("tu1"), st.tuples(st.sampled_from(["1", "2"]), st.lists(BOXES, max_size=12)), max_size=3
    ),
    min_size=1,
)
SEGMENTS = st.dictionaries(
    st.sampled_from(["c1", "c0", "10"]),
    st.lists(st.tuples(st.sampled_from(["1", "2", "3"]), st.integers(-2, 35), st.integers(-2, 35)), max_size=4),
)


@given(TREES, SEGMENTS, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_any_boxes_gaps_and_segments_in_any_order(tmp_path_factory, tracks, segments, random):
    """One frame, no boxes, no segment, segments that end before they start or reach beyond the track."""
    expected = index_by_loop(tracks, segments)
    frames = read_split(write_root(tmp_path_factory.mktemp("t") / "root", tracks, segments), "val", images=False)
    assert list(zip(frames["clip"], frames["track"], frames["frame"], strict=True)) == sorted(expected)
    values = [expected[key] for key in sorted(expected)]
    np.testing.assert_allclose(frames[[*BOX, "label"]], np.reshape(values, (-1, 5)), rtol=0, atol=1e-9)
    # Which box of a frame that is listed twice counts is the one thing that the order of the boxes decides.
    for _, boxes in (track for of_clip in tracks.values() for track in of_clip.values()):
        good = [box for box in boxes if box[0] > 0 and box[3] > 0 and box[4] > 0]
        boxes[:] = list({box[0]: box for box in reversed(good)}.values())
        random.shuffle(boxes)
    again = read_split(write_root(tmp_path_factory.mktemp("t") / "root", tracks, segments), "val", images=False)
    pd.testing.assert_frame_equal(again, frames)


def small_root(tmp_path):
    tracks = {"c": {"t": ("1", [(1, 0, 0, 9, 9), (4, 3, 3, 9, 9)]), "u": ("2", [(2, 0, 0, 9, 9)])}, "d": {}}
    return write_root(tmp_path / "root", tracks, {"c": [("1", 2, 3)]})


def test_images_are_what_is_on_disk(tmp_path):
    root = small_root(tmp_path)
    with pytest.raises(UserError, match="face_imgs.*no such folder"):
        read_split(root, "val")
    assert read_split(root, "val", images=False)["image"].tolist() == [""] * 5
    (root / "face_imgs" / "c" / "t").mkdir(parents=True)
    with pytest.raises(UserError, match="face_imgs: no crop of any frame of val"):
        read_split(root, "val")
    for name in ("face_00001.jpg", "face_00003.jpg", "face_00099.jpg", "notes.txt"):
        (root / "face_imgs" / "c" / "t" / name).touch()
    images = read_split(root, "val")["image"].tolist()
    assert images == ["face_imgs/c/t/face_00001.jpg", "", "face_imgs/c/t/face_00003.jpg", "", ""]


def test_is_at_me_counts_marked_segments_only(tmp_path):
    root = small_root(tmp_path)
    segment = {"person": "1", "target": "0", "start_frame": 1, "end_frame": 2}
    clip = {"clip_uid": "c", "social_segments_looking": [segment | {"is_at_me": True, "start_frame": 2}, segment | {"is_at_me": False}]}  # fmt: skip # noqa: E501
    (root / "json").mkdir()
    path = root / "json" / "av_val.json"
    path.write_text(json.dumps({"videos": [{"clips": [clip, {"clip_uid": "d", "social_segments_looking": None}]}]}))
    assert read_split(root, "val", images=False, label_policy="is_at_me")["label"].tolist() == [0, 1, 0, 0, 0]
    assert read_split(root, "val", images=False)["label"].tolist() == [0, 1, 1, 0, 0]
    path.write_text(json.dumps({"videos": [{"clips": [{"clip_uid": "c", "social_segments_looking": [segment]}]}]}))
    with pytest.raises(UserError, match="no segment is marked 'is_at_me'"):
        read_split(root, "val", images=False, label_policy="is_at_me")
    path.write_text('{"videos": [{"clips": [{}]}]}')
    with pytest.raises(UserError, match="not an Ego4D AV annotation file"):
        read_split(root, "val", images=False, label_policy="is_at_me")


def test_a_split_of_no_boxes(tmp_path):
    frames = read_split(write_root(tmp_path / "root", {"c": {"t": ("1", [])}}, {}), "val", images=False)
    assert len(frames) == 0 and frames["frame"].dtype == np.int64


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("json_original/c/t.json", '[{"frameNumber": 1,\n "x"', "t.json: broken JSON at line 2, column 5"),
        ("json_original/c/t.json", "{}", "expected a list of boxes, found dict"),
        ("json_original/c/t.json", "[3]", "box 0 is not an object"),
        ("json_original/c/t.json", '[{"frameNumber": 1}]', "box 0 has no 'Person ID'"),
        (
            "json_original/c/t.json",
            '[{"frameNumber":1,"Person ID":"1","x":"a","y":1,"width":1,"height":1}]',
            "x is 'a'",
        ),
        (
            "json_original/c/t.json",
            '[{"frameNumber":1.5,"Person ID":"1","x":1,"y":1,"width":1,"height":1}]',
            "box 0: frameNumber is 1.5, expected a whole number",
        ),
        (
            "json_original/c/t.json",
            '[{"frameNumber":1,"Person ID":"1","x":1,"y":1,"width":1,"height":1},'
            '{"frameNumber":2,"Person ID":"2","x":1,"y":1,"width":1,"height":1}]',
            "more than one person",
        ),
        ("json_original/c/t.json", b"\xff\xfe[", "not a text file"),
        ("result_LAM/c.json", '[{"label": "1"}]', "segment 0: expected label, start_frame and end_frame"),
        ("result_LAM/c.json", "", "broken JSON at line 1, column 1"),
        ("result_LAM/c.json", "3", "expected a list"),
        ("split/val.list", "\n", "lists no clip"),
        ("split/val.list", "c\nc\n", "clips: 'c' appears twice"),
        ("split/val.list", "c\nmissing\n", "missing: no such folder"),
    ],
)
def test_broken_files_are_named(tmp_path, file, content, message):
    root = small_root(tmp_path)
    (root / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        read_split(root, "val", images=False)
    assert "\n" not in str(caught.value) and str(root) in str(caught.value)


def test_missing_parts_are_named(tmp_path):
    root = small_root(tmp_path)
    with pytest.raises(UserError, match="no such folder; --root"):
        read_split(root / "nowhere", "val")
    with pytest.raises(UserError, match="must be one of train, val, test"):
        read_split(root, "dev")
    with pytest.raises(UserError, match="label_policy"):
        read_split(root, "val", label_policy="any")
    with pytest.raises(UserError, match="train.list: no such file"):
        read_list(root, "train")
    for folder in ("result_LAM", "json_original"):
        shutil.rmtree(root / folder)
        with pytest.raises(UserError, match=f"{folder}: no such folder; run `bench.py prepare"):
            read_split(root, "val", images=False)


def challenge(root, *names):
    for name in names:
        path = root / "videos_challenge" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_challenge_tree(tmp_path):
    root = challenge(
        tmp_path, "v/t/00012_0a1.jpg", "v/t/3_007.jpg", "v/t/100000_7.jpg", "v/u/00012_a_b.jpg", "v/.DS_Store"
    )
    frames = read_split(root, "test")
    assert frames["frame"].tolist() == [3, 12, 100000, 12]
    assert frames["unique_id"].tolist() == ["007", "0a1", "7", "a_b"]
    assert frames["image"].tolist()[0] == "videos_challenge/v/t/3_007.jpg"
    assert frames["label"].tolist() == [-1] * 4 and frames[BOX].isna().all(axis=None)
    assert frames["person"].tolist() == [""] * 4


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["v", "w"]), st.sampled_from("tu"), st.sampled_from(["{}", "{:05d}"]), st.integers(0, 10**7)
        ),
        min_size=1,
        max_size=15,
        unique_by=lambda name: (name[0], name[1], name[3]),
    ),
    st.sampled_from(["a", "00012", "é_1", "x.jpg"]),
)
@settings(max_examples=60, deadline=None)
def test_any_names_of_crops(tmp_path_factory, names, unique_id):
    """Frame numbers of one width, as every track has them, and of any."""
    root = tmp_path_factory.mktemp("t")
    challenge(root, *(f"{video}/{track}/{form.format(frame)}_{unique_id}.jpg" for video, track, form, frame in names))
    frames = read_split(root, "test")
    expected = sorted((video, track, frame, form) for video, track, form, frame in names)
    assert list(zip(frames["clip"], frames["track"], frames["frame"], strict=True)) == [row[:3] for row in expected]
    assert (frames["unique_id"] == unique_id).all()
    for image, (video, track, frame, form) in zip(frames["image"], expected, strict=True):
        assert image == f"videos_challenge/{video}/{track}/{form.format(frame)}_{unique_id}.jpg"


def test_challenge_labels(tmp_path):
    root = challenge(tmp_path, "1/t/00001_01.jpg", "1/t/00002_02.jpg")
    head = "clip,track,frame,unique_id,person,x1,y1,x2,y2,label\n"
    path = root / "labels_challenge.csv"
    path.write_text(head + "1,t,1,01,NA,1,2,3,4.5,1\n1,t,3,03,2,,,,,0\n")
    frames = read_split(root, "test")
    assert frames["label"].tolist() == [1, -1, 0]
    assert frames["unique_id"].tolist() == ["01", "02", "03"]
    assert frames["person"].tolist() == ["NA", "", "2"]
    assert frames["y2"][0] == 4.5 and frames["y2"].isna().tolist() == [False, True, True]
    assert frames["image"].tolist()[2] == ""  # labelled, but its crop is gone
    path.write_text(head + "1,t,1,99,2,1,2,3,4,1\n")
    with pytest.raises(UserError, match="1 rows have another unique id .* frame 1: 99"):
        read_split(root, "test")
    path.write_text("clip,track\n1,t\n")
    with pytest.raises(UserError, match="labels_challenge.csv: .*its header must be clip,track,frame"):
        read_split(root, "test")
    path.write_text(head + '1,t,1,01,"A, B",1,2,3,4.5,1\n')
    assert read_split(root, "test")["person"].tolist() == ["A, B", ""]
    for row, fields in (("1,t,1,01,A, B,1,2,3,4.5,1", 11), ("1,t,1,01,2,1,2,3,4", 9)):
        path.write_text(head + f"1,t,2,02,2,1,2,3,4,1\n{row}\n")
        with pytest.raises(UserError, match=f"labels_challenge.csv: line 3 has {fields} fields instead of 10"):
            read_split(root, "test")
    path.write_text(head + "1,t,x,01,2,1,2,3,4,1\n")
    with pytest.raises(UserError, match="labels_challenge.csv"):
        read_split(root, "test")


@pytest.mark.parametrize(
    ("name", "message"),
    [("v/t/12.jpg", "named <frame>_<unique id>.jpg"), ("v/t/face_00012.jpg", "named"), ("v/t/٣_a.jpg", "named"),
     ("v/t/12_.jpg", "named"), ("v/t/9999999999999999999_a.jpg", "named"), ("v/t/_a.jpg", "named"),
     ("v/t/readme.txt", "no <video>/<track>/")],
)  # fmt: skip
def test_challenge_names_that_cannot_be_read(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        read_split(challenge(tmp_path, name), "test")


def test_one_frame_twice_in_the_challenge_tree(tmp_path):
    with pytest.raises(UserError, match="frame 1 of clip v, track t is listed twice"):
        read_split(challenge(tmp_path, "v/t/1_a.jpg", "v/t/01_b.jpg"), "test")
    with pytest.raises(UserError, match="videos_challenge: no such folder"):
        read_split(small_root(tmp_path), "test")


def test_the_annotations_name_the_video_of_each_clip(tmp_path):
    """As Ego4D has it: several clips per video. A video without a name has none; a broken file is refused."""
    path = tmp_path / "av_val.json"
    path.write_text(
        json.dumps(
            {"videos": [
                {"video_uid": "v1", "clips": [{"clip_uid": "a"}, {"clip_uid": "b"}]},
                {"video_uid": "v2", "clips": [{"clip_uid": "c"}]},
                {"clips": [{"clip_uid": "d"}]},
            ]}
        )
    )  # fmt: skip
    assert clip_videos(path) == {"a": "v1", "b": "v1", "c": "v2"}
    for content in ('{"videos": [3]}', '{"videos": [{"clips": [{}]}]}', "[]"):
        path.write_text(content)
        with pytest.raises(UserError, match="not an Ego4D AV annotation file"):
            clip_videos(path)
