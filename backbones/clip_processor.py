"""Read `preprocessor_config.json` of transformers' CLIP image processor, with which InternViT's checkpoints come."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from backbones.base import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from backbones.opening import read_small_json
from registry import UserError


def read_clip_processor(path: Path, image_size: int) -> Preprocessing:
    """Read how an image becomes the input of a network.

    What changes pixels is done as CLIP's processor does it, or refused by its name. Sizes that the file lacks are the
    network's, and mean and std ImageNet's, which InternViT was trained with.

    Args:
        path: of the file.
        image_size: side of the square that the network takes, in pixels.

    Raises:
        UserError: the file is damaged, or asks for something that `Preprocessing` cannot do.
    """
    if not path.is_file():  # a broken link; a pipe would be waited for
        raise UserError(f"{path} is not a file")
    try:
        data = read_small_json(path)
        if not isinstance(data, dict):
            raise TypeError(f"expected an object, found {type(data).__name__}")
        for key in ("image_processor_type", "feature_extractor_type"):
            if data.get(key) is not None and not str(data[key]).startswith("CLIP"):
                raise UserError(f"{key} is {data[key]!r:.80}; only CLIP's image processor is read")
        return preprocessing_of(data, image_size)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is not a configuration for CLIP's image processor: {reason}") from error


def preprocessing_of(values: Mapping[str, Any], image_size: int) -> Preprocessing:
    """Convert the values of an image processor that resizes, crops and normalises in this order, as CLIP's does.

    Args:
        values: as in `preprocessor_config.json`; None counts as absent.
        image_size: side of the square that the network takes, in pixels.

    Raises:
        UserError: `Preprocessing` cannot do it.
        ValueError: a value has the wrong type.
    """
    data = {key: value for key, value in values.items() if value is not None}
    resize, stretch = _resize(data, image_size)
    crop = _crop(data, image_size, resize) if _switch(data, "do_center_crop") else resize
    if not _switch(data, "do_center_crop") and not stretch:
        raise UserError("do_center_crop is false, and the network takes squares; set it to true")
    if not image_size == crop <= resize:
        raise UserError(f"it resizes to {resize} and crops {crop}, but the network's image_size is {image_size}")
    mean, std = _normalisation(data)
    return Preprocessing(crop, resize, _interpolation(data.get("resample", 3)), mean, std, stretch=stretch)


def _resize(data: Mapping[str, Any], image_size: int) -> tuple[int, bool]:
    """What to resize to, and whether both edges are (else the shorter one)."""
    if not _switch(data, "do_resize"):
        raise UserError("do_resize is false, but images of any size have to fit the network; set it to true")
    if data.get("do_pad", False) is not False:
        raise UserError("do_pad is not supported; set it to false")
    size = data.get("size", image_size)
    if not isinstance(size, dict):
        return _whole("size", size), False
    edges = {key: _whole(f"size.{key}", value) for key, value in size.items() if value is not None}
    if edges.keys() == {"shortest_edge"}:
        return edges["shortest_edge"], False
    if edges.keys() == {"height", "width"} and edges["height"] == edges["width"]:
        return edges["height"], True
    for key in edges:
        if key not in ("shortest_edge", "height", "width"):
            raise UserError(f"size.{key} is not supported; give size.shortest_edge alone")
    raise UserError(f"size is {size!r:.80}; give shortest_edge, or height and width, which have to be equal")


def _crop(data: Mapping[str, Any], image_size: int, resize: int) -> int:
    """Side of the square that is cut out."""
    size = data.get("crop_size", image_size)
    if not isinstance(size, dict):
        return _whole("crop_size", size)
    edges = {key: _whole(f"crop_size.{key}", value) for key, value in size.items() if value is not None}
    if edges.keys() != {"height", "width"} or edges["height"] != edges["width"]:
        raise UserError(f"crop_size is {size!r:.80}; give height and width, which have to be equal")
    return edges["height"]


def _normalisation(data: Mapping[str, Any]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and std for values in [0, 1], which stand for rescaling by another factor too."""
    mean = _channels("image_mean", data.get("image_mean", IMAGENET_MEAN))
    std = _channels("image_std", data.get("image_std", IMAGENET_STD))
    if not _switch(data, "do_normalize"):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    factor = _number("rescale_factor", data.get("rescale_factor", 1 / 255)) if _switch(data, "do_rescale") else 1.0
    if factor <= 0:
        raise UserError(f"rescale_factor is {factor}; it must be above 0")
    scale = 255 * factor
    if abs(scale - 1) < 1e-6:  # 0.00392156862745098 and shorter
        return mean, std
    # (x * factor - mean) / std = (x / 255 - mean / scale) / (std / scale)
    return (mean[0] / scale, mean[1] / scale, mean[2] / scale), (std[0] / scale, std[1] / scale, std[2] / scale)


def _interpolation(resample: Any) -> str:
    """The name of PIL's filter, from its number or its name: 3, "bicubic", "PILImageResampling.BICUBIC"."""
    named = str(resample).rpartition(".")[2] if isinstance(resample, str) else resample
    if isinstance(named, str) and named.upper() in Image.Resampling.__members__:
        return named.lower()
    try:
        return Image.Resampling(_whole("resample", named)).name.lower()
    except (ValueError, UserError):
        names = ", ".join(f"{one.value} ({one.name.lower()})" for one in sorted(Image.Resampling))
        raise ValueError(f"resample is {resample!r:.80}; filters are {names}") from None


def _switch(data: Mapping[str, Any], key: str) -> bool:
    value = data.get(key, True)
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {value!r:.80}; it must be true or false")
    return value


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{key} is {value!r:.80}; it must be a finite number")
    return float(value)


def _whole(key: str, value: Any) -> int:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if abs(_number(key, value)) > 1_000_000 or value != int(value):
        raise ValueError(f"{key} is {value!r:.80}; it must be a whole number of at most 1,000,000")
    return int(value)


def _channels(key: str, value: Any) -> tuple[float, float, float]:
    """One number for each channel; a single one is for all."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * 3
    if len(values) != 3:
        raise ValueError(f"{key} has {len(values)} numbers; it must be three, or one for all channels")
    red, green, blue = (_number(key, each) for each in values)
    return red, green, blue
