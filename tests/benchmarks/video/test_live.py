"""Pictures that come one by one: the scores of `predict --causal`, and no picture waits for the next."""

import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.video import doubt
from benchmarks.video.bouts import BoutOptions
from benchmarks.video.decode import Video
from benchmarks.video.journal import read_rows
from benchmarks.video.live import Live, LiveFace, LiveLooks
from benchmarks.video.pipeline import predict_video
from benchmarks.video.scorer import ScoredFace
from benchmarks.video.search import FaceSource
from registry import UserError
from tests.benchmarks.video.parts import SQUARE, Bright, draw, make, model, squares
from tests.benchmarks.video.test_doubt import Faked, Half

OPTIONS = BoutOptions(threshold=0.21)


class Small(Bright):
    """Sees whole pictures at a third of their size."""

    side = 53


def pushed(video: Path, source: FaceSource) -> list[LiveFace]:
    live = Live(model(), source, OPTIONS)
    return [face for frame in Video(video).frames() for face in live.push(frame.picture(), frame.time)]


def check_equal(faces: list[LiveFace], video: Path, source: FaceSource, out: Path) -> None:
    """Compare with frames.csv of a causal run, which has two digits of a box and six of times and scores."""
    predict_video(video, model(), source, OPTIONS, out)
    rows = list(read_rows(out / "frames.csv"))
    assert [(face.frame, face.track) for face in faces] == [(row.frame, row.track) for row in rows]
    ours = np.array([[face.time, face.score] for face in faces])
    np.testing.assert_allclose(ours, [[row.time, row.score] for row in rows], atol=1e-6)
    np.testing.assert_allclose([[f.x1, f.y1, f.x2, f.y2] for f in faces], [row.box for row in rows], atol=0.006)


def test_faces_are_those_of_a_causal_prediction(tmp_path: Path) -> None:
    video, source = make(tmp_path / "a.mp4", 60), FaceSource(Bright(), 7.5, causal=True)
    faces = pushed(video, source)
    assert {face.track for face in faces} == {"1", "2"} and {face.looking for face in faces} == {True, False}
    check_equal(faces, video, source, tmp_path / "out")


def test_tracks_in_doubt_are_left_out_as_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubt, "Estimator", Faked)
    monkeypatch.setattr(doubt, "PACKAGE", "numpy")
    video = make(tmp_path / "a.mp4", 60)
    faces = pushed(video, FaceSource(Half((0.6,)), 7.5, causal=True))
    assert len(faces) < len(pushed(video, FaceSource(Bright(), 7.5, causal=True)))
    check_equal(faces, video, FaceSource(Half((0.6,)), 7.5, causal=True), tmp_path / "out")


def test_large_pictures_are_shrunk_for_the_detector() -> None:
    live = Live(model(), FaceSource(Small(), 30.0), OPTIONS)
    big = [np.kron(draw(squares(number)), np.ones((3, 3, 1), dtype=np.uint8)) for number in range(6)]
    faces = [live.push(picture, number / 30) for number, picture in enumerate(big)][-1]
    left, top, _ = squares(5)[0]
    assert len(faces) == 2
    np.testing.assert_allclose(
        faces[0][3:7], 3 * np.array([left, top, left + SQUARE, top + SQUARE]), atol=9
    )  # a pixel there


def test_boxes_of_an_own_detector_are_linked() -> None:
    live = Live(model(), FaceSource(None, 2.5), OPTIONS)
    found = []
    for number in range(10):
        places = squares(number)[:: -1 if number % 2 else 1]  # in any order
        boxes = [(left, top, left + SQUARE, top + SQUARE) for left, top, _ in places]
        found.append(live.push(draw(squares(number)), number / 15, boxes if number != 6 else []))
    assert [len(faces) for faces in found] == [0, 0, 2, 2, 2, 2, 0, 2, 2, 2]
    for faces in found[2:6]:
        assert [face.track for face in faces] == ["1", "2"] and faces[0].x1 < 40 < faces[1].x1


def test_looks_of_tracks_that_are_gone_are_forgotten() -> None:
    looks, sizes = LiveLooks(BoutOptions(cost=0.1)), []
    for number in range(100):
        for step in range(3):
            looks.looks(ScoredFace(number + step / 30, 0, str(number), np.zeros(4), 0.9))
        sizes.append(len(pickle.dumps(looks)))
    assert sizes[-1] < sizes[1] + 10


@pytest.mark.parametrize(
    ("push", "said"),
    [
        ((draw([]), 0.5), "frame 2 is at 0.5 s, and the frame before at 0.5 s; times must increase"),
        ((draw([]), float("inf")), "the time of frame 2 is inf; give seconds"),
        ((draw([]) / 255, 1.0), "frame 2 has float64 values; give uint8"),
        ((draw([]), 1.0), "frame 2 has no boxes, and live(detector=None) has no detector"),
        ((draw([]), 1.0, [200, 1, 210, 9]), "box 0 of frame 2 (200, 1, 210, 9) has no pixel in the picture"),
    ],
)
def test_bad_input_is_a_line_and_the_next_picture_is_scored(push: tuple, said: str) -> None:
    live = Live(model(), FaceSource(None, 2.5), OPTIONS)
    box = [[20, 20, 44, 44]]
    live.push(draw([]), 0.4, box)
    live.push(draw([]), 0.5, box)
    with pytest.raises(UserError, match=re.escape(said)):
        live.push(*push)
    assert [face.frame for face in live.push(draw([]), 0.6, box)] == [2]


def test_without_pyav_large_pictures_are_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="to find faces in large pictures, PyAV is needed: pip install av"):
        Live(model(), FaceSource(Small(), 2.5), OPTIONS).push(draw([]), 0.0)
