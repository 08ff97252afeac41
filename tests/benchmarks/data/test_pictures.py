"""Kinds of pictures, against values that were there before encoding and against OpenCV's decoders."""

import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.base import Preprocessing
from benchmarks.commands.extract import images_below
from benchmarks.data.challenge import read_challenge
from benchmarks.data.formats import more_scans
from benchmarks.data.pictures import MAX_SCANS, DamagedImageError, over_crops, read_crop
from benchmarks.report.crops import data_uri
from registry import UserError

SIDE = 32
AS_IS = Preprocessing(size=SIDE, resize=SIDE)
GREY = np.random.default_rng(5).integers(0, 65536, (SIDE, SIDE)).astype(np.uint16)
COLOUR = np.random.default_rng(6).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def saved(picture: Image.Image, form: str, **more: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **more)
    return out.getvalue()


def decoded(folder: Path, data: bytes, name: str = "a.jpg") -> np.ndarray:
    """The picture as every reader gets it."""
    (folder / name).write_bytes(data)
    pixels = read_crop(folder, name, preprocessing=AS_IS)
    other = over_crops(folder, [name], lambda _, picture: np.asarray(picture))[0]
    np.testing.assert_array_equal(other, pixels)
    shown = data_uri(folder / name)
    assert shown is not None
    return pixels


def tiff(values: bytes, bits: int, photometric: int = 1, sample_format: int = 1, order: str = "<") -> bytes:
    """An uncompressed grey TIFF, made by hand."""
    tags = [(256, SIDE), (257, SIDE), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, SIDE)]
    tags += [(279, len(values)), (339, sample_format)]
    head = b"II*\0" if order == "<" else b"MM\0*"
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, 4, 1) + struct.pack(f"{order}I", value)
        if tag in (273, 279)
        else struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
        for tag, value in tags
    )
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return head + struct.pack(f"{order}I", 8 + len(values)) + values + directory


def pgm(most: int) -> tuple[bytes, np.ndarray]:
    """A binary PGM with values up to `most`, and what they are in 8 bits."""
    values = GREY.astype(np.int64) * most // 65535
    return b"P5 %d %d %d\n" % (SIDE, SIDE, most) + values.astype(">u2").tobytes(), values / most * 255


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.fromarray(GREY), "PNG"),
        saved(Image.fromarray(GREY), "TIFF"),
        saved(Image.fromarray(GREY), "TIFF", compression="tiff_lzw"),
        tiff(GREY.astype("<u2").tobytes(), 16),
        tiff(GREY.astype(">u2").tobytes(), 16, order=">"),
        b"P5 32 32 65535\n" + GREY.astype(">u2").tobytes(),
        b"P2 32 32 65535\n" + b" ".join(b"%d" % value for value in GREY.ravel()) + b"\n",
    ],
    ids=["png", "tiff", "lzw tiff", "little-endian tiff", "big-endian tiff", "pgm", "plain pgm"],
)
def test_grey_of_16_bits_is_its_high_byte(tmp_path: Path, data: bytes) -> None:
    pixels = decoded(tmp_path, data)
    for channel in range(3):
        np.testing.assert_array_equal(pixels[..., channel], GREY // 256)
    cv2 = pytest.importorskip("cv2")
    second = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert second.dtype == np.uint16
    np.testing.assert_array_equal(pixels[..., 0], second // 256)


def test_a_picture_in_8_bits_and_its_copy_in_16_are_the_same(tmp_path: Path) -> None:
    small = (GREY // 256).astype(np.uint8)
    for copy in (small.astype(np.uint16) * 257, small.astype(np.uint16) * 256):
        for form in ("PNG", "TIFF"):
            wanted = decoded(tmp_path, saved(Image.fromarray(small), form))
            np.testing.assert_array_equal(decoded(tmp_path, saved(Image.fromarray(copy), form)), wanted)


@pytest.mark.parametrize("most", [256, 1023, 4095, 40_000])
def test_pgm_of_another_range_fills_8_bits(tmp_path: Path, most: int) -> None:
    data, wanted = pgm(most)
    assert np.abs(decoded(tmp_path, data)[..., 1] - wanted).max() <= 1


def test_tiff_of_12_bits(tmp_path: Path) -> None:
    values = GREY // 16
    packed = bytearray()
    for one, two in values.reshape(-1, 2).tolist():
        packed += bytes([one >> 4, (one & 15) << 4 | two >> 8, two & 255])
    np.testing.assert_array_equal(decoded(tmp_path, tiff(bytes(packed), 12))[..., 2], values // 16)


def test_colours_of_16_bits_keep_their_high_byte(tmp_path: Path) -> None:
    wide = COLOUR.astype(np.uint16) * 256 + 200
    data = b"P6 32 32 65535\n" + wide.astype(">u2").tobytes()
    assert np.abs(decoded(tmp_path, data).astype(int) - wide / 257).max() <= 0.51  # Pillow rounds
    cv2 = pytest.importorskip("cv2")
    for ending in (".png", ".tiff"):
        data = cv2.imencode(ending, wide[..., ::-1])[1].tobytes()
        np.testing.assert_array_equal(decoded(tmp_path, data), COLOUR)


REFUSED = {
    "float tiff": (saved(Image.fromarray(np.float32(GREY / 65535)), "TIFF"), "floating-point pixels"),
    "pfm": (b"Pf\n32 32\n-1.0\n" + np.float32(GREY).tobytes(), "floating-point pixels"),
    "32-bit tiff": (saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "grey of signed 32 bits"),
    "signed tiff": (tiff(GREY.tobytes(), 16, sample_format=2), "grey of signed 16 bits"),
    "inverted tiff": (tiff(GREY.tobytes(), 16, photometric=0), "grey of 16 bits, 0 for white"),
    "lab tiff": (saved(Image.new("LAB", (SIDE, SIDE)), "TIFF"), r"colours in L\*a\*b\*"),
    "heic": (b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(99), "a HEIC picture"),
    "heif": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1miaf" + bytes(99), "a HEIF picture"),
    "avif": (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B" + bytes(99), "an AVIF picture"),
    "avif, major brand mif1": (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(99), "an AVIF picture"),
    "jp2": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99), "a JPEG 2000 picture"),
    "jpeg 2000 codestream": (b"\xff\x4f\xff\x51\0\x2f" + bytes(99), "a JPEG 2000 picture"),
    "jxl": (b"\xff\x0a" + bytes(99), "a JPEG XL picture"),
    "cr3": (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(99), r"a raw picture of a camera \(CR3\)"),
    "svg": (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
    "pdf": (b"%PDF-1.7\n" + bytes(99), "a PDF file"),
    "psd": (b"8BPS\0\1" + bytes(99), "a Photoshop picture"),
}
DAMAGED = {
    "empty": (b"", "empty"),
    "zeros": (bytes(999), "filled with zeros"),
    "text": (b"no picture", "not a picture"),
    "web page": (b"<!DOCTYPE html><html>404", "a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    "mp4": (b"\0\0\0\x18ftypisom\0\0\0\1isommp42" + bytes(99), "an MP4 video"),
    "start of a jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "Truncated File Read"),
    "jpeg of 12 bits": (b"\xff\xd8\xff\xc0\0\x0b\x0c\0\x08\0\x08\1\1\x11\0", "damaged .*or a JPEG of a rare kind"),
    "png without header": (b"\x89PNG\r\n\x1a\n" + bytes(40), "damaged .*or a PNG of a rare kind|broken PNG"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_named_with_a_way_out(tmp_path: Path, name: str) -> None:
    data, what = REFUSED[name]
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DamagedImageError, match=rf"cannot read crop .*/a\.jpg: {what}; convert it to an 8-bit JPEG or"):
        read_crop(tmp_path, "a.jpg", preprocessing=AS_IS)
    assert over_crops(tmp_path, ["a.jpg"], lambda _, picture: picture) == [None]
    assert data_uri(tmp_path / "a.jpg") is None


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_floating_point_pixels_of_any_size_are_named(tmp_path: Path, kind: type, channels: int) -> None:
    cv2 = pytest.importorskip("cv2")
    picture = np.repeat(GREY[..., None] / 65535, channels, axis=2).astype(kind)
    (tmp_path / "a.jpg").write_bytes(cv2.imencode(".tiff", picture)[1].tobytes())
    with pytest.raises(DamagedImageError, match=r"cannot read crop .*/a\.jpg: floating-point pixels; convert it"):
        read_crop(tmp_path, "a.jpg", preprocessing=AS_IS)


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_picture_is_named(tmp_path: Path, name: str) -> None:
    data, what = DAMAGED[name]
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DamagedImageError, match=rf"damaged crop .*/a\.jpg: ({what}).*; repair or delete it") as caught:
        read_crop(tmp_path, "a.jpg", preprocessing=AS_IS)
    assert "BufferedReader" not in str(caught.value)


def test_ordinary_pictures_are_what_pillow_makes_of_them(tmp_path: Path) -> None:
    """Transparency is left out, EXIF orientation is ignored, an animation is its first frame, names do not matter."""
    picture = Image.fromarray(COLOUR)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue")]
    for data in (
        saved(picture, "JPEG"),
        saved(picture, "JPEG", exif=exif.tobytes()),
        saved(picture, "JPEG", progressive=True),
        saved(picture.convert("L"), "JPEG"),
        saved(picture.convert("CMYK"), "JPEG"),
        saved(picture.convert("1"), "PNG"),
        saved(picture.convert("LA"), "PNG"),
        saved(picture.convert("P"), "PNG", transparency=3),
        saved(picture.convert("RGBA"), "PNG"),
        saved(picture.convert("RGBA"), "WEBP", lossless=True),
        saved(picture.convert("CMYK"), "TIFF"),
        saved(picture, "BMP"),
        saved(picture.convert("P"), "GIF"),
        *(saved(frames[0], form, save_all=True, append_images=frames[1:]) for form in ("GIF", "PNG", "WEBP", "MPO")),
    ):
        wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        for name in ("a.jpg", "a.png", "a"):
            np.testing.assert_array_equal(decoded(tmp_path, data, name), wanted)
    # RGB is there behind whatever alpha.
    veiled = np.dstack([COLOUR, np.zeros((SIDE, SIDE), np.uint8)])
    np.testing.assert_array_equal(decoded(tmp_path, saved(Image.fromarray(veiled), "PNG")), COLOUR)
    turned = decoded(tmp_path, saved(Image.fromarray(COLOUR), "JPEG", quality=95, exif=exif.tobytes()))
    assert np.abs(turned.astype(int) - COLOUR).mean() < np.abs(turned.astype(int) - np.rot90(COLOUR, -1)).mean()


def with_scans(count: int, side: int = SIDE) -> bytes:
    """A progressive JPEG with its last scan, which may be a few bytes, over and over."""
    data = saved(Image.new("RGB", (side, side), (90, 120, 60)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    scan, before = data[last:-2], data.count(b"\xff\xda")
    return data[:-2] + scan * (count - before) + b"\xff\xd9"


def test_scans_are_limited_before_decoding(tmp_path: Path) -> None:
    decoded(tmp_path, with_scans(MAX_SCANS))
    (tmp_path / "bomb.jpg").write_bytes(with_scans(5000, side=3000))
    began = time.perf_counter()
    with pytest.raises(DamagedImageError, match=f"bomb.jpg: a JPEG with more than {MAX_SCANS} scans; save it again"):
        read_crop(tmp_path, "bomb.jpg", preprocessing=AS_IS)
    assert time.perf_counter() - began < 1


def test_only_scans_of_the_picture_count(tmp_path: Path) -> None:
    """Not those of thumbnails, nor of pictures that follow the first, as in MPO."""
    plain, marks = with_scans(12), b"\xff\xda" * 500
    for data in (plain + plain * 50, plain[:2] + b"\xff\xfe" + struct.pack(">H", 2 + len(marks)) + marks + plain[2:]):
        assert data.count(b"\xff\xda") > MAX_SCANS
        assert not more_scans(data, MAX_SCANS) and more_scans(data, 11) and not more_scans(data, 12)
        decoded(tmp_path, data)


def test_test_crops_of_any_ending(tmp_path: Path) -> None:
    names = ["00001_1ab.JPG", "00002_2ab.jpeg", "00003_3ab.JPEG", "00004_4ab.png", "00005_5.b.jpg", "readme.txt"]
    (tmp_path / "v/t").mkdir(parents=True)
    for name in names:
        (tmp_path / "v/t" / name).touch()
    table = read_challenge(tmp_path)
    assert table["frame"].tolist() == [1, 2, 3, 4, 5]
    assert table["unique_id"].tolist() == ["1ab", "2ab", "3ab", "4ab", "5.b"]
    assert table["image"].tolist() == [f"v/t/{name}" for name in names[:5]]
    assert sorted(images_below(tmp_path)) == table["image"].tolist()
    (tmp_path / "v/t/00001_other.jpg").touch()
    with pytest.raises(UserError, match="frame 1 of clip v, track t is listed twice"):
        read_challenge(tmp_path)
