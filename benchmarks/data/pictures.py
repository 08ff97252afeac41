"""Decoding of untrusted pictures and videos, and decoding of many crops in threads."""

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
from PIL import Image, UnidentifiedImageError

from backbones.opening import read_at_most
from benchmarks.data.formats import describe, is_float_tiff, more_scans
from benchmarks.system.shortage import is_out_of_memory
from registry import UserError
from zoo.files.untrusted import LARGEST_FILE, below, open_input

if TYPE_CHECKING:
    from backbones.base import Preprocessing

# Pillow warns about large pictures and odd metadata; here a picture is either read or refused with an error.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Comment in the crops that `prepare` cuts, within the first `_HEAD` bytes, followed by their checksum.
_SEAL, _NO_CRC, _HEAD = b"lamzoo crc32 ", b"0" * 8, 128

T = TypeVar("T")

_QUEUED = 5000  # calls queued together by `in_threads`

# Pictures with more pixels (150 MB of RGB) are refused before decoding.
MAX_PIXELS = 50_000_000
# Accepted formats, whatever the file's extension. Pillow passes some of its other formats to external programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# Each scan of a JPEG passes over the whole picture, and a scan may take less than a hundred bytes. Encoders make about
# ten; libtiff has this limit too.
MAX_SCANS = 100
# FFmpeg formats that are lists of other files, addresses or devices.
LISTS = {"alsa", "concat", "concatf", "dash", "fbdev", "hls", "image2", "image2pipe", "imf", "kmsgrab", "lavfi", "oss",
         "rtp", "rtsp", "sap", "sdp", "v4l2", "video4linux2", "vobsub", "webm_dash_manifest", "x11grab"}  # fmt: skip


def is_of_machine(error: Exception) -> bool:
    """Whether the machine failed and not the picture: out of memory, or too many open files."""
    return is_out_of_memory(error) or (
        isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
    )


def open_video(path: Path) -> Any:
    """Opens a video with PyAV; refuses playlists and other formats that refer to further files.

    Raises:
        av.error.FFmpegError: the file cannot be read.
    """
    import av

    # Some versions of torchvision route FFmpeg's log through Python. A decoder thread that logs while the decoder is
    # freed then deadlocks with the interpreter.
    av.logging.set_level(None)
    options = {"format_whitelist": _video_formats(), "protocol_whitelist": "file"}
    # FFmpeg takes what stands before a colon in a relative path for a protocol.
    return av.open(str(path.absolute()), container_options=options)


@functools.cache
def _video_formats() -> str:
    import av

    return ",".join(sorted({name for names in av.formats_available for name in names.split(",")} - LISTS))


def limit_pixels(stream: Any) -> None:
    """Makes a video stream's decoder refuse frames above `MAX_PIXELS`, whatever the container's header says."""
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}


def write_sealed(path: Path, picture: Image.Image, quality: int) -> None:
    """Writes a JPEG with a comment that holds the CRC-32 of the file, computed with zeros in its place.

    JPEG has no checksum of its own: a flipped bit changes the picture without a decoding error.
    """
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality, comment=_SEAL + _NO_CRC)
    data = content.getvalue()
    path.write_bytes(data.replace(_SEAL + _NO_CRC, _SEAL + b"%08x" % zlib.crc32(data), 1))


def seal_of(data: bytes) -> bool | None:
    """Returns whether a file is intact, or None if `write_sealed` did not write it."""
    at = data.find(_SEAL, 0, _HEAD) + len(_SEAL)
    if at < len(_SEAL):
        return None
    return data[at : at + 8] == b"%08x" % zlib.crc32(data[:at] + _NO_CRC + data[at + 8 :])


class UnsupportedPictureError(ValueError):
    """A picture that may be sound and is not read: of another format, not of 8 or 16 bits, or too large.

    Args:
        reason: why.
        remedy: what to do with it.
    """

    def __init__(self, reason: str, remedy: str = "convert it to an 8-bit JPEG or PNG") -> None:
        super().__init__(reason)
        self.remedy = remedy


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Opens a picture. One of 8 bits or fewer is not decoded yet; one of 16 bits is decoded and scaled to 8.

    Raises:
        FileNotFoundError: the file does not exist.
        UnsupportedPictureError: it is of another format, has floating-point or 32-bit pixels, or is too large.
        Exception: the file cannot be read, is not a picture, or fails its checksum. Pillow's decoders raise any
            exception.
    """
    with open_input(path) as opened_file:
        file = opened_file if opened_file.seekable() else io.BytesIO(read_at_most(opened_file, LARGEST_FILE))  # a pipe
        try:
            picture = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError as error:
            if is_float_tiff(file):
                raise UnsupportedPictureError("floating-point pixels") from error
            file.seek(0)
            what, other = describe(file.read(512))
            raise UnsupportedPictureError(what) if other else ValueError(what) from error
        except Image.DecompressionBombError as error:
            raise UnsupportedPictureError(f"more than {MAX_PIXELS:,} pixels", "make it smaller") from error
        with picture:
            if picture.format in ("JPEG", "MPO"):  # MPO: several JPEGs, of which the first is read
                file.seek(0)
                _check_jpeg(file.read(), sealed=_SEAL in picture.info.get("comment", b""))
                file.seek(0)
            if picture.width * picture.height > MAX_PIXELS:
                raise UnsupportedPictureError(
                    f"{picture.width} x {picture.height} pixels, more than {MAX_PIXELS:,}", "make it smaller"
                )
            yield _in_8_bits(picture)


def _check_jpeg(data: bytes, sealed: bool) -> None:
    if sealed and not seal_of(data):
        raise ValueError("not the bytes that were written (its checksum differs)")
    if more_scans(data, MAX_SCANS):
        raise UnsupportedPictureError(f"a JPEG with more than {MAX_SCANS} scans", "save it again")


def _in_8_bits(picture: Image.Image) -> Image.Image:
    """Scales grey of 16 bits to 8 by its high byte, as Pillow does with colours of 16 bits; `convert` would clip it.

    Raises:
        UnsupportedPictureError: floating-point pixels, or integers without a known range.
    """
    if picture.mode not in ("F", "I", "I;16", "I;16L", "I;16B", "I;16N", "LAB"):
        return picture
    if picture.mode == "F":
        raise UnsupportedPictureError("floating-point pixels")
    if picture.mode == "LAB":
        raise UnsupportedPictureError("colours in L*a*b*")
    bits = 16
    tags = getattr(picture, "tag_v2", None)
    if tags is not None:  # TIFF: BitsPerSample, SampleFormat, PhotometricInterpretation
        bits, signed, white_is_zero = tags.get(258, (1,))[0], tags.get(339, (1,))[0] != 1, tags.get(262) == 0
        if bits > 16 or signed or white_is_zero:
            kind = "signed " if signed else ""
            raise UnsupportedPictureError(f"grey of {kind}{bits} bits" + ", 0 for white" * white_is_zero)
    return Image.fromarray((np.asarray(picture) >> (bits - 8)).astype(np.uint8))


def over_crops(root: Path, images: Sequence[str], work: Callable[[int, Image.Image], T]) -> list[T | None]:
    """Decodes crops and calls a function with each, in threads.

    Args:
        root: folder that the paths are relative to.
        images: N paths.
        work: called with the crop's number and its RGB picture, from several threads at once.

    Returns:
        N results, None for crops that cannot be decoded.

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
        except Exception as error:  # Pillow's decoders raise any exception
            if is_of_machine(error):
                raise
            return None
        return work(number, picture)

    return list(in_threads(one, len(images)))


def in_threads(work: Callable[[int], T], count: int) -> Iterator[T]:
    """Yields `work(0)` to `work(count - 1)` in order, computed in one thread per core.

    Threads suffice because decoding, OpenCV and most of numpy release the GIL. After an error no more work starts.
    """
    workers = min(os.cpu_count() or 1, count)
    if workers <= 1:
        yield from map(work, range(count))
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            for start in range(0, count, _QUEUED):
                yield from pool.map(work, range(start, min(start + _QUEUED, count)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class DamagedImageError(UserError):
    """A crop that cannot be decoded; `image` is its path relative to the images' root."""

    def __init__(self, path: Path, image: str, reason: str, remedy: str | None = None) -> None:
        what = "damaged crop" if remedy is None else "cannot read crop"
        remedy = remedy or "repair or delete it"
        super().__init__(f"{what} {path}: {reason}; {remedy}, or leave it out with --skip-damaged")
        self.image = image


def read_crop(root: Path, image: str, *, preprocessing: Preprocessing) -> np.ndarray:
    """Decode one crop as RGB and resize it for a backbone.

    Grey, CMYK, palettes and alpha are converted by Pillow's `convert("RGB")`, which leaves out transparency. Of
    animations the first frame is read. EXIF rotation is ignored.

    Args:
        root: folder that the path is relative to.
        image: path of the crop.
        preprocessing: of the backbone.

    Returns:
        uint8 (size, size, 3).

    Raises:
        DamagedImageError: the crop cannot be decoded or is too large.
        UserError: the crop does not exist.
    """
    path = below(root, image, "an image of a frame table")
    try:
        with open_picture(path) as opened:
            short, long = sorted(opened.size)
            keeps_shape = not (preprocessing.stretch or preprocessing.pad)
            if keeps_shape and preprocessing.resize**2 * long / short > MAX_PIXELS:
                raise UnsupportedPictureError(
                    f"{opened.width} x {opened.height} pixels: resized, more than {MAX_PIXELS:,}", "make it smaller"
                )
            return preprocessing.resize_crop(opened)
    except FileNotFoundError as error:
        if not path.is_symlink():
            raise UserError(f"crop {path} does not exist; prepare the data again") from error
        raise DamagedImageError(path, image, "a link to a file that does not exist") from error
    except Exception as error:  # Pillow's decoders raise any exception
        if is_of_machine(error):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = " ".join(reason.replace(str(path), "").split()) or type(error).__name__
        raise DamagedImageError(path, image, reason, getattr(error, "remedy", None)) from error
