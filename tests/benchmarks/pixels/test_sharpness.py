"""Sharpness is OpenCV's number, and the dropout follows its two rules."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from benchmarks.pixels import sharpness as module
from benchmarks.pixels.sharpness import cumulative_normal, drop_mask, laplacian_variance, sharpness, sharpness_of
from registry import UserError


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_laplacian_of_a_picture_of_six_pixels() -> None:
    grey = np.array([[10, 20, 30], [40, 60, 80]])
    picture = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)  # equal channels: grey is the value itself
    # Beyond an edge lies the pixel inside of it: each sum is left + right + above + below - 4 x middle.
    expected = [
        [20 + 20 + 40 + 40 - 40, 10 + 30 + 60 + 60 - 80, 20 + 20 + 80 + 80 - 120],
        [60 + 60 + 10 + 10 - 160, 40 + 80 + 20 + 20 - 240, 60 + 60 + 30 + 30 - 320],
    ]
    assert laplacian_variance(picture) == pytest.approx(np.var(expected), abs=1e-12)


@pytest.mark.parametrize("size", [(2, 2), (7, 31), (224, 224), (500, 3)])
def test_laplacian_is_that_of_opencv(size: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    picture = noise(*size)
    for each in (picture, np.full_like(picture, 255), picture // 8 * 8):
        expected = cv2.Laplacian(cv2.cvtColor(each[..., ::-1].copy(), cv2.COLOR_BGR2GRAY), cv2.CV_64F).var()
        assert laplacian_variance(each) == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_grey_is_that_of_opencv_for_every_colour_of_a_lattice() -> None:
    cv2 = pytest.importorskip("cv2")
    levels = np.arange(0, 256, 3, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 1, 3)
    # A column of black around each colour makes the Laplacian of three pixels tell its grey.
    for colour, grey in zip(colours[::97], cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)[::97], strict=True):
        g = int(grey[0])
        picture = np.stack([np.zeros((1, 3), np.uint8), colour, np.zeros((1, 3), np.uint8)])
        assert laplacian_variance(picture) == pytest.approx(np.var([2 * g, -2 * g, 2 * g]), abs=1e-9)


def test_crops_are_judged_at_the_size_of_ego4ds() -> None:
    picture = Image.fromarray(noise(40, 30))
    enlarged = np.asarray(picture.resize((224, 224), Image.Resampling.BILINEAR))
    assert sharpness_of(picture) == laplacian_variance(enlarged)
    stored = noise(224, 224)
    assert sharpness_of(Image.fromarray(stored)) == laplacian_variance(stored)


def test_blur_lowers_sharpness() -> None:
    sharp = Image.fromarray(noise(60, 60))
    blurred = sharp.resize((20, 20), Image.Resampling.BOX).resize((60, 60), Image.Resampling.BILINEAR)
    assert sharpness_of(blurred) < 0.3 * sharpness_of(sharp)


def test_place_in_the_normal_distribution_of_the_split() -> None:
    values = np.random.default_rng(3).gamma(2, 50, 200)
    expected = norm.cdf(values, *norm.fit(values))
    assert cumulative_normal(values) == pytest.approx(expected, abs=1e-12)
    with_gaps = np.concatenate([[np.nan], values, [np.nan]])
    assert cumulative_normal(with_gaps)[1:-1] == pytest.approx(expected, abs=1e-12)
    assert cumulative_normal(with_gaps)[[0, -1]].tolist() == [0, 0]
    assert cumulative_normal(np.array([4.0, 4.0])).tolist() == [0.5, 0.5]
    assert cumulative_normal(np.array([np.nan])).tolist() == [0]


def test_validation_drops_the_least_sharp_and_draws_nothing() -> None:
    p = np.array([[0.1, 0.25, 0.19, 0.05, 0.2, 0.9, 0.0]])
    present = np.array([[True, True, True, True, True, True, False]])
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state
    dropped = drop_mask(p, present, training=False, generator=generator)
    assert dropped.tolist() == [[True, False, True, False, False, False, False]]  # the centre stays, 0.05 as it is
    assert generator.bit_generator.state == before


def test_training_drops_each_with_its_own_probability() -> None:
    places = np.array([0.0, 0.3, 0.5, 0.0, 0.79, 0.81, 1.0])
    p = np.tile(places, (20_000, 1))
    present = np.ones_like(p, dtype=bool)
    present[::2, 0] = False
    dropped = drop_mask(p, present, training=True, generator=np.random.default_rng(0))
    share = dropped[1::2].mean(axis=0)
    # P(u > p + 0.2) = 0.8 - p, none below zero; the centre never.
    assert share == pytest.approx([0.8, 0.5, 0.3, 0, 0.01, 0, 0], abs=0.015)
    assert not dropped[::2, 0].any()
    assert share[[3, 5, 6]].tolist() == [0, 0, 0]
    again = drop_mask(p, present, training=True, generator=np.random.default_rng(0))
    assert np.array_equal(dropped, again)


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    for number in range(7):
        path = tmp_path / "crops" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise(20, 25, number)).save(path)
    return tmp_path / "crops"


def test_a_tree_is_judged_once(crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache" / "sharpness.npz"
    images = ["3.png", "", "0.png", "3.png"]
    found = sharpness(crops, images, cache)
    expected = [sharpness_of(Image.open(crops / image)) for image in ("3.png", "0.png")]
    assert found[[0, 2, 3]].tolist() == [expected[0], expected[1], expected[0]]
    assert np.isnan(found[1])

    judged = []

    def counting(picture: Image.Image) -> float:
        judged.append(picture.size)
        return sharpness_of(picture)

    monkeypatch.setattr(module, "sharpness_of", counting)
    assert np.array_equal(sharpness(crops, images, cache), found, equal_nan=True)
    assert not judged
    assert sharpness(crops, ["0.png", "6.png"], cache)[0] == expected[1]
    assert len(judged) == 1


def test_an_interrupted_run_keeps_what_it_wrote(crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "sharpness.npz"
    images = [f"{number}.png" for number in range(7)]
    expected = [sharpness_of(Image.open(crops / image)) for image in images]
    monkeypatch.setattr(module, "CHUNK", 3)
    (crops / "5.png").rename(crops / "away.png")
    with pytest.raises(UserError, match=r"5\.png does not exist"):
        sharpness(crops, images, cache)
    (crops / "away.png").rename(crops / "5.png")
    for number in range(3):
        (crops / f"{number}.png").unlink()  # known by now
    assert sharpness(crops, images, cache).tolist() == expected


@pytest.mark.parametrize("harm", ["cut", "flip", "nonsense"])
def test_a_damaged_file_is_made_again(crops: Path, tmp_path: Path, harm: str) -> None:
    cache = tmp_path / "sharpness.npz"
    expected = sharpness(crops, ["1.png", "2.png"], cache)
    content = bytearray(cache.read_bytes())
    if harm == "cut":
        content = content[: len(content) // 2]
    elif harm == "flip":
        content[len(content) // 2] ^= 255
    else:
        content = bytearray(b"nonsense")
    cache.write_bytes(content)
    assert np.array_equal(sharpness(crops, ["1.png", "2.png"], cache), expected)


def test_a_crop_that_cannot_be_decoded_is_unknown(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (crops / "2.png").write_bytes(b"no picture")
    found = sharpness(crops, ["1.png", "2.png"], tmp_path / "sharpness.npz")
    assert np.isfinite(found).tolist() == [True, False]
    assert "1 crop cannot be decoded" in capsys.readouterr().err


def test_one_core_gives_the_same(crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [f"{number}.png" for number in range(7)]
    several = sharpness(crops, images, tmp_path / "a.npz")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert np.array_equal(sharpness(crops, images, tmp_path / "b.npz"), several)
