"""Frames, boxes, tracks and times of a program: what they become, and one line for each that cannot be."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.video.arrays import Arrays, as_boxes
from registry import UserError

PICTURE = np.zeros((60, 80, 3), dtype=np.uint8)
BOX = [10.0, 20.0, 30.0, 50.0]


def frames(count: int = 3) -> list[np.ndarray]:
    return [PICTURE] * count


def test_boxes_tracks_and_times_are_put_together() -> None:
    boxes = [BOX, [BOX, [1, 2, 3, 4]], np.empty((0, 4))]
    found = list(Arrays(frames(), boxes, tracks=["ann", ["bob", 7], []], times=[0.5, 0.7, 9]).tracked())
    assert [one.tracks for one in found] == [["ann"], ["bob", "7"], []]
    assert [one.boxes.tolist() for one in found] == [[BOX], [BOX, [1, 2, 3, 4]], []]
    assert [(one.frame.number, one.frame.time) for one in found] == [(0, 0.5), (1, 0.7), (2, 9.0)]
    assert found[0].frame.picture().tolist() == PICTURE.tolist()


def test_pictures_without_boxes_are_crops_of_one_person() -> None:
    crops = [PICTURE, Image.new("RGB", (20, 30)), PICTURE[::2, ::-1]]
    found = list(Arrays(crops, rate=4).tracked())
    assert [one.tracks for one in found] == [["1"]] * 3
    assert [one.boxes.tolist() for one in found] == [[[0, 0, 80, 60]], [[0, 0, 20, 30]], [[0, 0, 80, 30]]]
    assert [one.frame.time for one in found] == [0, 0.25, 0.5]


def test_generators_are_read_once_and_at_the_same_pace() -> None:
    read = []

    def noted(name: str, values: list) -> Iterator[Any]:
        for value in values:
            read.append(name)
            yield value

    assert len(list(Arrays(noted("f", frames()), noted("b", [BOX] * 3), rate=30).tracked())) == 3
    assert "".join(read) == "fbfbfb"
    assert len(list(Arrays(frames(1)).tracked())) == 1  # needs no rate


def test_one_array_may_hold_all() -> None:
    found = list(Arrays(np.stack(frames()), np.tile([BOX], (3, 1)), rate=30).tracked())
    assert [one.boxes.tolist() for one in found] == [[BOX]] * 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (dict(frames=[]), "there are no frames"),
        (dict(frames=iter(())), "there are no frames"),
        (dict(frames=5), "frames must have an entry for each frame, got 5"),
        (dict(frames=frames(), boxes=4.0, rate=30), "boxes must have an entry for each frame, got 4.0"),
        (dict(frames=frames()), "give the frames' rate (frames per second) or times"),
        (dict(frames=frames(), rate=30, times=[1, 2, 3]), "give the frames' rate or their times, not both"),
        (dict(frames=frames(), rate=0), "rate is 0; it must be above 0 and at most 1000"),
        (dict(frames=frames(), rate=float("nan")), "rate is nan; it must be above 0"),
        (dict(frames=frames(), rate="30"), "rate is '30'; it must be above 0"),
        (dict(frames=frames(), times=[0, 1, 1]), "frame 2 is at 1 s, and the frame before at 1 s; times must increase"),
        (dict(frames=frames(), times=[0, np.nan, 2]), "the time of frame 1 is nan; give seconds"),
        (dict(frames=frames(), times=["now"] * 3), "the time of frame 0 is 'now'; give seconds"),
        (dict(frames=frames(), times=[0, 1]), "the length of times is 2, that of frames 3; give one entry per frame"),
        (dict(frames=frames(), boxes=[BOX] * 4, rate=30), "the length of boxes is 4, that of frames 3; give one"),
        (dict(frames=iter(frames()), boxes=[BOX] * 2, rate=30), "the length of boxes is 2, that of frames larger"),
        (dict(frames=iter(frames()), boxes=[BOX] * 4, rate=30), "the length of boxes is larger, that of frames 3"),
        (dict(frames=[PICTURE / 255]), "frame 0 has float64 values; give uint8 from 0 to 255; of values from 0 to 1"),
        (dict(frames=[PICTURE.astype(int)]), "frame 0 has int64 values; give uint8 from 0 to 255"),
        (dict(frames=[PICTURE[..., 0]]), "frame 0 is no picture: got the shape (60, 80); give (height, width, 3)"),
        (dict(frames=[PICTURE.transpose(2, 0, 1)]), "frame 0 is no picture: got the shape (3, 60, 80)"),
        (dict(frames=[PICTURE[:0]]), "frame 0 is no picture: got the shape (0, 80, 3)"),
        (dict(frames=PICTURE, rate=30), "(to score one picture, give a list of it)"),
        (dict(frames=["walk.mp4"]), "frame 0 is no picture: got a str"),
        (dict(frames=[None]), "frame 0 is no picture: got a NoneType"),
        (dict(frames=frames(), boxes=[[BOX, BOX]] * 3, rate=30), "frame 0 has 2 boxes; give tracks: the names"),
        (
            dict(frames=frames(), boxes=[BOX] * 3, tracks=[["a", "b"]] * 3, rate=30),
            "frame 0: the length of its boxes is 1, that of its tracks 2; give",
        ),
        (
            dict(frames=frames(), boxes=[[BOX, BOX]] * 3, tracks=["a"] * 3, rate=30),
            "length of its boxes is 2, that of its tracks 1",
        ),
        (
            dict(frames=frames(), boxes=[[BOX, BOX]] * 3, tracks=["aa"] * 3, rate=30),
            "length of its boxes is 2, that of its tracks 1",
        ),
        (
            dict(frames=frames(), boxes=[[BOX, BOX]] * 3, tracks=["a"], rate=30),
            "the length of tracks is 1, that of frames 3",
        ),
        (
            dict(frames=frames(), boxes=[[BOX, BOX]] * 3, tracks=[["a", "a"]] * 3, rate=30),
            "frame 0 has two boxes of one track: a, a",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(given: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        list(Arrays(**given).tracked())
    assert said in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ([90, 10, 120, 40], "box 0 of frame 4 (90, 10, 120, 40) has no pixel in the picture, which is 80 wide and 60"),
        ([-9, 10, 0.9, 40], "has no pixel in the picture"),
        ([10.2, 10, 10.8, 40], "has no pixel in the picture"),
        ([10, np.nan, 30, 40], "has an edge that is not a number; leave out the box of a face that is not there"),
        ([10, 10, np.inf, 40], "has an edge that is not a number"),
        ([30, 10, 10, 40], "has x2 not right of x1"),
        ([10, 40, 30, 40], "or y2 not below y1"),
        ([[1, 2, 30, 40], [50, 40, 60, 40]], "box 1 of frame 4"),
        ([10, 10, 30], "the boxes of frame 4 have shape (3,); give (4,) or (N, 4)"),
        (np.ones((2, 2, 4)), "the boxes of frame 4 have shape (2, 2, 4)"),
        ("none", "the boxes of frame 4 are no numbers"),
        ([[1, 2, 3, 4], [5, 6]], "the boxes of frame 4 are no numbers"),
        (None, "the boxes of frame 4 have shape (); give (4,) or (N, 4): x1, y1, x2, y2, or [] for none"),
    ],
)
def test_boxes_that_cannot_be_are_one_line(box: Any, said: str) -> None:
    with pytest.raises(UserError) as error:
        as_boxes(box, PICTURE, "frame 4")
    assert said in str(error.value) and len(str(error.value)) < 200


def test_boxes_may_reach_over_the_edge() -> None:
    assert as_boxes([-9, -9, 1, 100], PICTURE, "").tolist() == [[-9, -9, 1, 100]]
    assert as_boxes([], PICTURE, "").shape == as_boxes(np.empty((0, 4)), PICTURE, "").shape == (0, 4)
