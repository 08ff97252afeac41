"""Pictures from files that may be anything; and work on many crops at once, on all cores."""

from __future__ import annotations

import errno
import functools
import io
import os
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from benchmarks.system.shortage import is_out_of_memory
from registry import UserError
from zoo.files.untrusted import below, open_input

if TYPE_CHECKING:
    from backbones.base import Preprocessing

# Pillow warns of large pictures and of odd metadata; here a picture is refused in an error's own words, or taken.
warnings.filterwarnings("ignore", module=r"PIL\.")

# In a comment of the crops that `prepare` cuts, within the first bytes of the file, and their checksum behind it.
_SEAL, _NO_CRC, _HEAD = b"lamzoo crc32 ", b"0" * 8, 128

T = TypeVar("T")

# A picture of more pixels is refused before it is decoded: 150 MB of RGB.
MAX_PIXELS = 50_000_000
# What a file may hold, whatever its name says. Pillow knows more formats, and hands some of them to other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# What FFmpeg takes for a video and is a list of other files, of addresses, or of devices.
LISTS = {"alsa", "concat", "concatf", "dash", "fbdev", "hls", "image2", "image2pipe", "imf", "kmsgrab", "lavfi", "oss",
         "rtp", "rtsp", "sap", "sdp", "v4l2", "video4linux2", "vobsub", "webm_dash_manifest", "x11grab"}  # fmt: skip


def is_of_machine(error: Exception) -> bool:
    """Whether it is the machine that failed, and not the picture: there is no memory, or there are too many files."""
    return is_out_of_memory(error) or (
        isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
    )


def open_video(path: Path) -> Any:
    """Open a video with PyAV: the file alone, not what a list or a playlist under a video's name would lead to.

    Raises:
        av.error.FFmpegError: it cannot be read.
    """
    import av

    # Some versions of torchvision have FFmpeg's threads log through Python: one that does while its decoder is freed
    # waits for the interpreter, and the interpreter for it.
    av.logging.set_level(None)
    return av.open(str(path), container_options={"format_whitelist": _video_formats(), "protocol_whitelist": "file"})


@functools.cache
def _video_formats() -> str:
    import av

    return ",".join(sorted({name for names in av.formats_available for name in names.split(",")} - LISTS))


def limit_pixels(stream: Any) -> None:
    """Have the decoder of a video's stream refuse frames of more than `MAX_PIXELS`, whatever the container says."""
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}


def write_sealed(path: Path, picture: Image.Image, quality: int) -> None:
    """Write a JPEG with a comment that has the CRC-32 of the file, taken with zeros in its place.

    JPEG has no checksum: with one bit flipped a picture is another one, and decodes all the same.
    """
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality, comment=_SEAL + _NO_CRC)
    data = content.getvalue()
    path.write_bytes(data.replace(_SEAL + _NO_CRC, _SEAL + b"%08x" % zlib.crc32(data), 1))


def seal_of(data: bytes) -> bool | None:
    """Whether a file is as `write_sealed` wrote it; None where it was not written so."""
    at = data.find(_SEAL, 0, _HEAD) + len(_SEAL)
    if at < len(_SEAL):
        return None
    return data[at : at + 8] == b"%08x" % zlib.crc32(data[:at] + _NO_CRC + data[at + 8 :])


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Open a picture, of which nothing is decoded yet.

    Raises:
        FileNotFoundError: it does not exist.
        Exception: it cannot be read, is no picture, is too large, or is not what was written. Pillow's decoders raise
            anything.
    """
    with open_input(path) as file, Image.open(file, formats=FORMATS) as opened:
        if opened.format == "JPEG" and _SEAL in opened.info.get("comment", b""):
            file.seek(0)
            if not seal_of(file.read()):
                raise ValueError("not the bytes that were written (its checksum differs)")
            file.seek(0)
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width} x {opened.height} pixels, more than {MAX_PIXELS:,}")
        yield opened


def over_crops(root: Path, images: Sequence[str], work: Callable[[int, Image.Image], T]) -> list[T | None]:
    """Decode crops and call a function with each, in threads.

    Threads do, since decoding, OpenCV and most of numpy let others run.

    Args:
        root: what the images' paths are relative to.
        images: N paths.
        work: called with the number of the crop and its picture in RGB; from several threads.

    Returns:
        N answers, None for a crop that cannot be decoded.

    Raises:
        UserError: a crop does not exist.
    """

    def one(number: int) -> T | None:
        path = below(root, images[number], "an image of a frame table")
        try:
            with open_picture(path) as opened:
                picture = opened.convert("RGB")
        except FileNotFoundError as error:
            raise UserError(f"crop {path} does not exist; prepare the data again") from error
        except Exception as error:  # Pillow's decoders raise anything
            if is_of_machine(error):
                raise
            return None
        return work(number, picture)

    workers = min(os.cpu_count() or 1, len(images))
    if workers <= 1:
        return [one(number) for number in range(len(images))]
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(one, number) for number in range(len(images))]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class DamagedImageError(UserError):
    """A crop that cannot be decoded; `image` is its path relative to the images' root."""

    def __init__(self, path: Path, image: str, reason: str) -> None:
        super().__init__(f"damaged crop {path}: {reason}; repair or delete it, or go on without it: --skip-damaged")
        self.image = image


def read_crop(root: Path, image: str, *, preprocessing: Preprocessing) -> np.ndarray:
    """Decode one crop as RGB, by Pillow's `convert("RGB")`, and resize it for a backbone.

    Args:
        root: the images' root.
        image: path relative to it.
        preprocessing: of the backbone.

    Returns:
        uint8 (size, size, 3).

    Raises:
        DamagedImageError: it cannot be decoded, or is too large.
        UserError: it does not exist.
    """
    path = below(root, image, "an image of a frame table")
    try:
        with open_picture(path) as opened:
            short, long = sorted(opened.size)
            if preprocessing.resize**2 * long / short > MAX_PIXELS:
                raise ValueError(f"{opened.width} x {opened.height} pixels: resized, more than {MAX_PIXELS:,}")
            return preprocessing.resize_crop(opened)
    except FileNotFoundError as error:
        if not path.is_symlink():
            raise UserError(f"crop {path} does not exist; prepare the data again") from error
        raise DamagedImageError(path, image, "a link to a file that does not exist") from error
    except Exception as error:  # Pillow's decoders raise anything
        if is_of_machine(error):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = " ".join(reason.replace(str(path), "").split()) or type(error).__name__
        raise DamagedImageError(path, image, reason) from error
