import numpy as np
import pytest

from tools.synthlam import scene


@pytest.fixture(scope="module")
def clips():
    return [scene.simulate(f"c{k}", k, list(range(10 * k, 10 * k + 1 + k % 3))) for k in range(12)]


def test_same_seed_same_clip(clips):
    again = scene.simulate("c4", 4, [40, 41])
    np.testing.assert_array_equal(again.camera_turn, clips[4].camera_turn)
    for one, other in zip(again.people, clips[4].people, strict=True):
        np.testing.assert_array_equal(one.gaze, other.gaze)
        assert one.segments == other.segments


def test_frames_of_reference_are_rotations(clips):
    for clip in clips:
        for turn in (clip.camera_turn, *(p.head for p in clip.people)):
            np.testing.assert_allclose(
                turn @ turn.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turn.shape), atol=1e-9
            )
            np.testing.assert_allclose(np.linalg.det(turn), 1, atol=1e-9)


def test_eyes_stay_in_the_head_and_labels_match_segments(clips):
    for person in (p for clip in clips for p in clip.people):
        local = np.einsum("tji,tj->ti", person.head, person.gaze)  # left, up, ahead
        assert np.degrees(np.abs(np.arctan2(local[:, 0], local[:, 2]))).max() < 38
        expected = np.zeros(len(person.labels), int)
        for first, last in person.segments:
            expected[first : last + 1] = 1
        assert person.labels.tolist() == expected.tolist()


def test_people_are_in_front_of_the_camera(clips):
    for clip in clips:
        for person in clip.people:
            seen = np.einsum("tji,tj->ti", clip.camera_turn, person.position - clip.camera)
            assert (seen[:, 2] < -0.5).mean() > 0.9  # ahead is -z


def test_runs():
    assert scene.runs(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == [(0, 1), (3, 3), (6, 6)]
    assert scene.runs(np.zeros(3, bool)) == []


class _Still:
    """A generator without randomness: no errors of judgement, ends move by their mean."""

    def normal(self, mean, *_):
        return mean

    def random(self):
        return 0.0


def _person(degrees):
    class Person:
        gaze_angle = np.radians(np.array(degrees, float))
        fixations = [scene.Fixation(0, len(degrees), "camera", np.zeros(3))]

    return Person()


def test_annotation_rule():
    # 5 degrees is a look, 7 is not; the start moves by round(0.045 * 30) = 1, the end by round(0.02 * 30) = 1
    labels, segments = scene.annotate(_Still(), _person([20] * 5 + [5] * 10 + [7] * 5), 60)
    assert segments == [(6, 15)]
    assert labels.sum() == 10
    # a hole of four frames is closed, one of five is not; a look of seven frames is too short and dropped
    look, hole = [2] * 8, [30] * 4
    _, segments = scene.annotate(_Still(), _person([20] * 3 + look + hole + look + [20] * 6 + [2] * 7 + [20] * 3), 60)
    assert segments == [(4, 23)]
    _, segments = scene.annotate(_Still(), _person([20] * 3 + look + [30] * 5 + look + [20] * 3), 60)
    assert segments == [(4, 11), (17, 24)]
    # a look cut by the ends of the clip keeps them
    assert scene.annotate(_Still(), _person([1] * 10), 60)[1] == [(0, 9)]


def test_eyes_converge_on_near_targets():
    """Own hands are within reach; the camera is metres away."""
    seen = {"own": [], "camera": []}
    for clip in (scene.simulate("x", k, [k]) for k in range(40)):
        person = clip.people[0]
        for f in person.fixations:
            if f.target in seen and f.end - f.start > 20:
                seen[f.target].append((person.nearness[f.end - 1], f, clip, person))
    assert len(seen["own"]) > 5
    assert len(seen["camera"]) > 5
    assert min(near for near, *_ in seen["own"]) > 1
    for near, f, clip, person in seen["camera"]:
        assert near == pytest.approx(1 / np.linalg.norm((clip.camera - person.position)[f.end - 1]), rel=0.05)


def test_large_saccades_take_several_frames():
    """The eyes pass through directions between the two targets; none is reached in one frame."""
    steps = []
    for clip in (scene.simulate("x", k, [k]) for k in range(30)):
        person = clip.people[0]
        turn = np.degrees(np.arccos(np.clip((person.gaze[1:] * person.gaze[:-1]).sum(1), -1, 1)))
        steps += [turn[f.start - 1] for f in person.fixations[1:]]
    assert max(steps) < 35  # of saccades of up to 90 degrees
    assert sum(step > 10 for step in steps) > 10
