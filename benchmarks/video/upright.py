"""Pictures as a player shows them: upright, with square pixels, in one size for the whole video."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import av

SAME = 0.02  # relative difference of two aspect ratios that is rounding


class Orientation(NamedTuple):
    """How stored pixels become upright ones: first transposed, then mirrored.

    Attributes:
        transposed: rows become columns.
        mirrored: left and right are exchanged.
        flipped: top and bottom are exchanged.
    """

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False


class View(NamedTuple):
    """How a stored picture is shown.

    Attributes:
        orientation: of the stored pixels.
        aspect: width of a stored pixel over its height.
        size: width and height of the video's upright pictures.
    """

    orientation: Orientation
    aspect: float
    size: tuple[int, int]


def orientation_of(shown: av.VideoFrame) -> Orientation:
    """Reads the display matrix as FFmpeg's autorotate does; angles in between count as the nearest quarter turn.

    The matrix (ISO 14496-12, 8.3.2) ``a b u c d v x y w`` takes the point (x, y) to (a x + c y, b x + d y), with y
    downwards.
    """
    from av.sidedata.sidedata import SideDataContainer

    # A container of our own: the frame's attribute refers back to the frame, which then outlives its use.
    container: Any = SideDataContainer  # its stub lacks the argument
    data = container(shown).get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].astype(np.float64).tolist()
    across, down = math.hypot(a, c), math.hypot(b, d)
    if not across or not down:
        return Orientation()
    quarters = round(math.atan2(b / down, a / across) / (math.pi / 2)) % 4
    return Orientation(True, c < 0, b < 0) if quarters % 2 else Orientation(False, a < 0, d < 0)


def upright_size(shown: av.VideoFrame, orientation: Orientation, aspect: float) -> tuple[int, int]:
    """Returns width and height of an upright picture with square pixels; neither is less than in the stored one."""
    width, height = round(shown.width * max(aspect, 1.0)), round(shown.height / min(aspect, 1.0))
    return (height, width) if orientation.transposed else (width, height)


def upright_picture(shown: av.VideoFrame, view: View, side: int | None = None) -> np.ndarray:
    """Returns an upright picture in the size of the video: ``(H, W, 3)`` uint8, RGB.

    A picture of another shape, after the size has changed within the video, lies in the middle of black bars.

    Args:
        shown: the decoded picture.
        view: how it is shown.
        side: the longer side is at most this many pixels; None: as many as the video's.
    """
    size = np.array(view.size)
    if side is not None and size.max() > side:
        size = np.maximum(np.rint(side / size.max() * size), 1).astype(int)
    own = np.array(upright_size(shown, view.orientation, view.aspect))
    inner = np.maximum(np.rint(own * (size / own).min()), 1).astype(int)
    if abs(own[0] * size[1] / (own[1] * size[0]) - 1) <= SAME:
        inner = size
    pixels = _oriented(shown, inner, view.orientation)
    if (inner == size).all():
        return pixels
    picture = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    left, top = (size - inner) // 2
    picture[top : top + inner[1], left : left + inner[0]] = pixels
    return picture


def _oriented(shown: av.VideoFrame, size: np.ndarray, orientation: Orientation) -> np.ndarray:
    """Returns the upright pixels in a given size."""
    transposed, mirrored, flipped = orientation
    width, height = size[::-1].tolist() if transposed else size.tolist()
    if (width, height) == (shown.width, shown.height):
        pixels = shown.to_ndarray(format="rgb24")
    else:
        how = "AREA" if width <= shown.width and height <= shown.height else "BICUBIC"
        pixels = shown.to_ndarray(format="rgb24", width=width, height=height, interpolation=how)
    pixels = pixels.swapaxes(0, 1) if transposed else pixels
    return np.ascontiguousarray(pixels[:: -1 if flipped else 1, :: -1 if mirrored else 1])
