"""Crops as data URIs, small enough for hundreds of them in one file."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from benchmarks.data.pictures import open_picture

SIDE = 96  # maximum pixels of the longer side: the size of a tile in the contact sheets
_QUALITY = 70


def data_uri(path: Path) -> str | None:
    """Encode a crop as a WebP data URI, shrunk to `SIDE` if larger; None if it cannot be read."""
    try:
        with open_picture(path) as image:
            image.thumbnail((SIDE, SIDE))  # also makes the JPEG decoder work at reduced size
            written = io.BytesIO()
            image.convert("RGB").save(written, "WEBP", quality=_QUALITY)
    except Exception:  # Pillow's decoders raise exceptions of many types
        return None
    return "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode("ascii")
