"""Data from many hands: what fuzzing found, each case by itself."""

import gzip
import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bench
from backbones.base import Preprocessing
from benchmarks.data import ego4d, synthlam
from benchmarks.data.pictures import MAX_PIXELS, DamagedImageError, over_crops, read_crop
from benchmarks.priors.files import read_head_pose
from benchmarks.report.crops import data_uri
from benchmarks.rows.predictions import read_table
from benchmarks.video.faces import read_faces
from registry import UserError
from tests.benchmarks.data.test_prepare import box, person, write
from tests.fuzz import pictures

BOX = {"frameNumber": 1, "Person ID": "1", "x": 1, "y": 1, "width": 9, "height": 9}


def prepared(root: Path, boxes: object = None, segments: object = None) -> Path:
    (root / "json_original" / "c").mkdir(parents=True)
    (root / "json_original" / "c" / "t.json").write_text(json.dumps([BOX] if boxes is None else boxes))
    (root / "result_LAM").mkdir()
    (root / "result_LAM" / "c.json").write_text(json.dumps([] if segments is None else segments))
    (root / "split").mkdir()
    (root / "split" / "val.list").write_bytes(b"\xef\xbb\xbfc\r\n")  # as some editors save it
    return root


def test_a_list_may_start_with_a_mark(tmp_path: Path) -> None:
    assert ego4d.read_split(prepared(tmp_path), "val", images=False)["clip"].tolist() == ["c"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frameNumber": 10**12}, "box 1: frameNumber is 1e+12, expected a whole number below 2^31"),
        ({"frameNumber": 1e300}, "box 1: frameNumber is 1e+300"),
        ({"frameNumber": float("inf")}, "box 1: frameNumber is inf"),
        ({"frameNumber": float("nan")}, "box 1: frameNumber is nan"),
        ({"frameNumber": 10**400}, "box 1: frameNumber is 1000000000000000000"),
        ({"frameNumber": True}, "box 1: frameNumber is True, expected a number"),
        ({"x": "5"}, "box 1: x is '5', expected a number"),
        ({"width": 1e308}, "box 1: width is 1e+308, expected a number below 2^31"),
        ({"Person ID": ["1"]}, r"box 1: Person ID is \['1'\], expected text or a whole number"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value)[:40],
)
def test_numbers_that_no_box_has(tmp_path: Path, change: dict, said: str) -> None:
    root = prepared(tmp_path, [BOX, {**BOX, "frameNumber": 2, **change}])
    with pytest.raises(UserError, match=rf"t\.json: {said}".replace("+", r"\+").replace("^", r"\^")):
        ego4d.read_split(root, "val", images=False)


def test_a_kilobyte_makes_no_gigabyte(tmp_path: Path) -> None:
    """Two boxes far apart: interpolation would fill in what lies between."""
    root = prepared(tmp_path, [BOX, {**BOX, "frameNumber": 2_000_000_000}])
    with pytest.raises(UserError, match=r"t\.json: 2 boxes from frame 1 to 2000000000; .*2,000,000,000 rows"):
        ego4d.read_split(root, "val", images=False)
    (root / "json_original" / "c" / "t.json").write_text(json.dumps([BOX, {**BOX, "frameNumber": 90_000}]))
    assert len(ego4d.read_split(root, "val", images=False)) == 90_000


@pytest.mark.parametrize("value", [1e400, 10**12, "5", True, 1.5, None, [1]], ids=str)
def test_segments_of_no_frames(tmp_path: Path, value: object) -> None:
    root = prepared(tmp_path, segments=[{"label": "1", "start_frame": 1, "end_frame": value}])
    with pytest.raises(
        UserError, match=r"c\.json: segment 0: expected label, start_frame and end_frame, whole numbers"
    ):
        ego4d.read_split(root, "val", images=False)


def test_segments_that_a_link_hides_are_not_taken_for_none(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    (root / "result_LAM" / "c.json").unlink()
    assert ego4d.clips_without_segments(root, "val") == ["c"]
    (root / "result_LAM" / "c.json").symlink_to("moved.json")
    assert ego4d.clips_without_segments(root, "val") == []
    with pytest.raises(UserError, match=r"c\.json: no such file \(looking segments\)"):
        ego4d.read_split(root, "val", images=False)


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "videos_challenge" / "v" / "t").mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/videos_challenge/v/t/1_\xff.jpg")).touch()
    with pytest.raises(UserError, match=r"videos_challenge/v/t: the name '1_\\udcff\.jpg' in it is not UTF-8"):
        ego4d.read_split(tmp_path, "test")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"social_segments_looking": 5}, "clip c: social_segments_looking must be null or a list of objects"),
        ({"social_segments_looking": False}, "clip c: social_segments_looking must be null or a list of objects"),
        ({"persons": [person("0"), 0]}, "clip c: expected persons"),
        ({"persons": [person("0"), person(["1"])]}, "clip c: expected persons"),
        ({"persons": [person("0"), person("1", {"t": [box("1")]})]}, "clip c, track t: box 0: frameNumber is '1'"),
        ({"persons": [person("0"), person("1", {"t": [box(1, 1e400)]})]}, "clip c, track t: box 0: width is inf"),
    ],
    ids=str,
)
def test_annotations_of_other_types(tmp_path: Path, change: dict, said: str, capsys: pytest.CaptureFixture) -> None:
    write(tmp_path, "val", {"clip_uid": "c", "persons": [person("0")], **change})
    assert bench.main(["prepare", "--root", str(tmp_path), "--annotations-only"]) == 2
    message = capsys.readouterr().err
    assert "av_val.json: " + said in message and message.count("\n") == 1


@pytest.mark.parametrize("name", ["bomb png", "bomb gif", "eps", "png, text bomb"])
def test_pictures_that_are_none(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them is decoded, nor handed to another program, as Pillow does with EPS."""
    monkeypatch.setattr("subprocess.check_call", lambda *arguments, **more: pytest.fail("a program was started"))
    (tmp_path / "a.jpg").write_bytes(pictures.sound(name))
    assert over_crops(tmp_path, ["a.jpg", "a.jpg"], lambda number, picture: number) == [None, None]
    assert data_uri(tmp_path / "a.jpg") is None
    with pytest.raises(DamagedImageError, match=r"(damaged|cannot read) crop .*a\.jpg: "):
        read_crop(tmp_path, "a.jpg", preprocessing=Preprocessing(size=16, resize=16))


def test_the_largest_picture_is_the_same_for_all(tmp_path: Path) -> None:
    height = MAX_PIXELS // 10_000
    for rows, sound in ((height, True), (height + 1, False)):
        Image.new("1", (10_000, rows)).save(tmp_path / "a.png")
        assert (over_crops(tmp_path, ["a.png"], lambda number, picture: picture.size) != [None]) is sound


def test_nothing_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    began = time.perf_counter()
    for read in (
        lambda: read_faces(tmp_path / "pipe"),
        lambda: read_head_pose(tmp_path / "pipe"),
        lambda: read_crop(tmp_path, "pipe", preprocessing=Preprocessing(size=16, resize=16)),
    ):
        with pytest.raises(UserError, match="pipe"):
            read()
    assert bench.main(["score", "--groundtruth", str(tmp_path / "pipe"), "--predictions", str(tmp_path / "pipe")]) == 2
    assert time.perf_counter() - began < 10


def test_boxes_are_read_as_they_are(tmp_path: Path) -> None:
    """A name that ends in .gz is no reason to unpack it: a kilobyte of that holds a gigabyte."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        file.write(b"frame,track,x1,y1,x2,y2\n0,a,1,1,9,9\n")
    (tmp_path / "boxes.csv.gz").write_bytes(packed.getvalue())
    with pytest.raises(UserError, match=r"boxes\.csv\.gz (cannot be read as CSV|lacks)"):
        read_faces(tmp_path / "boxes.csv.gz")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("0,a,1,1,1e308,9", "line 2 has a value of 2^31 or more"),
        ("1e12,a,1,1,9,9", "line 2 has a value of 2^31 or more"),
        ("0,a\x1b[2J,1,1,9,9", "line 2 has no track, or a track name that is too long or not printable"),
        (f"0,{'a' * 300},1,1,9,9", "line 2 has no track, or a track name that is too long or not printable"),
    ],
)
def test_boxes_that_no_video_has(tmp_path: Path, row: str, said: str) -> None:
    (tmp_path / "boxes.csv").write_text(f"frame,track,x1,y1,x2,y2\n{row}\n")
    with pytest.raises(UserError) as caught:
        read_faces(tmp_path / "boxes.csv")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("test,0,NA,t,x3,0,0.5", "'x3'"),
        ("test,0,NA,t,3.5,0,0.5", "column 4"),
        ("test,0,NA,t,9999999999,0,0.5", "row 2: frame is 9999999999"),
        ("test,0,NA,t,3,7,0.5", "row 2: label is 7"),
        ("test,0,NA,t,3,0,nan", "row 2: score is nan"),
        ("test,0,NA,t,3,0,1.5", "row 2: score is 1.5"),
        ("test,0,NA,t,3,0,", "could not convert"),
        ("test,0,NA,t,3,0,0.25", None),
    ],
)
def test_predictions_of_a_row(tmp_path: Path, cells: str, said: str | None) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(f"split,seed,clip,track,frame,label,score\ntest,0,NA,t,2,1,0.75\n{cells}\n")
    if said is None:  # a clip may be called NA
        assert read_table(path, "run it again")[["clip", "score"]].to_numpy().tolist() == [["NA", 0.75], ["NA", 0.25]]
        return
    with pytest.raises(UserError, match=rf"^cannot read {path}: .*{said}.*; run it again$"):
        read_table(path, "run it again")


@pytest.mark.parametrize("content", ["5", "[]", "null", "[" * 100_000])
def test_a_damaged_marker_is_a_copy_that_is_not_whole(tmp_path: Path, content: str) -> None:
    (tmp_path / synthlam.MARKER).write_text(content)
    assert not synthlam.is_whole(tmp_path)


def test_a_folder_that_may_not_be_read_gets_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*arguments: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr("benchmarks.data.ego4d.read_split", denied)
    assert bench.main(["index", "--root", str(tmp_path), "--split", "val", "-o", str(tmp_path / "x.csv")]) == 2
    assert capsys.readouterr().err == f"bench.py index: {tmp_path}: Permission denied\n"


class TestVideos:
    """Under a video's name there may be anything."""

    @pytest.fixture(autouse=True)
    def _needs_av(self) -> None:
        pytest.importorskip("av")

    def test_a_list_of_other_files_is_no_video(self, tmp_path: Path) -> None:
        from benchmarks.video.decode import Video
        from tests.fuzz import videos

        (tmp_path / "other.mp4").write_bytes(videos.sound("mp4"))
        assert Video(tmp_path / "other.mp4").size == (64, 64)
        (tmp_path / "walk.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
        with pytest.raises(UserError, match=r"walk\.mp4 cannot be read"):
            Video(tmp_path / "walk.mp4")

    def test_frames_that_are_too_large_are_not_decoded(self, tmp_path: Path) -> None:
        from benchmarks.video.decode import Video
        from tests.fuzz import videos

        side = 7168
        assert side**2 > MAX_PIXELS
        (tmp_path / "walk.mp4").write_bytes(videos.sound("avi of 7168 x 7168"))
        with pytest.raises(UserError, match=r"walk\.mp4: no frame can be decoded"):
            Video(tmp_path / "walk.mp4")

    def test_crops_are_cut_from_files_alone(self, tmp_path: Path) -> None:
        from benchmarks.data.crops import cut_crops
        from benchmarks.data.frames import frame_table

        (tmp_path / "videos").mkdir()
        boxes = dict(x1=np.array([1.0]), y1=1.0, x2=9.0, y2=9.0)
        table = frame_table(dict(clip="c", track="t", frame=1, person="1", label=0, image="", unique_id="", **boxes))
        os.mkfifo(tmp_path / "videos" / "c.mp4")
        assert cut_crops(tmp_path, table, workers=1).failed == {"c": "(not a file)"}
