"""The skin texture of a person: skin, lips, brows, beard and the scalp under the hair."""

from __future__ import annotations

import numpy as np

from tools.synthlam.geometry import Array, smoothstep
from tools.synthlam.head_model import TEXTURE, HeadModel
from tools.synthlam.identity import Identity


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Array:
    """Return noise in [-1, 1] (rows, columns) with about `cells` bumps down and across."""
    import cv2

    coarse = rng.uniform(-1, 1, (cells[0] + 1, cells[1] + 1)).astype(np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def hairline_height(y: Array, front: float, style: str) -> Array:
    """Return the height (metres, template) of the hairline at depth `y`; `front` raises it at the forehead."""
    if style == "beanie":
        knots = [(-0.17, 0.782), (-0.10, 0.762), (-0.06, 0.745), (0.04, 0.70)]
    else:
        knots = [
            (-0.165, 0.800),
            (-0.13, 0.796),
            (-0.108, 0.772),
            (-0.094, 0.752),
            (-0.082, 0.735),
            (-0.060, 0.728),
            (-0.040, 0.730),
            (-0.028, 0.695),
            (0.04, 0.662),
        ]
    at, height = np.array(knots).T
    return np.interp(y, at, height) + front * smoothstep(-0.09, -0.12, y)


def hair_distance(points: Array, who: Identity, fringe: float = 0.0) -> Array:
    """Return how far template points (..., 3) lie inside the hair, in metres, negative outside."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    if who.style == "scarf":
        oval = np.sqrt((x / 0.066) ** 2 + ((z - 0.715) / 0.092) ** 2) - 1
        return np.where(y < -0.075, oval * 0.07, 0.02 + 0 * oval)
    front = who.hairline - fringe if who.style != "beanie" else 0.0
    lifted = front + 0.012 * smoothstep(0.02, 0.05, np.abs(x)) * (who.style != "beanie")
    return z - hairline_height(y, 0.0, who.style) - lifted * smoothstep(-0.09, -0.12, y)


def paint(who: Identity, head: HeadModel) -> Array:
    """Paint the skin texture (rows, columns, 3), sRGB 0..255, bottom row first."""
    rng = np.random.default_rng([who.seed, 12])
    rows, columns = TEXTURE
    p = head.texels
    x, y, z = p[..., 0], p[..., 1], p[..., 2]
    front = y < -0.05
    eye_x, eye_z = head.eyes[0, 0], head.eyes[0, 2]
    dx, dz = np.abs(x) - eye_x, z - eye_z
    face = np.broadcast_to(who.skin, (rows, columns, 3)).copy()
    bumps = smooth_noise(rng, TEXTURE, (9, 18))
    fine = smooth_noise(rng, TEXTURE, (96, 192)) + rng.normal(0, 0.6, TEXTURE)
    face *= (1 + 0.035 * bumps + 0.02 * fine)[..., None]

    def blend(colour: Array, amount: Array) -> None:
        amount = np.clip(amount, 0, 1)[..., None]
        face[:] = face * (1 - amount) + colour * amount

    def spot(cx: float, cz: float, rx: float, rz: float) -> Array:
        return np.exp(-(((np.abs(x) - cx) / rx) ** 2) - ((z - cz) / rz) ** 2) * front

    blush = spot(0.042, 0.692, 0.022, 0.018) + spot(0, 0.692, 0.014, 0.014) + 0.5 * spot(0, 0.632, 0.02, 0.012)
    blend(who.skin * [1.02, 0.80, 0.78], 0.45 * blush * rng.uniform(0.3, 1))
    blend(
        who.skin * [0.72, 0.66, 0.66], 0.5 * np.exp(-((dx / 0.021) ** 2) - ((dz + 0.006) / 0.012) ** 2) * front
    )  # sockets
    bags = np.exp(-((dx / 0.014) ** 2) - ((dz + 0.017) / 0.005) ** 2) * front
    blend(who.skin * [0.70, 0.62, 0.62], bags * rng.uniform(0.1, 0.5) * (0.6 + 0.6 * (who.age > 0.8)))
    if who.age > 0.8:  # forehead lines and folds beside the mouth
        lines = np.sin((z + 0.004 * bumps) * 2 * np.pi / 0.0105) > 0.75
        blend(who.skin * 0.8, 0.35 * lines * (z > 0.765) * (np.abs(x) < 0.05) * front)
        fold = np.exp(-(((np.abs(x) - 0.026 - (0.685 - z) * 0.45) / 0.0022) ** 2)) * ((z > 0.655) & (z < 0.69) & front)
        blend(who.skin * 0.7, 0.5 * fold)
    if who.skin.mean() > 170 and rng.random() < 0.25:
        freckles = smooth_noise(rng, TEXTURE, (140, 280)) > 0.62
        blend(who.skin * [0.78, 0.62, 0.52], 0.5 * freckles * (blush > 0.15))

    strands = smooth_noise(rng, TEXTURE, (rows // 3, columns // 8)) * 0.5 + rng.normal(0, 0.35, TEXTURE)
    if who.beard:
        jaw = smoothstep(0.695, 0.67, z + 0.25 * np.maximum(np.abs(x) - 0.05, 0)) * smoothstep(0.595, 0.63, z)
        side = smoothstep(0.735, 0.72, z) * smoothstep(-0.092, -0.080, y) * smoothstep(-0.058, -0.066, y)
        jaw = np.maximum(jaw * smoothstep(-0.055, -0.066, y), side)
        cheek = np.exp(-(((np.abs(x) - 0.036) / 0.019) ** 2) - ((z - 0.684) / 0.017) ** 2)
        mouth = np.exp(-((x / 0.023) ** 4) - ((z - 0.661) / 0.0115) ** 4)
        upper = np.exp(-((x / 0.028) ** 4) - ((z - 0.6755) / 0.0065) ** 2)
        grown = np.clip(jaw * (1 - 1.2 * cheek) - mouth, 0, 1) * who.beard + upper * who.moustache
        grown = grown * (y < -0.05) * np.clip(0.85 + 0.5 * strands, 0, 1)
        blend(who.hair * 0.8 + who.skin * 0.12, 0.9 * grown)
    blend(who.lips, 0.95 * smoothstep(0.25, 0.7, head.texel_lips))
    blend(
        who.lips * 0.45, np.exp(-(((z - 0.6612) / 0.0011) ** 2) - (x / 0.025) ** 6) * (y < -0.12) * 0.85
    )  # between the lips

    # brows: an arc over the eye, thinner outwards, made of strokes
    along = (dx + 0.021) / 0.046
    arch = (
        eye_z
        + 0.0215
        + rng.uniform(-0.002, 0.003)
        + rng.uniform(0.003, 0.007) * np.sin(np.clip(along, 0, 1.1) * np.pi * 0.72)
        - 0.003 * np.maximum(along - 0.75, 0) / 0.25
    )
    thick = who.brow_thickness * (1.05 - 0.6 * np.clip(along, 0, 1))
    brow = (
        np.exp(-(np.abs((z - arch) / thick) ** 2.6))
        * smoothstep(-0.06, 0.08, along)
        * smoothstep(1.08, 0.9, along)
        * front
    )
    blend(who.brows, who.brow_strength * brow * np.clip(0.95 + 0.45 * strands, 0, 1))

    if who.style not in ("bald", "beanie", "scarf"):
        inside = hair_distance(p, who) + 0.004 * smooth_noise(rng, TEXTURE, (24, 60))
        scalp = smoothstep(-0.004, 0.006, inside)
        blend(who.hair * (0.9 + 0.2 * strands[..., None]), scalp * (0.75 if who.style == "shaved" else 0.95))
    return np.clip(face, 0, 255)
