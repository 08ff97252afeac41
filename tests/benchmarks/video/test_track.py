"""Tracking: identities, interpolated boxes, and the Kalman filter against a textbook one."""

import numpy as np
import pytest

from benchmarks.video.decode import Frame
from benchmarks.video.detectors.base import Faces, iou
from benchmarks.video.track import GAP, PLACE, PUSH, SPEED, Motion, Tracker


def faces(*boxes: tuple[float, ...]) -> Faces:
    return Faces(np.array(boxes, dtype=np.float64).reshape(-1, 4), np.ones(len(boxes)))


def track(looks: list[Faces | None], step: float = 0.1, causal: bool = False) -> dict[int, dict[str, list[float]]]:
    """Boxes by frame and track."""
    tracker = Tracker(causal)
    tracked = []
    for number, found in enumerate(looks):
        now = tracker.place(Frame(number, number * step, number, 0), found)
        assert not causal or [one.frame.number for one in now] == [number]
        tracked += now
        assert number - len(tracked) < 2 * GAP / step + 2, "frames are held too long"
    tracked += tracker.finish()
    assert [one.frame.number for one in tracked] == list(range(len(looks)))
    return {p.frame.number: dict(zip(p.tracks, p.boxes.tolist(), strict=True)) for p in tracked}


def box(left: float, top: float = 0, side: float = 20) -> tuple[float, float, float, float]:
    return (left, top, left + side, top + side)


def test_two_faces_keep_their_names_and_are_interpolated_between_searches() -> None:
    looks = [faces(box(10 + 4 * n), box(100 - 4 * n, 60)) if n % 2 == 0 else None for n in range(12)]
    found = track(looks)
    for n in range(11):
        assert found[n]["1"] == pytest.approx(box(10 + 4 * n))
        assert found[n]["2"] == pytest.approx(box(100 - 4 * n, 60))
    assert found[11] == {}  # no search after it


def test_faces_that_pass_each_other_keep_their_names() -> None:
    looks = [faces(box(6 * n), box(120 - 6 * n, 8)) for n in range(21)]
    found = track(looks)
    assert all(found[n]["1"] == pytest.approx(box(6 * n)) for n in range(21))


def test_a_gap_is_bridged_up_to_its_length() -> None:
    def with_gap(missing: int) -> dict[int, dict[str, list[float]]]:
        return track([faces() if 5 <= n < 5 + missing else faces(box(10 + n)) for n in range(20)])

    bridged = with_gap(4)  # 0.5 s between detections
    assert all(bridged[n]["1"] == pytest.approx(box(10 + n)) for n in range(20))
    parted = with_gap(5)
    assert parted[5] == {} and parted[9] == {}
    assert list(parted[4]) == ["1"] and list(parted[10]) == ["2"]


def test_a_face_detected_twice_makes_no_track() -> None:
    looks = [faces(box(10)) if n in (3, 4) else faces() for n in range(15)]
    assert all(not tracks for tracks in track(looks).values())


def test_causal_tracks_begin_with_their_third_detection_and_keep_gaps() -> None:
    looks: list[Faces | None] = [faces(box(10 + 4 * n)) for n in range(10)]
    looks[6] = None  # not searched: predicted
    looks[8] = faces()  # searched, but not found
    found = track(looks, causal=True)
    assert found[0] == found[1] == found[8] == {}
    assert all(found[n]["1"] == pytest.approx(box(10 + 4 * n)) for n in (2, 3, 4, 5, 7, 9))
    assert found[6]["1"] == pytest.approx(box(34), abs=1.0)


def test_causal_boxes_do_not_depend_on_later_frames() -> None:
    random = np.random.default_rng(0)
    looks = [faces(box(10 + 4 * n + random.normal()), box(90, 50)) for n in range(20)]
    whole = track(looks, causal=True)
    for count in (5, 11):
        assert track(looks[:count], causal=True) == {n: whole[n] for n in range(count)}


def test_the_filter_is_a_kalman_filter() -> None:
    """Four edges at once against the textbook matrices (8 states), at uneven times."""
    random = np.random.default_rng(3)
    first = np.array([10.0, 20, 50, 60])
    motion = Motion(first, 0.0)
    state, spread = np.concatenate([first, np.zeros(4)]), np.diag([(PLACE * 40) ** 2] * 4 + [(SPEED * 40) ** 2] * 4)
    see = np.hstack([np.eye(4), np.zeros((4, 4))])
    time = 0.0
    for step in (0.1, 0.03, 0.4):
        time += step
        seen = first + 30 * time + np.array([0, 0, 5, 5]) * time + random.normal(size=4)
        ahead = np.eye(8)
        ahead[:4, 4:] = step * np.eye(4)
        side = np.sqrt((seen[2] - seen[0]) * (seen[3] - seen[1]))
        push = np.vstack([step**2 / 2 * np.eye(4), step * np.eye(4)])
        state = ahead @ state
        spread = ahead @ spread @ ahead.T + (PUSH * side) ** 2 * push @ push.T
        gain = spread @ see.T @ np.linalg.inv(see @ spread @ see.T + (PLACE * side) ** 2 * np.eye(4))
        assert motion.predicted(time) == pytest.approx(state[:4])
        state = state + gain @ (seen - see @ state)
        spread = spread - gain @ see @ spread
        motion.update(seen, time)
    assert motion.state.ravel() == pytest.approx(state)


def test_overlap_of_boxes() -> None:
    # 10 x 10 and 10 x 10 shifted by 5: 50 of 150 shared; one without area; one far away.
    found = iou(np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 15, 10], [3, 3, 3, 3], [50, 50, 60, 60]]))
    assert found.tolist() == [[pytest.approx(1 / 3), 0, 0]]
