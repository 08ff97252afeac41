"""`predict` end to end: results, killed runs, formats, and user errors."""

import csv
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import bench
from benchmarks.system.locks import locked
from benchmarks.video import annotate, pipeline
from benchmarks.video.bouts import Bout, BoutOptions
from benchmarks.video.decode import Frame, Video
from benchmarks.video.detectors.base import Faces
from benchmarks.video.faces import read_faces
from benchmarks.video.journal import Journal, RowsFile, read_rows
from benchmarks.video.outputs import write_bouts, write_vtt
from benchmarks.video.pipeline import Summary, header_of, predict_video
from benchmarks.video.scorer import ScoredFace
from benchmarks.video.search import FaceSource
from registry import UserError
from tests.benchmarks.video.parts import SQUARE, Bright, av, draw, make, model, squares
from zoo import models
from zoo.models import Model

FILES = ["SHA256SUMS", "annotated.mp4", "bouts.csv", "bouts.eaf", "bouts.vtt", "frames.csv", "people.csv", "run.json"]
BOUTS = BoutOptions(threshold=0.21, least=0.1, merge=0.1)  # about the middle of the scores
FRAMES = 90


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("video") / "a walk.mp4", FRAMES)


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video in which a face appears in frame 19."""
    path = tmp_path_factory.mktemp("late") / "a.mp4"
    return make(path, 60, content=lambda frame: draw(squares(frame)[: frame >= 19]))


def predict(path: Path, out: Path, judge: Model | None = None, causal: bool = False) -> Summary:
    return predict_video(path, judge or model(), FaceSource(Bright(), 7.5, causal=causal), BOUTS, out)


@pytest.fixture(scope="module")
def whole(video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "whole"
    done = predict(video, out)
    assert (done.frames, done.lost, done.tracks) == (FRAMES, 0, 2)
    return out


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, comment="#", dtype={"track": str})


def test_every_face_of_every_frame_has_a_row(whole: Path) -> None:
    assert sorted(path.name for path in whole.iterdir()) == FILES
    rows = table(whole / "frames.csv")
    assert list(rows.columns) == ["time", "frame", "track", "x1", "y1", "x2", "y2", "score"]
    assert (rows["time"] - rows["frame"] / 30).abs().max() < 1e-5
    assert rows["score"].between(0, 1).all() and rows["score"].std() > 0.01
    for track, which in (("1", 0), ("2", 1)):
        of_track = rows[rows["track"] == track]
        # The second is absent in four frames, which its track bridges; frame 88 is the last that is searched.
        assert of_track["frame"].tolist() == list(range(89))
        for row in of_track.itertuples():
            if (which, row.frame) not in {(1, n) for n in range(40, 44)}:
                left, top, _ = squares(row.frame)[which]
                assert [row.x1, row.y1, row.x2, row.y2] == pytest.approx(
                    [left, top, left + SQUARE, top + SQUARE], abs=1.6
                )


def test_a_face_that_appears_between_two_whole_frame_searches_is_found_from_its_first_frames(
    late: Path, tmp_path: Path
) -> None:
    """Whole frames are searched at 0, 15 and 30, near faces every third frame; it appears in frame 19."""
    first = {}
    for causal in (False, True):
        out = tmp_path / str(causal)
        predict_video(late, model(), FaceSource(Bright(), 2.0, causal=causal), BOUTS, out)
        rows = table(out / "frames.csv")
        assert rows["track"].unique().tolist() == ["1"]
        first[causal] = int(rows["frame"].min())
    assert first == {False: 21, True: 36}  # causal mode never looks ahead, and a track needs three detections


def test_a_folder_that_another_process_writes_is_left_alone(video: Path, tmp_path: Path) -> None:
    with (
        locked(tmp_path / ".lock", "it"),
        pytest.raises(UserError, match=f"{tmp_path} is being written by process {os.getpid()} on "),
    ):
        predict(video, tmp_path)
    assert not list(tmp_path.iterdir())


def test_bouts_agree_across_all_files(whole: Path) -> None:
    bouts = table(whole / "bouts.csv")
    assert len(bouts) >= 2, "the test is vacuous"
    assert (bouts["end"] - bouts["start"] - bouts["duration"]).abs().max() < 2e-6
    assert bouts["duration"].min() >= 0.1

    text = (whole / "bouts.vtt").read_text()
    assert text.startswith("WEBVTT\n\n")
    clock = r"(\d\d):([0-5]\d):([0-5]\d)\.(\d{3})"
    cues = re.findall(rf"^{clock} --> {clock}\n(\S+) looks \((\d\.\d\d)\)$", text, flags=re.MULTILINE)
    seconds = [[int(h) * 3600 + int(m) * 60 + int(s) + int(t) / 1000 for h, m, s, t in (c[:4], c[4:8])] for c in cues]
    np.testing.assert_allclose(seconds, bouts[["start", "end"]], atol=6e-4)
    assert [cue[8] for cue in cues] == bouts["track"].tolist()

    found = []
    for tier, start, end, value in eaf_annotations(whole / "bouts.eaf"):
        found.append((tier.removeprefix("looking: "), start / 1000, end / 1000, float(value)))
    wanted = list(bouts[["track", "start", "end", "score"]].itertuples(index=False, name=None))
    for one, other in zip(sorted(found), sorted(wanted), strict=True):
        assert one[0] == other[0]
        assert one[1:] == pytest.approx(other[1:], abs=6e-3)


def eaf_annotations(path: Path) -> Iterator[tuple[str, int, int, str]]:
    """Reads an EAF and checks what EAFv3.0.xsd requires of its elements: order, attributes, references."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "ANNOTATION_DOCUMENT"
    assert {"AUTHOR", "DATE", "VERSION"} <= root.attrib.keys()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:\d\d|Z)?", root.attrib["DATE"])
    order = ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE"]
    tags = [child.tag for child in root]
    assert tags == sorted(tags, key=order.index)
    assert tags.count("HEADER") == tags.count("TIME_ORDER") == 1
    head, times = root[0], root[1]
    assert head.attrib["TIME_UNITS"] == "milliseconds"
    (media,) = head.findall("MEDIA_DESCRIPTOR")
    assert media.attrib["MEDIA_URL"].startswith("file:///") and media.attrib["MIME_TYPE"] == "video/mp4"
    optional = {"RELATIVE_MEDIA_URL", "TIME_ORIGIN", "EXTRACTED_FROM"}
    assert media.attrib.keys() - {"MEDIA_URL", "MIME_TYPE"} <= optional
    relative = media.attrib["RELATIVE_MEDIA_URL"]
    assert relative.startswith(("./", "../"))
    assert (path.parent / relative).resolve().as_uri() == media.attrib["MEDIA_URL"]
    assert all("NAME" in each.attrib for each in head.findall("PROPERTY"))
    slots = {slot.attrib["TIME_SLOT_ID"]: int(slot.attrib["TIME_VALUE"]) for slot in times}
    assert list(slots.values()) == sorted(slots.values())
    types = {each.attrib["LINGUISTIC_TYPE_ID"]: each.attrib for each in root.findall("LINGUISTIC_TYPE")}
    assert all(each["TIME_ALIGNABLE"] == "true" for each in types.values())
    identities = []
    for tier in root.findall("TIER"):
        assert tier.attrib["LINGUISTIC_TYPE_REF"] in types
        for annotation in tier:
            assert annotation.tag == "ANNOTATION"
            (alignable,) = annotation
            assert alignable.tag == "ALIGNABLE_ANNOTATION"
            (value,) = alignable
            assert value.tag == "ANNOTATION_VALUE"
            identities.append(alignable.attrib["ANNOTATION_ID"])
            start, end = (slots[alignable.attrib[f"TIME_SLOT_REF{n}"]] for n in (1, 2))
            assert start < end
            yield tier.attrib["TIER_ID"], start, end, value.text or ""
    assert len(set(identities)) == len(identities)


def test_the_annotated_video_shows_the_boxes_at_their_times(whole: Path, video: Path) -> None:
    rows = table(whole / "frames.csv")
    drawn, plain = list(Video(whole / "annotated.mp4").frames()), list(Video(video).frames())
    assert [frame.time for frame in drawn] == pytest.approx([frame.time for frame in plain], abs=1e-3)
    for number in (0, 30, 87):
        picture, before = drawn[number].picture().astype(int), plain[number].picture().astype(int)
        for row in rows[rows["frame"] == number].itertuples():
            edge = picture[round(row.y1) + 6 : round(row.y2) - 4, round(row.x1)].mean(axis=0)
            assert (
                np.abs(edge - annotate.colour_of(row.score)).mean()
                < np.abs(
                    before[round(row.y1) + 6 : round(row.y2) - 4, round(row.x1)].mean(axis=0)
                    - annotate.colour_of(row.score)
                ).mean()
            )
    with av.open(str(whole / "annotated.mp4")) as container:
        assert "rendered faces only" in container.metadata["comment"]


def test_a_face_within_a_look_has_a_thick_frame(whole: Path, video: Path) -> None:
    rows, bouts = table(whole / "frames.csv"), table(whole / "bouts.csv")
    plain = {frame.number: frame.picture().astype(int) for frame in Video(video).frames()}
    changed: dict[bool, list[float]] = {True: [], False: []}
    for frame in Video(whole / "annotated.mp4").frames():
        drawn = frame.picture().astype(int)
        for row in rows[rows["frame"] == frame.number].itertuples():
            of_track = bouts[bouts["track"] == row.track]
            looks = bool(((of_track["start"] - 1e-6 <= row.time) & (row.time < of_track["end"] - 1e-6)).any())
            lines, left = slice(round(row.y1) + 6, round(row.y2) - 6), round(row.x1)
            beside = (slice(None), slice(left - 4, left - 2))  # outside a frame of two pixels
            differs = np.abs(drawn[lines][beside] - plain[frame.number][lines][beside]).mean()
            changed[looks].append(float(differs))
    assert min(len(values) for values in changed.values()) > 9
    medians = {looks: float(np.median(values)) for looks, values in changed.items()}
    assert medians[True] > 2 * medians[False], medians


def test_people_add_up_the_frames_and_the_looks(whole: Path) -> None:
    """Against bouts.csv and frames.csv, by pandas; the video has 30 frames per second throughout."""
    rows, bouts, people = (table(whole / f"{name}.csv") for name in ("frames", "bouts", "people"))
    assert people["track"].tolist() == ["1", "2"]
    assert not people.isna().any().any()
    for one in people.itertuples():
        mine, looks = rows[rows["track"] == one.track], bouts[bouts["track"] == one.track]
        assert one.looks == len(looks)
        assert one.looking_seconds == pytest.approx(looks["duration"].sum(), abs=1e-5)
        assert one.seconds_on_screen == pytest.approx(len(mine) / 30, abs=1e-4)
        assert one.looks_per_minute == pytest.approx(60 * len(looks) / (len(mine) / 30), rel=1e-4)
        assert one.first == pytest.approx(mine["time"].min(), abs=1e-6)
        assert one.last == pytest.approx(mine["time"].max() + 1 / 30, abs=1e-4)
        assert one.mean_width == pytest.approx((mine["x2"] - mine["x1"]).mean(), abs=6e-3)
        assert one.mean_height == pytest.approx((mine["y2"] - mine["y1"]).mean(), abs=6e-3)
    counts = json.loads((whole / "run.json").read_text())["counts"]
    assert (counts["tracks"], counts["looks"]) == (len(people), len(bouts))
    assert counts["looking_seconds"] == pytest.approx(people["looking_seconds"].sum(), abs=1e-5)
    assert counts["seconds_on_screen"] == pytest.approx(people["seconds_on_screen"].sum(), abs=1e-5)
    assert " people.csv\n" in (whole / "SHA256SUMS").read_text()


def test_all_files_with_scores_carry_the_warning_of_a_model_trained_on_rendered_faces(whole: Path) -> None:
    for name in ("frames.csv", "bouts.csv", "people.csv", "bouts.vtt", "bouts.eaf"):
        head = "\n".join((whole / name).read_text().splitlines()[:16])
        assert "trained on rendered faces only" in head, name


def test_a_model_trained_on_people_has_no_warning() -> None:
    assert "rendered" not in " ".join(header_of(model(rendered_only=False)))


class Killed(Exception):
    pass


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("after", [1, 25, 60, 89])
def test_a_killed_run_resumes_and_ends_with_the_same_bytes(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, causal: bool
) -> None:
    whole = tmp_path / "whole"
    predict(video, whole, causal=causal)
    real, seen = Video.frames, []

    def breaks_off(self: Video, after_frame: Frame | None = None, **more: object) -> Iterator[Frame]:
        for frame in real(self, more.get("after", after_frame)):
            if frame.number == after:
                raise Killed
            yield frame

    out = tmp_path / "out"
    monkeypatch.setattr(Video, "frames", breaks_off)
    with pytest.raises(Killed):
        predict(video, out, causal=causal)
    assert [path.name for path in out.iterdir()] == ["unfinished"]
    for name in ("seen.jsonl", "frames.csv"):  # half a line may have been written
        with (out / "unfinished" / name).open("ab") as file:
            file.write(b"[17, 0.5" if name == "seen.jsonl" else b"0.56")

    def counted(self: Video, after: Frame | None = None) -> Iterator[Frame]:
        for frame in real(self, after):
            seen.append(frame.number)
            yield frame

    monkeypatch.setattr(Video, "frames", counted)
    predict(video, out, causal=causal)
    assert contents(out) == contents(whole)
    scored = seen[: len(seen) - FRAMES]  # the annotated video decodes all frames
    assert scored[-1] == FRAMES - 1
    # At 30 fps: half a second of late tracks, and 14 steps of the model for windows and smoothing.
    assert scored[0] >= after - 64


@pytest.mark.parametrize("after", [14, 20, 22, 25, 29, 30])
def test_a_run_killed_during_the_search_of_earlier_frames_resumes(
    late: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """The next run searches the same frames for the same face, although some of them are recorded already."""
    source = FaceSource(Bright(), 2.0)
    whole, out = tmp_path / "whole", tmp_path / "out"
    predict_video(late, model(), source, BOUTS, whole)
    append = Journal.append

    def breaks_off(self: Journal, frame: Frame, faces: object) -> None:
        if frame.number == after:
            raise Killed
        append(self, frame, faces)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "append", breaks_off)
    with pytest.raises(Killed):
        predict_video(late, model(), source, BOUTS, out)
    monkeypatch.setattr(Journal, "append", append)
    predict_video(late, model(), source, BOUTS, out)
    assert contents(out) == contents(whole)


def test_an_interrupted_annotation_keeps_its_parts(
    video: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotate, "PART", 40)
    undisturbed = tmp_path / "undisturbed"
    predict(video, undisturbed)
    real, drawn = Frame.reduced, []

    def counted(self: Frame, side: int | None) -> np.ndarray:
        if side == annotate.SIDE:  # the detector asks for whole pictures
            if len(drawn) == 50:
                raise Killed
            drawn.append(self.number)
        return real(self, side)

    out = tmp_path / "out"
    monkeypatch.setattr(Frame, "reduced", counted)
    monkeypatch.setattr(pipeline, "seconds_per_frame", lambda path: 0.1)  # on a slow machine it would draw frames too
    with pytest.raises(Killed):
        predict(video, out)
    assert not (out / "annotated.mp4").exists()
    parts = out / "unfinished" / "annotated"
    assert sorted(path.name for path in parts.iterdir()) == ["000000.mp4", "000000.sha256"]
    resumed: list[int] = []
    monkeypatch.setattr(Frame, "reduced", lambda self, side: resumed.append(self.number) or real(self, side))
    predict(video, out)
    assert resumed == list(range(40, FRAMES))
    assert contents(out) == contents(undisturbed)
    assert len(list(Video(out / "annotated.mp4").frames())) == FRAMES


def test_a_finished_folder_keeps_everything_but_its_bouts(
    video: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    before = contents(out)
    with monkeypatch.context() as patched:
        patched.setattr(Video, "frames", lambda self, after=None: pytest.fail("the video is decoded again"))
        predict(video, out)
    assert contents(out) == before

    # Other looks are drawn into the annotated video, which needs neither detector nor model.
    monkeypatch.setattr(pipeline, "score_faces", lambda job: pytest.fail("the faces are scored again"))
    strict = predict_video(video, model(), FaceSource(Bright(), 7.5), BoutOptions(0.99, 0.1, 0.1), out)
    assert strict.bouts == len(table(out / "bouts.csv"))
    assert (out / "frames.csv").read_bytes() == before["frames.csv"]
    for name in ("bouts.csv", "people.csv", "annotated.mp4"):
        assert (out / name).read_bytes() != before[name], name
    predict(video, out)
    assert contents(out) == before
    with pytest.raises(UserError, match="results of another --causal; use another folder"):
        predict(video, out, causal=True)
    with pytest.raises(UserError, match="results of another model"):
        predict(video, out, model(rate=30.0))


def test_causal_rows_do_not_depend_on_later_frames(tmp_path: Path) -> None:
    long, short = make(tmp_path / "long.mp4", 90), make(tmp_path / "short.mp4", 60)
    predict(long, tmp_path / "long", causal=True)
    predict(short, tmp_path / "short", causal=True)
    one, other = table(tmp_path / "long" / "frames.csv"), table(tmp_path / "short" / "frames.csv")
    assert len(other) > 50
    pd.testing.assert_frame_equal(one[one["frame"] < 58].reset_index(drop=True), other[other["frame"] < 58])


@pytest.mark.parametrize("when", ["frame", "time"])
def test_given_boxes_replace_the_detector(
    video: Path, tmp_path: Path, when: str, capsys: pytest.CaptureFixture
) -> None:
    lines = [f"{when},track,x1,y1,x2,y2,note"]
    for frame in range(10, 50):
        left, top, _ = squares(frame)[0]
        at = frame if when == "frame" else frame / 30 + 0.004
        lines.insert(1, f"{at},Ann,{left},{top},{left + SQUARE},{top + SQUARE},x")
    lines.append("5000,Ann,1,1,9,9,")
    (tmp_path / "faces.csv").write_text("\n".join(lines))
    source = FaceSource(None, 5.0, read_faces(tmp_path / "faces.csv"), "sha")
    done = predict_video(video, model(), source, BOUTS, tmp_path / "out")
    rows = table(tmp_path / "out" / "frames.csv")
    assert rows["frame"].tolist() == list(range(10, 50))
    assert set(rows["track"]) == {"Ann"}
    assert rows["x1"].tolist() == [squares(frame)[0][0] for frame in range(10, 50)]
    assert done.tracks == 1
    assert "1 of 41 given boxes lie outside its frames" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, said",
    [
        ("frame,track,x1,y1,x2\n", "lacks y2"),
        ("track,x1,y1,x2,y2\n", "lacks frame or time"),
        ("frame,track,x1,y1,x2,y2\n0,a,1,1,9,9\n1,a,1,1,nine,9\n", "line 3 has a value that is not a number"),
        ("frame,track,x1,y1,x2,y2\n0,a,9,1,1,9\n", "line 2 has x2 not right of x1"),
        ("frame,track,x1,y1,x2,y2\n0.5,a,1,1,9,9\n", "line 2 has a frame that is not an integer from 0"),
        ("frame,track,x1,y1,x2,y2\n0,a,1,1,9,9\n0,a,2,1,9,9\n", "line 3 has a second box of its track"),
        ("frame,track,x1,y1,x2,y2\n0,,1,1,9,9\n", "line 2 has no track"),
        ("frame,track,x1,y1,x2,y2\n0,a,1,2,9,9,8\n1,a,1,1,9,9\n", "line 2 has 7 fields instead of 6"),
        ("frame,track,x1,y1,x2,y2\n0,1,1,2,9,9,0.5\n", "line 2 has 7 fields instead of 6"),
        ("frame,track,x1,y1,x2,y2\n0,a,1,1,9,9\n\n1,a,b,1,1,9,9\n", "line 4 has 7 fields instead of 6"),
        ("frame,track,x1,y1,x2,y2,note\n0,a,1,1,9,9\n", "line 2 has 6 fields instead of 7"),
        ("frame,track,x1,y1,x2,y2,x1\n0,a,1,1,9,9,2\n", "the header names x1 twice"),
    ],
)
def test_invalid_boxes_give_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "faces.csv").write_text(text)
    with pytest.raises(UserError, match=re.escape(said)):
        read_faces(tmp_path / "faces.csv")


def test_tracks_of_given_boxes_may_have_commas(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text('frame, track, x1, y1, x2, y2\n0, "Ann, left", 1, 2, 9, 8\n')
    assert read_faces(tmp_path / "faces.csv").iloc[0].to_dict() == {
        "frame": 0, "x1": 1, "y1": 2, "x2": 9, "y2": 8, "track": "Ann, left"
    }  # fmt: skip


def test_the_command_reports_errors_in_one_line(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.mp4").touch()
    good = [str(video), "--model", "x", "-o", str(tmp_path / "out")]
    for arguments, said in (
        ([str(tmp_path / "none.mp4"), *good[1:]], "does not exist"),
        ([str(tmp_path / "empty.mp4"), *good[1:]], "is empty"),
        ([*good, "--threshold", "7"], "--threshold is 7; it must be between 0 and 1"),
        ([*good, "--change-cost", "-1"], "--change-cost is -1; it must be between 0 and 1000"),
        ([*good, "--faces", str(tmp_path / "none.csv")], "none.csv: no such file (boxes of --faces)"),
        ([*good, "--faces", "a.csv", "--set", "side=9"], "drop one of them"),
        ([*good, "--detector", "brihgt"], "did you mean 'bright'"),
        ([*good, "--detector", "bright"], "no model 'x'"),
    ):
        assert bench.main(["predict", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()


def test_the_command_prints_what_it_found(
    video: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "open_model", lambda name, device="cpu": model())
    options = [
        "--detector",
        "bright",
        "--detections",
        "7.5",
        "--threshold",
        "0.21",
        "--min-duration",
        "0.1",
        "--merge-gap",
        "0.1",
    ]
    out = tmp_path / "out"
    assert bench.main(["predict", str(video), "--model", "squares", "-o", str(out), *options]) == 0
    said = capsys.readouterr().out
    assert "trained on rendered faces only" in said
    assert (
        f"90 frames: 2 tracks, {len(table(out / 'frames.csv'))} scores, {len(table(out / 'bouts.csv'))} looks" in said
    )
    assert contents(out) == contents(whole)

    # Without --threshold it is the model's.
    monkeypatch.setattr(models, "open_model", lambda name, device="cpu": replace(model(), threshold=0.21))
    del options[4:6]
    assert bench.main(["predict", str(video), "--model", "squares", "-o", str(tmp_path / "again"), *options]) == 0
    assert contents(tmp_path / "again") == contents(whole)

    # With a very high cost of changes, each track is one look or none.
    monkeypatch.setattr(models, "open_model", lambda name, device="cpu": replace(model(), threshold=0.21, cost=100.0))
    again = ["predict", str(video), "--model", "squares", "-o", str(tmp_path / "again"), *options]
    assert bench.main(again) == 0
    bouts = table(tmp_path / "again" / "bouts.csv")
    assert len(table(whole / "bouts.csv")) > len(bouts) >= 1
    assert contents(tmp_path / "again")["frames.csv"] == contents(whole)["frames.csv"]
    assert json.loads((tmp_path / "again" / "run.json").read_text())["bouts"]["cost"] == 100
    assert bench.main([*again, "--change-cost", "0"]) == 0
    assert contents(tmp_path / "again") == contents(whole)


def test_a_video_without_faces_has_files_without_rows(tmp_path: Path) -> None:
    dark = make(tmp_path / "dark.mp4", 30, content=lambda frame: np.full((64, 96, 3), 30, np.uint8))
    assert predict(dark, tmp_path / "out").scores == 0
    for name in ("frames", "bouts", "people"):
        assert len(table(tmp_path / "out" / f"{name}.csv")) == 0
    assert list(eaf_annotations(tmp_path / "out" / "bouts.eaf")) == []


def test_lost_frames_are_counted_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = make(tmp_path / "a.mp4", 90)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for place, size in packets[45:50]:
        content[place : place + size] = b"\xff" * size
    path.write_bytes(content)
    done = predict(path, tmp_path / "out")
    assert (done.frames, done.lost) == (85, 5)
    assert "5 frames could not be decoded" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "run.json").read_text())["facts"]["lost"] == 5


def row(frame: int, track: str, score: float = 0.5) -> ScoredFace:
    return ScoredFace(frame / 10, frame, track, np.array([0.0, 0.0, 1.0, 1.0]), score)


def test_rows_that_may_be_incomplete_are_written_again(tmp_path: Path) -> None:
    path = tmp_path / "frames.csv"
    file = RowsFile(path, ["head"])
    for number, track in ((1, "a"), (2, "a"), (2, "b")):
        file.write([row(number, track)])
    file.close()
    lines = path.read_text().splitlines()
    assert lines[:3] == [
        "# head",
        "time,frame,track,x1,y1,x2,y2,score",
        "0.100000,1,a,0.00,0.00,1.00,1.00,0.500000",
    ]
    assert len(lines) == 5
    with path.open("a") as cut:  # killed before the rest and before the checksum
        cut.write("0.300000,3,a,0.00")
    file = RowsFile(path, ["head"])
    file.close()
    assert file.first == 2
    assert path.read_text().splitlines() == lines[:3]
    path.write_text("# he")
    file = RowsFile(path, ["head"])
    file.close()
    assert (file.first, path.read_text().splitlines()) == (0, lines[:2])
    assert list(read_rows(path)) == []


@pytest.mark.parametrize("where", ["seen.jsonl", "frames.csv", "frames.csv.sums"])
def test_damaged_bytes_are_never_used(tmp_path: Path, where: str) -> None:
    """After flipping any one bit, the content read is a prefix of the content written."""
    frames = [Frame(number, number / 30, number * 7, 0) for number in range(6)]
    whole, seen = RowsFile(tmp_path / "frames.csv", ["head"]), Journal(tmp_path / "seen.jsonl")
    for frame in frames:
        seen.append(frame, None)
        whole.write([row(frame.number, "a", frame.number / 7)])
    whole.close()
    seen.close()
    text, path = (tmp_path / "frames.csv").read_text(), tmp_path / where
    sound = {each: each.read_bytes() for each in tmp_path.iterdir()}
    for place in range(0, len(sound[path]), 3):
        for each, data in sound.items():
            each.write_bytes(data)
        spoilt = bytearray(sound[path])
        spoilt[place] ^= 1 << place % 8
        path.write_bytes(spoilt)
        found = list(Journal(tmp_path / "seen.jsonl").read())
        assert [frame for frame, _ in found] == frames[: len(found)]
        again = RowsFile(tmp_path / "frames.csv", ["head"])
        assert text.startswith((tmp_path / "frames.csv").read_text())
        again.write([row(frame.number, "a", frame.number / 7) for frame in frames])
        again.close()
        assert (tmp_path / "frames.csv").read_text() == text


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_result_is_noticed_and_rebuilt(
    video: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture, name: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    data = bytearray((out / name).read_bytes())
    data[len(data) // 2] ^= 2
    (out / name).write_bytes(data)
    predict(video, out)
    assert f"damaged in {out}: " in capsys.readouterr().err
    assert contents(out) == contents(whole)


def test_an_annotated_video_damaged_before_its_checksum_is_joined_again(
    video: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(out: Path, names: object) -> None:
        if "annotated.mp4" in names:
            raise Killed

    out = tmp_path / "out"
    monkeypatch.setattr(pipeline, "write_sums", killed)
    with pytest.raises(Killed):
        predict(video, out)
    monkeypatch.undo()
    (out / "annotated.mp4").write_bytes((out / "annotated.mp4").read_bytes()[:-100])
    predict(video, out)
    assert contents(out) == contents(whole)


def test_results_of_other_settings_are_left_alone_even_if_damaged(video: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    (out / "bouts.csv").write_text("corrected by hand")
    with pytest.raises(UserError, match="results of another --causal"):
        predict(video, out, causal=True)
    assert (out / "bouts.csv").read_text() == "corrected by hand"


def test_the_journal_round_trips_exactly(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    journal = Journal(tmp_path / "seen.jsonl")
    seen = [
        (Frame(n, n / 3, n * 7, 0), Faces(random.random((n, 4)), random.random(n)) if n % 2 else None) for n in range(5)
    ]
    for frame, faces in seen:
        journal.append(frame, faces)
    journal.close()
    for (frame, faces), (other, found) in zip(seen, Journal(tmp_path / "seen.jsonl").read(), strict=True):
        assert frame == other
        assert (faces is None) == (found is None)
        if faces is not None and found is not None:
            assert all(np.array_equal(a, b) for a, b in zip(faces, found, strict=True))


def test_times_and_names_in_subtitles(tmp_path: Path) -> None:
    bouts = [Bout("A & <B>", 3599.9996, 7325.25, 0.875)]
    write_vtt(tmp_path / "a.vtt", bouts, ["a --> b"])
    text = (tmp_path / "a.vtt").read_text()
    assert "01:00:00.000 --> 02:02:05.250\nA &amp; &lt;B&gt; looks (0.88)" in text
    assert text.count("-->") == 1
    write_bouts(tmp_path / "a.csv", [Bout('x,"y"', 0, 1, 0.5)], [])
    assert next(csv.DictReader((tmp_path / "a.csv").open()))["track"] == 'x,"y"'


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for open_file in (Journal, lambda path: RowsFile(path, ["a header"])):
        for name in ("file", "file.sums"):
            outside.write_bytes(b"somebody else's\n")
            (tmp_path / name).symlink_to(outside)
            with suppress(UserError):
                open_file(tmp_path / "file").close()
            assert outside.read_bytes() == b"somebody else's\n"
            for path in tmp_path.glob("file*"):
                path.unlink()


def endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("make_it", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), endless])
@pytest.mark.parametrize("name", FILES)
def test_a_special_file_in_the_place_of_a_result_is_named(
    video: Path, tmp_path: Path, name: str, make_it: Callable[[Path], None]
) -> None:
    make_it(tmp_path / name)
    with pytest.raises(
        UserError, match=re.escape(f"{tmp_path / name} is not a file that predict wrote; delete it or use")
    ):
        predict(video, tmp_path)
