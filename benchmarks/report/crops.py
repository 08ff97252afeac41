"""Crops as data URIs, small enough for hundreds of them in one file."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from benchmarks.data.pictures import open_picture

SIDE = 96  # pixels, the longer side at most: what a tile of the contact sheets shows on a screen of two pixels a unit
_QUALITY = 70


def data_uri(path: Path) -> str | None:
    """A crop as a WebP in a data URI, shrunk to `SIDE` where it is larger; None where it cannot be read."""
    try:
        with open_picture(path) as image:
            image.thumbnail((SIDE, SIDE))  # a JPEG is decoded no larger than that needs
            written = io.BytesIO()
            image.convert("RGB").save(written, "WEBP", quality=_QUALITY)
    except Exception:  # Pillow's decoders raise anything
        return None
    return "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode("ascii")
