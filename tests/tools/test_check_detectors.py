"""The comparison of detectors: who finds which face, on pictures with and without truth."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.video.detectors.base import Detector, Faces
from tools.check_detectors import Picture, Searched, alone, judge, photographs, search, table_of_truth, write_page

pytest.importorskip("cv2")


class Known(Detector):
    """Returns given boxes, in pixels of the picture it gets, and its size."""

    side, confident, sure = 100, 0.5, 0.8

    def __init__(self, boxes: list[list[float]], scores: list[float]) -> None:
        self.faces = Faces(np.array(boxes, dtype=float).reshape(-1, 4), np.array(scores))
        self.shapes: list[Any] = []

    def detect(self, picture: np.ndarray) -> Faces:
        self.shapes.append(picture.shape)
        return self.faces


def searched(boxes: list[list[float]], scores: list[float]) -> Searched:
    one = Searched("known", Known(boxes, scores))
    one.faces = [one.detector.detect(np.zeros((1, 1, 3)))]
    return one


def test_faces_of_a_shrunk_picture_are_told_in_its_own_pixels() -> None:
    one = searched([[10, 10, 20, 30]], [0.9])
    faces = search(one, Picture("a", np.zeros((100, 200, 3), np.uint8), None))
    assert one.detector.shapes[-1] == (50, 100, 3)  # type: ignore[attr-defined]
    assert faces.boxes.tolist() == [[20, 20, 40, 60]] and len(one.seconds) == 1


def test_true_faces_are_found_or_not_and_other_detections_are_false(capsys: pytest.CaptureFixture[str]) -> None:
    truth = np.array([[0, 0, 100, 100], [300, 300, 350, 350]], dtype=float)
    picture = Picture("a", np.zeros((640, 640, 3), np.uint8), truth)
    one = searched([], [])
    one.seconds = [0.01]
    judge(one, picture, Faces(np.array([[5.0, 5, 90, 90], [500, 500, 520, 520]]), np.array([0.6, 0.9])))
    assert one.found == [(200.0, 0.6), (100.0, 0.0)] and one.false == [0.9]  # sizes as if the picture had 1280 pixels
    table_of_truth([one])
    said = capsys.readouterr().out
    assert "confident (0.50): 100+ px 0.000 of 1, 200+ px 1.000 of 1; 1 false in 1 frames" in said
    assert "sure (0.80): 100+ px 0.000 of 1, 200+ px 0.000 of 1; 1 false in 1 frames" in said


def test_a_face_is_alone_if_the_other_finds_none_there_at_any_score() -> None:
    one = searched([[0, 0, 50, 50], [100, 100, 150, 160], [200, 200, 230, 230]], [0.9, 0.7, 0.4])
    other = searched([[2, 2, 52, 52]], [0.1])
    only, sides = alone(one, other, [(400, 400)])
    assert sides == [50.0, 60.0]  # the third is not confident
    assert [(face.picture, face.score, face.side) for face in only] == [(0, 0.7, 60.0)]


def test_photographs_come_in_one_order_without_unreadable_ones(tmp_path: Path) -> None:
    for number in range(5):
        Image.new("RGB", (20 + number, 20)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    names = [picture.name for picture in photographs(tmp_path, 10)]
    assert sorted(names) == [f"{number}.png" for number in range(5)]
    assert names == [picture.name for picture in photographs(tmp_path, 10)]
    only, _ = alone(searched([[2, 2, 12, 12]], [0.9]), searched([], []), [(20, 20)])
    write_page(tmp_path / "page.png", only, [tmp_path / "0.png"])
    assert Image.open(tmp_path / "page.png").size == (1200, 972)
