"""Images: sound ones of every mode and format, damaged, bombs, and files that are something else."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.harness import Kind
from tests.fuzz.values import file_of, place, spoilt_bytes


def _saved(mode: str, form: str, **more: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture = picture.convert("L").convert(mode) if mode in ("I;16", "I", "F") else picture.convert(mode)
    out = io.BytesIO()
    picture.save(out, form, **more)
    return out.getvalue()


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *chunks: bytes, rows: int = 1000) -> bytes:
    """A PNG that says to be of some size; its pixels are zeros, as many as `rows` rows."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    zeros = zlib.compress(bytes(min(3 * width + 1, 100_000) * min(height, rows)), 9)
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + _chunk(b"IDAT", zeros) + _chunk(b"IEND", b"")


def _jpeg(width: int, height: int) -> bytes:
    """A JPEG that says to be of some size."""
    data = _saved("RGB", "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def _bmp(width: int, height: int) -> bytes:
    data = bytearray(_saved("RGB", "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def _gif(width: int, height: int) -> bytes:
    data = bytearray(_saved("P", "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


@cache
def _zeros() -> bytes:
    """A hundred megabytes, packed: more than Pillow takes as text or profile."""
    return zlib.compress(bytes(100_000_000), 9)


def _frames() -> bytes:
    out = io.BytesIO()
    frames = [Image.new("P", (16, 16), number) for number in range(5)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n(canary) print\nshowpage\n%%EOF\n"
SOUND: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: _saved("RGB", "JPEG"),
    "grey jpeg": lambda: _saved("L", "JPEG"),
    "cmyk jpeg": lambda: _saved("CMYK", "JPEG"),
    "progressive jpeg": lambda: _saved("RGB", "JPEG", progressive=True),
    "turned jpeg": lambda: _saved("RGB", "JPEG", exif=_exif(6)),
    "jpeg of orientation 999": lambda: _saved("RGB", "JPEG", exif=_exif(999)),
    "jpeg, exif garbage": lambda: _saved("RGB", "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(range(200))),
    "jpeg, icc garbage": lambda: _saved("RGB", "JPEG", icc_profile=bytes(range(256)) * 4),
    "png": lambda: _saved("RGB", "PNG"),
    "16-bit png": lambda: _saved("I;16", "PNG"),
    "palette png": lambda: _saved("P", "PNG", transparency=3),
    "alpha png": lambda: _saved("RGBA", "PNG"),
    "1-bit png": lambda: _saved("1", "PNG"),
    "png, icc garbage": lambda: _saved("RGB", "PNG", icc_profile=b"\xff" * 400),
    "png, text bomb": lambda: _png(8, 8, _chunk(b"zTXt", b"a\0\0" + _zeros())),
    "png, icc bomb": lambda: _png(8, 8, _chunk(b"iCCP", b"a\0\0" + _zeros())),
    "webp": lambda: _saved("RGB", "WEBP"),
    "float tiff": lambda: _saved("F", "TIFF"),
    "cmyk tiff": lambda: _saved("CMYK", "TIFF"),
    "animated gif": _frames,
    "bmp": lambda: _saved("RGB", "BMP"),
    "ppm": lambda: b"P6 4 4 255 " + bytes(48),
    "eps": lambda: _EPS,
    "svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
    "text": lambda: b"not a picture\n",
    "json": lambda: b"[]",
    "zip": lambda: b"PK\x03\x04" + bytes(60),
    "elf": lambda: b"\x7fELF" + bytes(60),
    "thin png": lambda: _png(1, 60_000),
    "wide png": lambda: _png(2_000_000, 1),
    "bomb png": lambda: _png(30_000, 30_000),
    "bomb png of 49 million": lambda: _png(7_000, 7_000),
    "bomb png of 2^31": lambda: _png(2**31 - 1, 2**31 - 1, rows=1),
    "bomb jpeg": lambda: _jpeg(65_500, 65_500),
    "bomb bmp": lambda: _bmp(2**30, 2**30),
    "bomb gif": lambda: _gif(65_535, 65_535),
    "bomb ppm": lambda: b"P6 999999999 999999999 255 x",
    "png of no size": lambda: _png(0, 0),
}


@cache
def sound(name: str) -> bytes:
    """The bytes of one of `SOUND`."""
    return SOUND[name]()


_sound = st.sampled_from(sorted(SOUND)).map(lambda name: (name, "as it is"))
_spoilt = st.sampled_from([name for name in sorted(SOUND) if "bomb" not in name]).flatmap(
    lambda name: st.tuples(st.just(name), spoilt_bytes(sound(name)))
)
_odd = file_of(st.just(b"")).map(lambda what: ("file", what))
CASES = st.one_of(_sound, _spoilt, _spoilt, _odd)


def write(folder: Path, case: tuple[str, Any]) -> None:
    """One picture and one that is sound."""
    import benchmarks.features.extract  # noqa: F401 - what it imports is not the case's

    name, what = case
    place(folder / "clip" / "track" / "face_00001.jpg", sound(name) if what == "as it is" else what)
    place(folder / "clip" / "track" / "face_00002.jpg", sound("jpeg"))


IMAGES = ["clip/track/face_00001.jpg", "clip/track/face_00002.jpg"]


def _decode(folder: Path, case: object) -> None:
    """As `extract` and trainings do."""
    from backbones.base import Preprocessing
    from benchmarks.data.pictures import read_crop

    for size in (16, 448):
        read_crop(folder, IMAGES[0], preprocessing=Preprocessing(size=size, resize=size))


def _over_crops(folder: Path, case: object) -> None:
    """As sharpness and priors do; a damaged crop is no error there."""
    from benchmarks.data.pictures import over_crops
    from benchmarks.pixels.sharpness import sharpness_of

    found = over_crops(folder, IMAGES, lambda _, picture: sharpness_of(picture))
    assert found[1] is not None


def _shown(folder: Path, case: object) -> None:
    """As the report does; a damaged crop is left out there."""
    from benchmarks.report.crops import data_uri

    data_uri(folder / IMAGES[0])
    assert data_uri(folder / IMAGES[1])


KINDS = (
    Kind("images: features", CASES, write, _decode, megabytes=400),
    Kind("images: sharpness and priors", CASES, write, _over_crops, megabytes=700),
    Kind("images: report", CASES, write, _shown, megabytes=400),
)
