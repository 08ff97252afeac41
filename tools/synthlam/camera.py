"""The camera of SynthLAM: defects of lens, sensor and codec, backdrops behind faces and occluders in front of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tools.synthlam.geometry import Array
from tools.synthlam.identity import SKINS
from tools.synthlam.paint import smooth_noise

SIDE = 224  # pixels of the rendered square; crops are at most 112, so each of their pixels averages four or more


@dataclass
class Defects:
    """Defects of one crop; lengths in pixels of the crop."""

    motion: Array  # (2,) movement of the picture during the exposure, right and down
    defocus: float  # standard deviation
    gain: float  # of the light
    cast: Array  # (3,) gains of red, green and blue
    noise: float  # standard deviation in grey levels at mid grey
    sharpen: float
    codec: int  # JPEG quality that stands in for the video's compression, with a random block phase
    quality: int  # JPEG quality of the crop's file


def sample_camera(rng: np.random.Generator) -> Defects:
    """Draw the constant properties of a clip's camera and light; motion stays zero."""
    dark = rng.random() < 0.25
    return Defects(
        motion=np.zeros(2),
        defocus=float(rng.choice([rng.uniform(0.2, 0.5), rng.uniform(0.5, 1.1)], p=[0.7, 0.3])),
        gain=float(rng.uniform(0.28, 0.55) if dark else rng.uniform(0.7, 1.3)),
        cast=np.exp(rng.normal(0, 0.07) * np.array([1, 0, -1.2]) + rng.normal(0, 0.025, 3)),
        noise=float(rng.uniform(4, 10) if dark else rng.uniform(0.8, 4)),
        sharpen=float(rng.choice([0, rng.uniform(0.2, 0.8)])),
        codec=int(rng.integers(28, 85)),
        quality=int(rng.integers(54, 78)),
    )


def make_backdrop(rng: np.random.Generator) -> Array:
    """Draw a blurred room (540, 960, 3), display values 0..1: wall, floor and things with straight edges."""
    import cv2

    high, wide = 540, 960
    wall, floor = (
        rng.uniform(0.15, 0.85, 3) * 0.5 + rng.uniform(0.1, 0.45),
        rng.uniform(0.1, 0.55) * np.array([1, 0.88, 0.75]),
    )
    room = np.broadcast_to(wall, (high, wide, 3)).astype(np.float32).copy()
    room *= np.linspace(rng.uniform(0.8, 1.15), rng.uniform(0.7, 1.1), wide)[None, :, None]
    room[int(rng.uniform(0.62, 0.85) * high) :] = floor
    for _ in range(int(rng.integers(14, 40))):
        w, h = rng.uniform(15, 220), rng.uniform(15, 260)
        x, y = rng.uniform(-50, wide), rng.uniform(-80, high)
        colour = np.clip(rng.uniform(0, 1) * rng.uniform(0.3, 1, 3) + rng.normal(0, 0.03, 3), 0, 1)
        if rng.random() < 0.12:
            colour = np.array([1.0, 1.0, 0.97]) * rng.uniform(0.85, 1)  # a window or a lamp
        if rng.random() < 0.7:
            cv2.rectangle(room, (int(x), int(y)), (int(x + w), int(y + h)), colour.tolist(), -1)
            if rng.random() < 0.4:
                for k in range(1, int(rng.integers(2, 7))):
                    cv2.line(
                        room, (int(x), int(y + k * h / 6)), (int(x + w), int(y + k * h / 6)), (colour * 0.6).tolist(), 3
                    )
        else:
            cv2.ellipse(
                room,
                (int(x), int(y)),
                (int(w / 2), int(h / 2)),
                float(rng.uniform(0, 180)),
                0,
                360,
                colour.tolist(),
                -1,
            )
    room = cv2.GaussianBlur(room, (0, 0), rng.uniform(1.5, 6))
    return np.clip(room + 0.03 * smooth_noise(rng, (high, wide), (40, 70))[..., None], 0, 1).astype(np.float32)


@dataclass
class Occluder:
    """A hand, a thing or a person between camera and head; lengths in crop widths."""

    kind: str  # hand, thing, person
    colour: Array
    size: float
    angle: float
    at: Array = field(default_factory=lambda: np.zeros(2))  # (2,) its centre, from the crop's centre


def sample_occluder(rng: np.random.Generator) -> Occluder:
    """Draw a hand, a thing or a passer-by."""
    kind = str(rng.choice(["hand", "thing", "person"], p=[0.5, 0.3, 0.2]))
    if kind == "hand":
        colour = SKINS[rng.integers(0, len(SKINS))] / 255 * rng.uniform(0.5, 0.95)
    else:
        colour = rng.uniform(0.05, 0.9, 3) * rng.uniform(0.3, 1) * (0.5 if kind == "person" else 1)
    return Occluder(
        kind, colour, float(rng.uniform(0.25, 0.5) * (2 if kind == "person" else 1)), float(rng.uniform(-1, 1))
    )


@dataclass
class Shot:
    """One exposure, all but the head.

    Attributes:
        behind: (h, w, 3) backdrop behind the square, of any size, display values 0..1.
        defects: of the camera.
        rng: for the noise.
        occluder: drawn in front of the head.
    """

    behind: Array
    defects: Defects
    rng: np.random.Generator
    occluder: Occluder | None = None


def _draw_occluder(picture: Array, it: Occluder) -> None:
    import cv2

    side = picture.shape[0]
    mask = np.zeros((side, side), np.uint8)
    middle, size = (it.at + 0.5) * side, it.size * side
    axis, across = np.array([np.sin(it.angle), -np.cos(it.angle)]), np.array([np.cos(it.angle), np.sin(it.angle)])

    def line(a: Array, b: Array, width: float) -> None:
        cv2.line(mask, tuple(int(v) for v in a), tuple(int(v) for v in b), 255, max(int(width), 1))

    if it.kind == "hand":
        line(middle, middle - axis * size * 2.5, size * 0.5)
        cv2.ellipse(
            mask,
            tuple(int(v) for v in middle),
            (int(size * 0.36), int(size * 0.42)),
            np.degrees(it.angle),
            0,
            360,
            255,
            -1,
        )
        for k in range(4):
            root = middle + across * size * (k - 1.5) * 0.2
            line(
                root, root + axis * size * (0.85 - 0.08 * abs(k - 1.4)) + across * (k - 1.5) * size * 0.06, size * 0.17
            )
        line(middle, middle + across * size * 0.55 + axis * size * 0.25, size * 0.17)
    elif it.kind == "thing":
        corners = (
            np.array(
                [a * across * size * 0.45 + b * axis * size * 0.7 for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            )
            + middle
        )
        cv2.fillPoly(mask, [corners.astype(np.int32)], 255)
    else:
        cv2.ellipse(mask, tuple(int(v) for v in middle), (int(size * 0.4), int(size * 0.55)), 0, 0, 360, 255, -1)
        cv2.ellipse(
            mask, (int(middle[0]), int(middle[1] + size * 1.2)), (int(size), int(size * 0.8)), 0, 0, 360, 255, -1
        )
    soft = cv2.GaussianBlur(mask, (0, 0), 2.0).astype(np.float32)[..., None] / 255
    light = cv2.GaussianBlur(mask, (0, 0), side / 14).astype(np.float32)[..., None] / 255
    picture[:] = picture * (1 - soft) + soft * it.colour * (0.55 + 0.45 * light)


def photograph(rgba: Array, share: tuple[float, float], size: tuple[int, int], shot: Shot) -> bytes:
    """Return the JPEG of a rendered head.

    Args:
        rgba: (SIDE, SIDE, 4) of `Renderer.render`.
        share: width and height of the crop as shares of the square's side, the larger one is 1.
        size: width and height of the crop, pixels.
        shot: background, camera and foreground.
    """
    import cv2

    defects, rng = shot.defects, shot.rng
    back = cv2.resize(shot.behind, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    solid = rgba[..., 3:]
    picture = rgba[..., :3] * solid + back * (1 - solid)
    if shot.occluder is not None:
        _draw_occluder(picture, shot.occluder)
    scale = SIDE / max(size)
    length = float(np.hypot(*defects.motion)) * scale
    if length > 1:
        reach = min(int(np.ceil(length / 2)), SIDE // 4)
        kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
        step = defects.motion / np.hypot(*defects.motion) * min(length / 2, reach)
        for t in np.linspace(-1, 1, 4 * reach + 1):
            kernel[int(round(reach + t * step[1])), int(round(reach + t * step[0]))] += 1
        picture = cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
    if defects.defocus * scale > 0.4:
        picture = cv2.GaussianBlur(picture, (0, 0), defects.defocus * scale * 0.6)
    w, h = (max(int(round(SIDE * s)), 1) for s in share)
    left, top = (SIDE - w) // 2, (SIDE - h) // 2
    crop = cv2.resize(picture[top : top + h, left : left + w], size, interpolation=cv2.INTER_AREA)
    if defects.sharpen:
        crop = crop + defects.sharpen * (crop - cv2.GaussianBlur(crop, (0, 0), 1.0))
    crop = np.clip(crop, 0, None) * (defects.gain ** (1 / 2.2)) * defects.cast ** (1 / 2.2)
    crop = np.where(crop > 0.8, 0.8 + 0.2 * np.tanh((crop - 0.8) / 0.2), crop)  # highlights roll off
    speckle = rng.normal(0, 1, crop.shape[:2] + (1,)) + 0.5 * rng.normal(0, 1, crop.shape)
    crop = crop * 255 + defects.noise * speckle * (0.5 + np.sqrt(np.clip(crop, 0, 1)))
    crop = np.clip(crop, 0, 255).astype(np.uint8)[..., ::-1]
    dx, dy = (int(v) for v in rng.integers(0, 8, 2))
    padded = cv2.copyMakeBorder(crop, dy, 8 - dy, dx, 8 - dx, cv2.BORDER_REPLICATE)
    _, coded = cv2.imencode(".jpg", padded, [cv2.IMWRITE_JPEG_QUALITY, defects.codec])
    decoded = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    crop = decoded[dy : dy + size[1], dx : dx + size[0]]
    # Huffman tables made for each picture would save less than the archive saves on tables that are all the same.
    _, kept = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, defects.quality])
    return kept.tobytes()
