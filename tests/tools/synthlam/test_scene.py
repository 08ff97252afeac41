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
    # 5 degrees is a look, 7 is not; the start moves by round(0.7) = 1, the end by round(0.3) = 0
    labels, segments = scene.annotate(_Still(), _person([20] * 5 + [5] * 8 + [7] * 5), 60)
    assert segments == [(6, 12)]
    assert labels.sum() == 7
    # a gap of two frames is closed; a look of three frames is too short and dropped
    _, segments = scene.annotate(
        _Still(), _person([20] * 3 + [2] * 4 + [30] * 2 + [2] * 4 + [20] * 6 + [2] * 3 + [20] * 3), 60
    )
    assert segments == [(4, 12)]
    # a look cut by the ends of the clip keeps them
    assert scene.annotate(_Still(), _person([1] * 6), 60)[1] == [(0, 5)]
