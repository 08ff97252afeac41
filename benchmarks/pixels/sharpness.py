"""Gaussian Temporal Dropout: windows lose neighbours that are blurred compared with the rest of their split.

Source: GazePose. Sharpness is the variance of the Laplacian, in numpy, equal to OpenCV's result.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.data.pictures import over_crops
from benchmarks.system import interrupts
from benchmarks.system.locks import locked
from benchmarks.system.progress import Progress, say
from zoo.files.atomic import replacing

SIDE = 224  # pixels; sharpness is measured at the size of Ego4D's stored crops
SLACK = 0.2  # in both rules of `drop_mask`; published

CHUNK = 5000  # crops between two writes of the file


def laplacian_variance(picture: np.ndarray) -> float:
    """Returns the variance of the Laplacian of an RGB picture: `cv2.Laplacian(grey, cv2.CV_64F).var()`.

    The kernel is [[0, 1, 0], [1, -4, 1], [0, 1, 0]], edges are mirrored without repeating the edge pixel, and grey is
    OpenCV's rounding of .299 R + .587 G + .114 B.

    Args:
        picture: uint8 (H, W, 3), RGB.

    Example:
        >>> laplacian_variance(np.full((4, 4, 3), 7, dtype=np.uint8))
        0.0
    """
    red, green, blue = np.moveaxis(picture.astype(np.int32), -1, 0)
    grey = (9798 * red + 19235 * green + 3735 * blue + (1 << 14)) >> 15
    padded = np.pad(grey, 1, mode="reflect")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return float((around - 4 * grey).astype(np.float64).var())


def sharpness_of(picture: Image.Image) -> float:
    """Returns the sharpness of a crop, resized to 224 x 224 (bilinear) if it has another size.

    At its native size a small, distant face would count among the sharpest. Enlarged, as in Ego4D's crops, it is
    blurred.
    """
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return laplacian_variance(np.asarray(picture))


def sharpness(root: Path, images: Sequence[str], cache: Path) -> np.ndarray:
    """Returns the sharpness of crops, cached in a file.

    Args:
        root: folder that the paths are relative to.
        images: N paths; "" for a row without a crop.
        cache: `.npz` file of this data set. Missing values are computed on all cores and added every few thousand
            crops, so that an interrupted run resumes.

    Returns:
        ``(N,)`` float64, NaN where there is no crop or it cannot be decoded.

    Raises:
        UserError: a crop does not exist, or the file cannot be written.
    """
    wanted = {image for image in images if image}
    known, missing = _load(cache), list[str]()
    if not wanted <= known.keys():
        with locked(cache.with_suffix(".lock"), str(cache), wait=True):
            known = _load(cache)
            missing = sorted(wanted - known.keys())
            _add(root, missing, cache, known)
    values = np.array([known.get(image, math.nan) for image in images], dtype=np.float64)
    damaged = sum(math.isnan(known[image]) for image in missing)
    if damaged:
        say(f"sharpness: {damaged} crop{'s'[: damaged > 1]} cannot be decoded")
    return values


def _add(root: Path, missing: Sequence[str], cache: Path, known: dict[str, float]) -> None:
    """Computes missing values chunk by chunk, into `known` and the file."""
    with Progress("sharpness", len(missing), "crop") as progress:
        for start in interrupts.steps(range(0, len(missing), CHUNK)):
            chunk = missing[start : start + CHUNK]
            found = over_crops(root, chunk, lambda _, picture: sharpness_of(picture))
            known |= zip(chunk, (math.nan if value is None else value for value in found), strict=True)
            _save(cache, known)
            progress.advance(len(chunk))


def cumulative_normal(values: np.ndarray) -> np.ndarray:
    """Returns the cumulative probability of each value under the normal distribution fitted to all values.

    Args:
        values: ``(N,)`` sharpness of the frames of one split, NaN where unknown.

    Returns:
        p ``(N,)`` in [0, 1]; 0 where the value is unknown, 0.5 if all values are equal.
    """
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(len(values))
    mean, deviation = values[known].mean(), values[known].std()
    z = (values - mean) / (deviation * math.sqrt(2)) if deviation > 0 else np.zeros(len(values))
    return np.array([(1 + math.erf(at)) / 2 if ok else 0.0 for at, ok in zip(z, known, strict=True)])


def drop_mask(p: np.ndarray, present: np.ndarray, training: bool, generator: np.random.Generator) -> np.ndarray:
    """Selects the neighbours to drop: in training those with u > p + 0.2 for a uniform u, otherwise those with p < 0.2.

    Args:
        p: ``(M, T)`` of `cumulative_normal` for the frames of M windows; ignored for absent frames.
        present: ``(M, T)`` bool.
        training: draw; otherwise the generator is not used.
        generator: draws one number per frame.

    Returns:
        ``(M, T)`` bool, True for frames to treat as absent; never the centre, never an absent frame.
    """
    dropped = generator.random(p.shape) > p + SLACK if training else p < SLACK
    dropped = dropped & present
    dropped[:, p.shape[1] // 2] = False
    return dropped


def _load(path: Path) -> dict[str, float]:
    """Reads a cache file; returns nothing if it is missing or damaged, since it can be recomputed."""
    with (
        suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error),
        np.load(path, allow_pickle=False) as content,
    ):
        images = content["images"].tobytes().decode("utf-8", "surrogateescape").split("\0")
        values = content["sharpness"]
        if len(images) == len(values) and hashlib.sha256(values.tobytes()).digest() == content["sha256"].tobytes():
            return dict(zip(images, values.tolist(), strict=True))
    return {}


def _save(path: Path, known: dict[str, float]) -> None:
    """Writes a cache file, the paths as one text because numpy would pad each to the longest."""
    values = np.array(list(known.values()), dtype=np.float64)
    images = "\0".join(known).encode("utf-8", "surrogateescape")
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            images=np.frombuffer(images, dtype=np.uint8),
            sharpness=values,
            sha256=np.frombuffer(hashlib.sha256(values.tobytes()).digest(), dtype=np.uint8),
        )
