"""What the bytes of a picture file say before anything is decoded: the format of other files, the scans of a JPEG."""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

ENDINGS = (".jpg", ".jpeg", ".png")  # of crops, in upper or lower case; what a file holds decides how it is read
OTHER_ENDINGS = frozenset((".webp", ".bmp", ".gif", ".tif", ".tiff", ".jfif", ".jp2", ".heic", ".heif", ".avif"))

# What a file starts with -> its format. In files named .jpg or .png: exports of phones, cameras and drawing programs.
_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"II\xbc\x01", "a JPEG XR picture"),
    (b"\xff\xd8\xff\xf7", "a JPEG-LS picture"),
    (b"II*\x00\x10\x00\x00\x00CR", "a raw picture of a camera (CR2)"),
    (b"IIU\x00", "a raw picture of a camera (RW2)"),
    (b"IIRO", "a raw picture of a camera (ORF)"),
    (b"IIRS", "a raw picture of a camera (ORF)"),
    (b"FUJIFILMCCD-RAW", "a raw picture of a camera (RAF)"),
    (b"8BPS", "a Photoshop picture"),
    (b"gimp xcf", "a GIMP picture"),
    (b"%!PS", "a PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file"),
    (b"%PDF", "a PDF file"),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (b"#?RADIANCE", "a Radiance HDR picture"),
    (b"#?RGBE", "a Radiance HDR picture"),
    (b"DDS ", "a DDS picture"),
    (b"qoif", "a QOI picture"),
    (b"BPG\xfb", "a BPG picture"),
    (b"FLIF", "a FLIF picture"),
    (b"SIMPLE  =", "a FITS picture"),
    (b"\x00\x00\x01\x00", "a Windows icon"),
    (b"\x00\x00\x02\x00", "a Windows cursor"),
    (b"icns", "a macOS icon"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was not downloaded"),
)
# Brands in the `ftyp` box of ISO media files.
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "an AVIF picture"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "a HEIC picture"),
    **dict.fromkeys((b"mif1", b"mif2", b"msf1", b"miaf"), "a HEIF picture"),
    b"crx ": "a raw picture of a camera (CR3)",
    b"jp2 ": "a JPEG 2000 picture",
    b"qt  ": "a QuickTime video",
}
# What the accepted formats start with.
_ACCEPTED = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"RIFF", "WebP"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
)

# A marker of a JPEG behind a scan's data: what stuffed bytes and restarts are not.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_SOS, _EOI = 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, 0xD8, *range(0xD0, 0xD8)}


def describe(start: bytes) -> tuple[str, bool]:
    r"""Say what a file is that is none of the accepted pictures.

    Args:
        start: its first bytes, 64 or more if it has them.

    Returns:
        What it is, and whether it is a picture that could be converted.

    Example:
        >>> describe(b"\x00\x00\x00\x1cftypheic\x00\x00\x00\x00mif1heic")
        ('a HEIC picture', True)
        >>> describe(b"\xff\xd8\xff\xe0")
        ('damaged at its start, or a JPEG of a rare kind', False)
    """
    if not start.strip(b"\0"):
        return ("filled with zeros" if start else "empty"), False
    for beginning, what in _STARTS:
        if start.startswith(beginning):
            return what, what.endswith(("picture", ")", "PostScript file", "PDF file", "icon", "cursor"))
    if start[4:8] == b"ftyp":
        # The major brand, a version, then the brands it is compatible with. `mif1` fits HEIC and AVIF alike.
        size = min(int.from_bytes(start[:4], "big"), len(start))
        brands = [start[8:12], *(start[at : at + 4] for at in range(16, size, 4))]
        if start[8:12] in (b"mif1", b"msf1", b"miaf"):
            brands = [*brands[1:], brands[0]]
        known = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        exact = [what for what in known if what != "a HEIF picture"]
        what = (exact or known or ["an MP4 video"])[0]
        return what, "video" not in what
    if start.startswith(b"RIFF") and start[8:12] != b"WEBP":
        return ("an AVI video" if start[8:12] == b"AVI " else "a RIFF file, but no WebP"), False
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")) or b"<svg" in text:
        return ("an SVG drawing", True) if b"<svg" in text else ("an XML file", False)
    if text.startswith((b"<!doc", b"<html", b"<head")):
        return "a web page: the download returned a page instead of the file", False
    for beginning, name in _ACCEPTED:
        if start.startswith(beginning):
            return f"damaged at its start, or a {name} of a rare kind", False
    return "not a picture", False


def is_float_tiff(file: BinaryIO) -> bool:
    """Whether the first picture of a TIFF says that its samples are floating-point numbers (tag 339, 3)."""
    file.seek(0)
    head = file.read(8)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(head[:4])
    if order is None or len(head) < 8:
        return False

    def at(place: int, form: str) -> tuple[int, ...]:
        file.seek(place)
        data = file.read(struct.calcsize(order + form))
        return struct.unpack(order + form, data) if len(data) == struct.calcsize(order + form) else (0, 0, 0, 0)

    directory = struct.unpack(f"{order}I", head[4:])[0]
    for number in range(at(directory, "H")[0]):
        entry = directory + 2 + 12 * number
        tag, kind, count = at(entry, "HHI")[:3]
        if (tag, kind) == (339, 3):
            return at(entry + 8 if count <= 2 else at(entry + 8, "I")[0], "H")[0] == 3
    return False


def more_scans(data: bytes, most: int) -> bool:
    r"""Whether a JPEG has more than `most` scans up to its end marker. Each scan passes over the whole picture.

    Example:
        >>> two = b"\xff\xd8" + 2 * b"\xff\xda\x00\x02data" + b"\xff\xd9" + b"\xff\xda"
        >>> more_scans(two, 1), more_scans(two, 2)
        (True, False)
    """
    if data.count(b"\xff\xda") <= most:  # thumbnails, profiles and what follows the picture may hold it too
        return False
    scans, at = 0, 2
    while scans <= most and (found := _MARKER.search(data, at)):
        marker, at = found[1][0], found.end()
        if marker == _EOI:
            break
        if marker not in _WITHOUT_LENGTH:
            at += int.from_bytes(data[at : at + 2], "big")
        scans += marker == _SOS
    return scans > most
