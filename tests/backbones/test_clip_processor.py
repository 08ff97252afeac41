"""`preprocessor_config.json` against transformers' own CLIP image processor."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from backbones.base import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from backbones.clip_processor import read_clip_processor
from backbones.gaze_nano import GazeNano
from backbones.internvit import read_preprocessing
from registry import UserError

SIZE = 56
# Mean and std are always there: where they lack, ours are ImageNet's and theirs CLIP's.
PLAIN = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": SIZE},
    "crop_size": {"height": SIZE, "width": SIZE},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
PICTURES = [
    Image.fromarray(np.random.default_rng(side).integers(0, 256, shape, dtype=np.uint8))
    for side, shape in enumerate([(56, 56, 3), (90, 61, 3), (40, 133, 3), (224, 224, 3), (75, 75)])
]


def read(folder: Path, data: object, *, bom: bool = False) -> Preprocessing:
    path = folder / "preprocessor_config.json"
    path.write_bytes(b"\xef\xbb\xbf" * bom + json.dumps(data).encode())
    return read_clip_processor(path, SIZE)


def ours(preprocessing: Preprocessing, picture: Image.Image) -> np.ndarray:
    return preprocessing.normalise(torch.from_numpy(preprocessing.resize_crop(picture))[None])[0].numpy()


def theirs(data: dict, picture: Image.Image) -> np.ndarray:
    # The one that resizes by PIL: from version 5 on another one resizes by torchvision.
    named = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    return np.asarray(named.from_dict(dict(data))(picture, return_tensors="np")["pixel_values"][0], dtype=np.float64)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"size": {"shortest_edge": 64}},
        {"size": 64, "crop_size": 56},
        {"size": {"shortest_edge": 64, "longest_edge": None}},
        {"size": {"height": 64, "width": 64}},
        {"size": {"height": 56, "width": 56}, "do_center_crop": False},
        {"size": {"height": 56, "width": 56}, "do_center_crop": False, "crop_size": None},
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"rescale_factor": 1.0, "image_mean": [120.0, 110.0, 100.0], "image_std": [50.0, 51.0, 52.0]},
        {"rescale_factor": 0.00392156862745098},
        {"image_mean": 0.5, "image_std": 0.25},
        {"image_mean": 0, "image_std": 1},
        *({"resample": number} for number in range(6)),
        {"feature_extractor_type": "CLIPFeatureExtractor", "do_convert_rgb": True, "unknown": [1]},
    ],
    ids=str,
)
def test_pixels_are_those_of_transformers(tmp_path: Path, change: dict) -> None:
    data = PLAIN | change
    preprocessing = read(tmp_path, data)
    for picture in PICTURES:
        wanted = theirs(data, picture)
        assert wanted.shape == (3, SIZE, SIZE)
        np.testing.assert_allclose(ours(preprocessing, picture), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_other_spellings_are_the_same(tmp_path: Path) -> None:
    plain = Preprocessing(size=SIZE, resize=SIZE)
    assert read(tmp_path, PLAIN) == read(tmp_path, PLAIN, bom=True) == plain
    for change in ({"crop_size": None}, {"size": None}, {"resample": None}, {"image_mean": None}, {"do_resize": True}):
        assert read(tmp_path, PLAIN | change) == plain
    for resample in ("bicubic", "BICUBIC", "PILImageResampling.BICUBIC", "InterpolationMode.BICUBIC", "3", 3.0):
        assert read(tmp_path, PLAIN | {"resample": resample}) == plain
    assert read(tmp_path, PLAIN | {"resample": "Lanczos"}).interpolation == "lanczos"
    assert read(tmp_path, {}) == plain  # of the network and of ImageNet
    assert (plain.mean, plain.std) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"do_resize": False}, "do_resize is false"),
        ({"do_center_crop": False}, "do_center_crop is false"),
        ({"size": {"shortest_edge": 56, "longest_edge": 100}}, "size.longest_edge is not supported"),
        ({"size": {"longest_edge": 100}}, "size.longest_edge is not supported"),
        ({"size": {"max_height": 56, "max_width": 56}}, "size.max_height is not supported"),
        ({"size": {"height": 56, "width": 64}}, "size is .*height and width, which have to be equal"),
        ({"crop_size": {"height": 56, "width": 64}}, "crop_size is .*height and width, which have to be equal"),
        ({"crop_size": {"shortest_edge": 56}}, "crop_size is .*give height and width"),
        ({"size": {}}, "size is {}"),
        ({"size": 40}, "it resizes to 40 and crops 56, but the network's image_size is 56"),
        ({"size": 60, "crop_size": 60}, "crops 60, but the network's image_size is 56"),
        ({"size": {"height": 60, "width": 60}, "do_center_crop": False}, "resizes to 60 and crops 60"),
        ({"do_pad": True}, "do_pad is not supported"),
        ({"do_normalize": "false"}, "do_normalize is 'false'; it must be true or false"),
        ({"do_rescale": 0}, "do_rescale is 0; it must be true or false"),
        ({"rescale_factor": 0}, "rescale_factor is 0.0; it must be above 0"),
        ({"rescale_factor": float("nan")}, "rescale_factor is nan; it must be a finite number"),
        ({"rescale_factor": 1e-320}, "(mean|std) of the preprocessing is .*three finite numbers"),
        ({"resample": 9}, r"resample is 9; filters are 0 \(nearest\), 1 \(lanczos\)"),
        ({"resample": "cubic"}, "resample is 'cubic'; filters are"),
        ({"resample": True}, "resample is True; filters are"),
        ({"image_mean": [0.5, 0.5]}, "image_mean has 2 numbers"),
        ({"image_mean": ["a", 0, 0]}, "image_mean is 'a'; it must be a finite number"),
        ({"image_std": 0}, "std of the preprocessing is .*three finite numbers, above 0"),
        ({"image_processor_type": "ViTImageProcessor"}, "image_processor_type is 'ViTImageProcessor'; only CLIP's"),
        ({"size": 1e300}, r"size is 1e\+300; it must be a whole number"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_by_its_name(tmp_path: Path, change: dict, said: str) -> None:
    with pytest.raises(UserError, match=rf"preprocessor_config\.json.*: .*{said}") as caught:
        read(tmp_path, PLAIN | change)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    for data in ([], 5, "x"):
        with pytest.raises(UserError, match="not a configuration for CLIP's image processor: expected an object"):
            read(tmp_path, data)
    (tmp_path / "preprocessor_config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match="not a configuration for CLIP's image processor: 'utf-8' codec"):
        read_preprocessing(tmp_path, {"image_size": SIZE})


def test_what_is_no_file_is_not_taken_for_none(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    assert read_preprocessing(tmp_path, {"image_size": SIZE}) == Preprocessing(size=SIZE, resize=SIZE)
    path.symlink_to("nowhere")
    with pytest.raises(UserError, match=r"preprocessor_config\.json is not a file"):
        read_preprocessing(tmp_path, {"image_size": SIZE})


def test_stretching_is_part_of_the_fingerprint_where_there_is_any() -> None:
    backbone = GazeNano()
    before = backbone.fingerprint()
    assert "stretch" not in before["preprocessing"]
    backbone.preprocessing = Preprocessing(size=112, resize=112, stretch=True)
    assert backbone.fingerprint()["preprocessing"] == before["preprocessing"] | {"stretch": True}
