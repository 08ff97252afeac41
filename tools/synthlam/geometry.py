"""Vectors, rotations and meshes of the renderer.

Frames of reference. *Head*: anny's, in metres: x to the person's left, y to the back, z up. *Ray*: origin at the head,
x to the right of the image, y up, z from the head to the camera. A head with zero yaw, pitch and roll faces the camera;
positive yaw turns it towards the right of the image, positive pitch up. A gaze with zero yaw and pitch in the ray frame
points at the camera.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

HEAD_TO_RAY = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # for a head that faces the camera


def unit(v: Array) -> Array:
    """Scale vectors (..., 3) to length one."""
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def smoothstep(low: float, high: float, x: Array) -> Array:
    """Return 0 below `low`, 1 above `high` and a smooth cubic in between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def direction(yaw: Array | float, pitch: Array | float) -> Array:
    """Return unit vectors (..., 3) in the ray frame for angles in radians."""
    return np.stack(
        np.broadcast_arrays(np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)), axis=-1
    ).astype(float)


def rotation(yaw: float, pitch: float, roll: float) -> Array:
    """Return the rotation (3, 3) of the ray frame by roll, then pitch, then yaw, in radians."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return turn @ nod @ tilt


def angles_of(head: Array) -> tuple[float, float, float]:
    """Return yaw, pitch and roll in radians: the inverse of `rotation`."""
    forward = head[:, 2]
    return (
        float(np.arctan2(forward[0], forward[2])),
        float(np.arcsin(np.clip(forward[1], -1, 1))),
        float(np.arctan2(head[1, 0], head[1, 1])),
    )


def normals_of(points: Array, triangles: Array) -> Array:
    """Return area-weighted vertex normals (N, 3)."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    out = np.empty_like(points)
    for axis in range(3):
        out[:, axis] = np.bincount(triangles.ravel(), weights=np.repeat(face[:, axis], 3), minlength=len(points))
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def tube(path: Array, radius: float, sides: int = 6, closed: bool = False) -> tuple[Array, Array]:
    """Return points and triangles of a tube around a path (P, 3)."""
    count = len(path)
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    ahead = unit(ahead)
    side = unit(np.cross(ahead, [0.03, 0.05, 1.0]) + 1e-9)
    up = np.cross(side, ahead)
    angle = np.arange(sides) * 2 * np.pi / sides
    ring = side[:, None] * np.cos(angle)[:, None] + up[:, None] * np.sin(angle)[:, None]
    points = (path[:, None] + radius * ring).reshape(-1, 3)
    return points, grid_triangles(count, sides, closed, True)


def grid_triangles(rows: int, columns: int, wrap_rows: bool = False, wrap_columns: bool = False) -> Array:
    """Return the triangles of a grid of rows x columns points."""
    r, c = np.meshgrid(np.arange(rows - (not wrap_rows)), np.arange(columns - (not wrap_columns)), indexing="ij")
    a, b = r * columns + c, r * columns + (c + 1) % columns
    d, e = (r + 1) % rows * columns + c, (r + 1) % rows * columns + (c + 1) % columns
    return np.concatenate([np.stack([a, b, e], -1).reshape(-1, 3), np.stack([a, e, d], -1).reshape(-1, 3)])
