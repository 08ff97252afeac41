"""Images: sound ones of every mode and format, damaged, bombs, and files that are something else."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.harness import Kind
from tests.fuzz.values import file_of, place, spoilt_bytes, spoilt_json


def _saved(mode: str, form: str, **more: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    if mode == "LAB":
        picture = Image.frombytes("LAB", picture.size, pixels.tobytes())
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


def _tiff(bits: int, photometric: int, sample_format: int, order: str) -> bytes:
    """A grey TIFF of 16 x 16 pixels, of whatever samples its tags say."""
    values = bytes(range(256)) * 8
    tags = [(256, 16), (257, 16), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 16)]
    tags += [(279, 32 * bits), (339, sample_format)]
    entries = b"".join(struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    head = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return head + struct.pack(f"{order}I", 8 + len(values)) + values + directory


def _scans(count: int, side: int, **more: Any) -> bytes:
    """A JPEG of that many scans: its last one, over and over."""
    out = io.BytesIO()
    Image.new("RGB", (side, side), (90, 120, 60)).save(out, "JPEG", **more)
    data = out.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (count - 1) + b"\xff\xd9"


def _media(major: bytes, *brands: bytes) -> bytes:
    """The start of an ISO media file: HEIC, AVIF, CR3 or a video."""
    box = b"ftyp" + major + bytes(4) + b"".join(brands)
    return struct.pack(">I", 4 + len(box)) + box + bytes(200)


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
    "pgm of 16 bits": lambda: b"P5 8 8 65535\n" + bytes(range(128)),
    "pgm of 10 bits": lambda: b"P5 8 8 1023\n" + bytes([3, 0, 0, 200]) * 32,
    "plain pgm of 16 bits": lambda: b"P2 2 2 65535 0 65535 300 7",
    "pfm": lambda: b"Pf 4 4 -1.0\n" + bytes(64),
    "16-bit tiff": lambda: _saved("I;16", "TIFF"),
    "32-bit tiff": lambda: _saved("I", "TIFF"),
    "lab tiff": lambda: _saved("LAB", "TIFF"),
    **{
        f"tiff of {bits} bits, {photometric}, {form}, {order}": partial(_tiff, bits, photometric, form, order)
        for bits in (12, 16, 32, 64)
        for photometric, form, order in ((1, 1, ">"), (1, 1, "<"), (0, 1, "<"), (1, 2, "<"), (1, 3, ">"))
    },
    "mpo": lambda: _saved("RGB", "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))]),
    "animated png": lambda: _saved("RGB", "PNG", save_all=True, append_images=[Image.new("RGB", (32, 24))]),
    "animated webp": lambda: _saved("RGB", "WEBP", save_all=True, append_images=[Image.new("RGB", (32, 24))]),
    "heic": lambda: _media(b"heic", b"mif1", b"heic"),
    "avif": lambda: _media(b"mif1", b"avif", b"mif1"),
    "cr3": lambda: _media(b"crx ", b"isom"),
    "mp4": lambda: _media(b"isom", b"mp42"),
    "unknown brand": lambda: _media(b"\x1b[2J", b"\n\n\n\n"),
    "jpeg 2000": lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
    "jpeg xl": lambda: b"\xff\x0a" + bytes(200),
    "psd": lambda: b"8BPS\0\1" + bytes(200),
    "jpeg of 5000 scans": lambda: _scans(5000, 3000, progressive=True),
    "jpeg of 5000 sequential scans": lambda: _scans(5000, 200),
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


PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 16},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 16, "width": 16},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def _write_processor(folder: Path, case: bytes | str) -> None:
    import backbones.internvit  # noqa: F401 - what it imports is not the case's

    place(folder / "preprocessor_config.json", case)


def _preprocess(folder: Path, case: object) -> None:
    """As a backbone does with the configuration beside its weights."""
    import torch

    from backbones.internvit import read_preprocessing

    preprocessing = read_preprocessing(folder, {"image_size": 16})
    pixels = preprocessing.resize_crop(Image.open(io.BytesIO(sound("jpeg"))))
    assert preprocessing.normalise(torch.from_numpy(pixels)[None]).shape == (1, 3, 16, 16)


KINDS = (
    Kind(
        "preprocessor_config.json",
        file_of(spoilt_json(PROCESSOR)),
        _write_processor,
        _preprocess,
    ),
    Kind("images: features", CASES, write, _decode, megabytes=400),
    Kind("images: sharpness and priors", CASES, write, _over_crops, megabytes=700),
    Kind("images: report", CASES, write, _shown, megabytes=400),
)
