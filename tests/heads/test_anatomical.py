"""The head `anatomical` on features made from a head and eyes in three dimensions."""

import numpy as np
import pytest
import torch

from backbones.face_geometry import NAMES
from heads.anatomical import FEATURES, UNIT, Anatomical
from heads.base import Window
from registry import HEADS, UserError
from tests.contracts import check_head

RADIUS, DEPTH, ABOVE, OUTWARD = 11.0, 4.0, 1.3, 1.2  # mm, the defaults
START, EYE, VERTICAL, APART, HEAD = 4.0, 4.5, 9.0, 10.0, 18.0


def seen(yaw: float, pitch: float, gaze: tuple[float, float] = (0.0, 0.0), **more: float) -> np.ndarray:
    """Features ``(12,)`` of a head turned by angles in degrees whose eyes look past the camera by `gaze`.

    The centre of each eye lies behind the middle of its corners; the iris lies from there towards where the eye looks.
    """
    yaw, pitch, right, up = np.radians([yaw, pitch, *gaze])
    forward = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    iris = RADIUS * np.array([np.sin(right), np.sin(up)])
    places = []
    for side in (1, -1):  # the person's left eye is on the right of the picture
        centre = -DEPTH * forward[:2] + [side * OUTWARD * forward[2], ABOVE]
        places += [*((centre + iris) / UNIT)]
    values = dict(zip(NAMES, [*places, 0.06, 0.06, *forward, 0.0, 1e4, 1.0], strict=True)) | more
    return np.array(list(values.values()))


def odds(*features: np.ndarray, **arguments: float) -> list[float]:
    head = Anatomical(12, **{"nod": 0.0, **arguments})
    return head.log_odds(torch.from_numpy(np.stack(features)).float()).tolist()


def test_the_features_are_those_of_the_backbone() -> None:
    assert FEATURES == NAMES


@pytest.mark.parametrize("angles", [(0, 0), (20, 0), (-30, 10), (10, -20), (35, 15)])
def test_eyes_on_the_camera_leave_the_angle_of_the_head(angles: tuple[float, float]) -> None:
    yaw, pitch = np.radians(angles)
    turned = np.degrees(np.arccos(np.cos(yaw) * np.cos(pitch)))
    (found,) = odds(seen(*angles))
    chord = 2 * np.sin(np.radians(turned) / 2)  # stands for the arc
    assert found == pytest.approx(START - (chord / np.radians(HEAD)) ** 2, abs=1e-3)


@pytest.mark.parametrize("gaze", [(6, 0), (0, -12), (-15, 5), (20, 20)])
def test_log_odds_fall_with_the_square_of_the_angle_of_the_eyes(gaze: tuple[float, float]) -> None:
    for angles in ((0, 0), (25, -5)):
        here, past = odds(seen(*angles), seen(*angles, gaze))
        sines = np.sin(np.radians(gaze))
        expected = (sines / np.radians([EYE, VERTICAL])) ** 2
        assert here - past == pytest.approx(min(expected.sum(), here + 9), rel=1e-3)


def test_the_head_may_face_the_camera_while_the_eyes_do_not() -> None:
    aside, turned = odds(seen(0, 0, (25, 0)), seen(25, 0))
    assert aside < 0 < turned


def test_an_eye_hidden_by_the_nose_has_no_weight() -> None:
    right = seen(40, 0)  # towards the right of the picture, where the person's left eye is
    wrong = right.copy()
    wrong[:2] += 0.3
    assert odds(right) == odds(wrong)
    wrong = right.copy()
    wrong[2:4] += 0.3
    assert odds(right)[0] > odds(wrong)[0] + 3


def test_shut_lids() -> None:
    wide, narrow, shut = odds(*(seen(0, 0, left_lid=height / UNIT, right_lid=height / UNIT) for height in (7, 4, -1)))
    assert wide == pytest.approx(narrow)
    assert shut == pytest.approx(narrow - ((4 + 1) / 1.5) ** 2, abs=1e-4)


def test_eyes_that_squint_do_not_look() -> None:
    straight, squinting = odds(seen(0, 0), squint(15, 0))
    assert straight - squinting == pytest.approx(np.sin(np.radians(15)) ** 2 / np.radians(APART) ** 2, rel=1e-3)
    hidden, hidden_squinting = odds(seen(40, 0), squint(15, 40))  # the farther eye is not seen
    assert hidden_squinting < hidden  # but the nearer one looks past the camera


def squint(angle: float, yaw: float) -> np.ndarray:
    """Features of a head whose eyes are turned towards each other, each by an angle in degrees."""
    features = seen(yaw, 0)
    features[[0, 2]] += np.array([-1, 1]) * RADIUS * np.sin(np.radians(angle)) / UNIT
    return features


def test_a_head_has_a_pitch_of_its_own() -> None:
    level, raised = odds(seen(0, 0), seen(0, 7), nod=7.0)
    assert raised == pytest.approx(START, abs=1e-4)
    assert level == pytest.approx(START - (7 / HEAD) ** 2, abs=1e-3)


def test_small_faces_say_less() -> None:
    """With 1/2 pixel of error at 20 pixels a unit: 0.5 x 89.5 / 20 / 11 = 0.203, where 12 degrees are 0.209."""
    here, past = odds(seen(0, 0, scale=20.0), seen(0, 0, (12, 0), scale=20.0))
    across, up = (1 + 0.2034**2 / np.radians(tolerance) ** 2 for tolerance in (EYE, VERTICAL))
    assert here == pytest.approx(START - np.log(across) / 2 - np.log(up) / 2, abs=1e-3)
    assert here - past == pytest.approx(np.sin(np.radians(12)) ** 2 / np.radians(EYE) ** 2 / across, abs=1e-3)


def test_mirrored_features_have_equal_odds() -> None:
    features = seen(15, 5, (8, -3))
    mirrored = features[[2, 3, 0, 1, 5, 4, 6, 7, 8, 9, 10, 11]] * [-1, 1, -1, 1, 1, 1, -1, 1, 1, -1, 1, 1]
    one, other = odds(features, mirrored)
    assert one == pytest.approx(other, abs=1e-5)


def test_no_face_is_not_looking() -> None:
    head = Anatomical(12).eval()
    with torch.no_grad():
        logits = head(Window(torch.zeros(2, 1, 12), torch.tensor([[True], [False]])))
    assert logits.softmax(dim=1)[:, 1].tolist() == pytest.approx([1 / (1 + np.exp(3))] * 2)


def test_one_frame_of_several_cannot_decide() -> None:
    frames = np.stack([seen(0, 0)] * 4 + [seen(0, 0, (80, 0))])
    head = Anatomical(12, window=5, nod=0.0).eval()
    with torch.no_grad():
        logits = head(Window(torch.from_numpy(frames).float()[None], torch.ones(1, 5, dtype=torch.bool)))
    assert (logits[0, 1] - logits[0, 0]).item() == pytest.approx((4 * START - 9) / 5, abs=1e-3)  # -9 is the lowest


def test_other_features_and_constants_are_refused() -> None:
    check_head({"type": "anatomical"}, window=3)
    with pytest.raises(UserError, match="takes the 12 features of the backbone face_geometry, got 144; .*--backbone"):
        HEADS.build({"type": "anatomical", "feature_dim": 144})
    for argument in ({"radius": 0.0}, {"eye": -3.0}, {"start": 1e9}):
        with pytest.raises(UserError, match="head anatomical: argument"):
            HEADS.build({"type": "anatomical", "feature_dim": 12, **argument})
