"""The meshes around a head: hair and headwear, glasses, clothes and eyeballs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.synthlam.geometry import Array, grid_triangles, normals_of, smoothstep, tube
from tools.synthlam.head_model import HeadModel
from tools.synthlam.identity import Identity
from tools.synthlam.paint import hair_distance

IRIS = np.radians(26.5)  # half angle seen from the eye's centre


@dataclass
class Part:
    """A coloured mesh: points (N, 3), triangles (T, 3), albedo (N, 3) sRGB 0..255."""

    points: Array
    triangles: Array
    albedo: Array
    open_sky: Array  # (N,) share of the light that reaches it, 0..1


def merge(parts: list[Part]) -> Part:
    """Join parts into one mesh."""
    starts = np.cumsum([0] + [len(p.points) for p in parts])
    return Part(
        np.concatenate([p.points for p in parts]),
        np.concatenate([p.triangles + s for p, s in zip(parts, starts, strict=False)]),
        np.concatenate([p.albedo for p in parts]),
        np.concatenate([p.open_sky for p in parts]),
    )


def hair_parts(who: Identity, head: HeadModel, points: Array) -> list[Part]:
    """Build hair or headwear; `points` (V, 3) is the shape of the head."""
    if who.style in ("bald", "shaved"):
        return []
    rng = np.random.default_rng([who.seed, 13])
    template = head.template
    worn = who.style in ("beanie", "scarf")
    inside = hair_distance(template, who, who.fringe if who.style in ("side", "long", "bun", "short") else 0.0)
    inside = np.where(head.mouth > 0.5, -1, inside)
    if who.style != "scarf":
        inside = np.where(head.ears > (0.6 if who.style == "beanie" else 0.1), -0.01, inside)
    wave = np.sin(template[:, 0] * rng.uniform(60, 140) + rng.uniform(0, 6) + 8 * np.sin(template[:, 1] * 40))
    volume = 0.007 if worn else who.volume
    lift = volume * smoothstep(-0.001, 0.022, inside) * (1 + 0.25 * smoothstep(0.78, 0.84, template[:, 2]))
    if not worn:
        lift = lift * (1 + 0.15 * wave + 0.2 * rng.normal(0, 0.5, len(lift)) * (who.style == "short"))
        lift += (who.style in ("side", "long")) * 0.006 * smoothstep(-0.06, 0.06, template[:, 0]) * (inside > 0.01)
    lift = np.where(inside < 0, -0.003, lift + (0.002 if worn else 0.0008))
    triangles = head.source[head.triangles]
    triangles = triangles[(inside[triangles] > -0.012).all(1)]
    used, triangles = np.unique(triangles, return_inverse=True)
    triangles = triangles.reshape(-1, 3)
    normals = normals_of(points, head.source[head.triangles])
    shell = points[used] + normals[used] * lift[used, None]
    if worn:
        shade = 1 + 0.05 * np.sin(template[used, 2] * 900) * (who.style == "beanie") + rng.normal(0, 0.02, len(used))
        colour = who.headwear
    else:
        around = np.arctan2(template[used, 0] - 0.01, template[used, 2] - 0.76)
        shade = (
            1
            + 0.10 * np.sin(around * 37 + 9 * template[used, 1])
            + 0.08 * np.sin(around * 83)
            + rng.normal(0, 0.06, len(used))
        )
        colour = who.hair
    sky = 0.55 + 0.45 * smoothstep(0.66, 0.80, template[used, 2])
    parts = [Part(shell, triangles, np.clip(colour * shade[:, None], 0, 255), sky)]
    top = points[:, 2].max()
    scale = (points[:, 0].max() - points[:, 0].min()) / 0.176
    if who.style in ("long", "scarf"):
        reach = rng.uniform(1.75, 2.05) if who.style == "long" else 2.1
        length = rng.uniform(0.17, 0.28) if who.style == "long" else 0.24
        down, across = np.linspace(0, 1, 14), np.linspace(-reach, reach, 40)
        v, a = np.meshgrid(down, across, indexing="ij")
        wide = scale * (0.070 + 0.018 * smoothstep(0, 0.25, v) + 0.012 * v + 0.003 * np.sin(a * 17 + 3 * v))
        deep = scale * (0.078 + 0.020 * smoothstep(0, 0.25, v) - 0.012 * smoothstep(0.5, 1, v))
        z = top - 0.045 - v * length - (0.01 * np.cos(a * 23) if who.style == "long" else 0) * v
        curtain = np.stack([wide * np.sin(a), -0.052 * scale + deep * np.cos(a), z], -1).reshape(-1, 3)
        strand = (
            1 + 0.12 * np.sin(a * 31 + 2 * v) + 0.07 * np.sin(a * 71) if not worn else 1 + 0.05 * np.sin(a * 9 + 5 * v)
        )
        parts.append(
            Part(curtain, grid_triangles(14, 40), np.clip(colour * strand.reshape(-1, 1), 0, 255), np.full(v.size, 0.6))
        )
    if who.style == "bun":
        t, a = np.meshgrid(np.linspace(0, np.pi, 9), np.linspace(0, 2 * np.pi, 14), indexing="ij")
        ball = 0.034 * np.stack([np.sin(t) * np.cos(a), np.sin(t) * np.sin(a), np.cos(t)], -1).reshape(-1, 3)
        centre = np.array([0, 0.015, top - 0.005]) if rng.random() < 0.6 else np.array([0, 0.05, top - 0.05])
        parts.append(
            Part(
                ball + centre,
                grid_triangles(9, 14),
                np.clip(who.hair * (1 + 0.1 * np.sin(a * 6 + t * 9).reshape(-1, 1)), 0, 255),
                np.full(t.size, 0.8),
            )
        )
    return parts


def glasses_parts(who: Identity, head: HeadModel, points: Array, eyes: Array) -> list[Part]:
    """Build glasses in front of the eyes (2, 3)."""
    if not who.glasses:
        return []
    rng = np.random.default_rng([who.seed, 14])
    half_width, half_height = rng.uniform(0.023, 0.028), rng.uniform(0.015, 0.022)
    power = rng.uniform(2, 3.6)
    radius = dict(thin=0.0007, thick=0.0019, dark=0.0013)[who.glasses]
    colour = dict(
        thin=rng.uniform(60, 190, 3) * [1, 0.95, 0.85], thick=np.array([22.0, 20, 22]), dark=np.array([70.0, 42, 28])
    )[who.glasses]
    around = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    c, s = np.cos(around), np.sin(around)
    near = (np.abs(np.abs(points[:, 0]) - eyes[0, 0]) < 0.02) & (np.abs(points[:, 2] - eyes[0, 2]) < 0.022)
    plane = min(points[near, 1].min() - 0.003, eyes[0, 1] - 0.020)
    meshes = []
    for eye in eyes:
        rim = np.stack(
            [
                eye[0] + half_width * np.sign(c) * np.abs(c) ** (2 / power),
                np.full_like(c, plane) + 0.10 * np.abs(c * half_width) ** 1.2,
                eye[2] - 0.003 + half_height * np.sign(s) * np.abs(s) ** (2 / power),
            ],
            axis=1,
        )
        meshes.append(tube(rim, radius, closed=True))
        outward = np.sign(eye[0])
        ear = np.array([outward * (_half_width(head, points, -0.06, eye[2] + 0.012) - 0.006), -0.045, eye[2] + 0.008])
        start = np.array([eye[0] + outward * half_width, plane + 0.002, eye[2] + 0.006])
        hinge = np.array(
            [
                outward * max(_half_width(head, points, plane + 0.025, eye[2]) + 0.001, abs(start[0])),
                plane + 0.022,
                eye[2] + 0.008,
            ]
        )
        meshes.append(tube(np.stack([start, hinge, ear]), radius))
    inner = abs(eyes[0, 0]) - half_width
    bridge = np.stack(
        [
            [-inner, plane, eyes[0, 2] + 0.003],
            [0, plane - 0.003, eyes[0, 2] + 0.006],
            [inner, plane, eyes[0, 2] + 0.003],
        ]
    )
    meshes.append(tube(bridge, radius))
    return [Part(p, t, np.broadcast_to(colour, p.shape).copy(), np.full(len(p), 0.9)) for p, t in meshes]


def _half_width(head: HeadModel, points: Array, y: float, z: float) -> float:
    """Return half the width of the head without its ears, near depth `y` and height `z`."""
    near = (np.abs(points[:, 1] - y) < 0.012) & (np.abs(points[:, 2] - z) < 0.02) & (head.ears < 0.05)
    return float(np.abs(points[near, 0]).max()) if near.any() else 0.07


def torso_part(who: Identity, points: Array) -> Part:
    """Build shoulders and collar around the lower end of the neck."""
    base = points[points[:, 2] < points[:, 2].min() + 0.02]
    centre = base.mean(0)
    width = (base[:, 0].max() - base[:, 0].min()) / 2
    profile = np.array(
        [
            (1.02, 0.0, 1.05),
            (1.12, -0.005, 1.1),
            (1.7, -0.035, 1.2),
            (2.6, -0.06, 1.35),
            (3.2, -0.10, 1.5),
            (3.3, -0.22, 1.6),
        ]
    )
    a = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    rings = [
        np.stack(
            [
                centre[0] + width * wide * np.cos(a),
                centre[1] + width * deep * np.sin(a),
                np.full_like(a, centre[2] + 0.014 + z),
            ],
            1,
        )
        for wide, z, deep in profile
    ]
    shade = np.repeat([0.7, 1, 1, 1, 1, 0.9], len(a))[:, None]
    return Part(
        np.concatenate(rings),
        grid_triangles(len(profile), len(a), False, True),
        who.cloth * shade,
        np.full(len(shade), 0.7),
    )


def eye_mesh(pupil: float) -> tuple[Array, Array, Array]:
    """Return a unit eyeball around +z, dense at iris and pupil: points (N, 3), triangles, angle from the axis (N,).

    Args:
        pupil: half angle of the pupil seen from the eye's centre, radians, below 20 degrees. N does not depend on it.
    """
    edge = np.degrees(pupil)
    rings = np.concatenate(
        [
            edge * np.array([0.0, 0.5, 0.9, 0.92, 1.08]),
            np.linspace(edge + 3, np.degrees(IRIS) - 3, 4),
            np.degrees(IRIS) * np.array([0.95, 1.05]),
            [33, 42, 55, 70, 88],
        ]
    )
    angle, around = np.meshgrid(np.radians(rings), np.linspace(0, 2 * np.pi, 26, endpoint=False), indexing="ij")
    points = np.stack([np.sin(angle) * np.cos(around), np.sin(angle) * np.sin(around), np.cos(angle)], -1).reshape(
        -1, 3
    )
    return points, grid_triangles(len(rings), 26, False, True), angle.ravel()
