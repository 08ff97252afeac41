"""Render SynthLAM: heads to pixels with PyVista, clips to rows of the data set, and random poses to pretrain on.

Frames of reference, signs and the extra `synth` that this needs: see `synthlam_heads`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tools.synthlam import scene
from tools.synthlam.camera import SIDE, Defects, Occluder, make_backdrop, photograph, sample_camera, sample_occluder
from tools.synthlam.heads import (
    ACTIONS,
    DIRECTIONS,
    HEAD_TO_RAY,
    IRIS,
    PUPIL,
    TEXTURE,
    Array,
    Identity,
    direction,
    environment_directions,
    eye_mesh,
    glasses_parts,
    hair_parts,
    head_model,
    merge,
    normals_of,
    paint,
    rotation,
    sample_identity,
    smoothstep,
    torso_part,
    unit,
)


@dataclass
class Pose:
    """What changes from frame to frame; angles in radians."""

    head: Array  # rotation (3, 3), head that faces the camera -> ray frame
    gaze: Array  # (3,) unit vector of the gaze in the ray frame (both eyes, as if far away, plus vergence)
    vergence: float = 0.0  # each eye turns in by this much
    blink: float = 0.0  # 0 open, 1 shut
    actions: dict[str, float] = field(default_factory=dict)
    torso: float = 0.0  # yaw of the body in the ray frame


@dataclass
class Light:
    """The light of a place, in the ray frame: a gradient from the ground to the sky and lamps or windows."""

    sky: Array  # (3,) linear radiance from above
    ground: Array  # (3,)
    lamps: list[tuple[Array, Array, float]]  # direction (3,), colour (3,), concentration


def sample_light(rng: np.random.Generator) -> Light:
    """Indoor light: weak and soft from everywhere, one to three lamps or windows."""
    warm = np.array([1.0, 0.9, 0.76]) ** rng.uniform(-0.6, 1.2)
    sky = rng.uniform(0.25, 0.7) * np.ones(3) * warm**0.5
    lamps = []
    for k in range(int(rng.integers(1, 4))):
        towards = direction(rng.uniform(-2.4, 2.4) if k else rng.uniform(-1.3, 1.3), rng.uniform(0.0, 1.3))
        lamps.append(
            (towards, rng.uniform(0.8, 3.2) * (warm if rng.random() < 0.7 else warm[::-1]), float(rng.uniform(3, 14)))
        )
    light = Light(sky, sky * rng.uniform(0.25, 0.7) * [1, 0.95, 0.88], lamps)
    # the camera exposes for the room, not for the face: what falls on a face that looks at the camera varies threefold
    ahead = np.clip(environment_directions() @ unit(np.array([0, 0.15, 1.0])), 0, None) * (4 / DIRECTIONS)
    gain = rng.uniform(1.0, 2.6) / (ahead @ radiance(light, environment_directions())).mean()
    return Light(light.sky * gain, light.ground * gain, [(d, c * gain, t) for d, c, t in lamps])


def radiance(light: Light, towards: Array) -> Array:
    """Light that comes from unit directions (N, 3) of the ray frame: (N, 3)."""
    up = (towards[:, 1:2] + 1) / 2
    out = light.ground * (1 - up) + light.sky * up
    for lamp, colour, tight in light.lamps:
        out = out + colour * np.exp(tight * (towards @ lamp - 1))[:, None]
    return out


def encode(linear: Array) -> Array:
    """Linear light 0..1 to display values 0..1 (a plain 2.2 power: products of encoded values are encoded products)."""
    return np.clip(linear, 0, 1) ** (1 / 2.2)


class Renderer:
    """Renders one identity after another off screen; the scene is kept and only its points and colours change."""

    def __init__(self) -> None:
        import pyvista
        import vtk

        pv: Any = pyvista  # its annotations are stricter than it is
        self.pv, self.vtk = pv, vtk
        self.model = head_model()
        self.environment = environment_directions()
        self.plotter = pv.Plotter(off_screen=True, window_size=[SIDE, SIDE], lighting="none")
        self.plotter.ren_win.SetAlphaBitPlanes(1)
        self.plotter.ren_win.SetMultiSamples(0)  # the picture is larger than the crop: that is the sampling
        self.plotter.set_background("black")
        self.plotter.renderer.SetBackgroundAlpha(0.0)
        self.ball, ball_triangles, self.ball_angle = eye_mesh()
        count = len(self.ball)
        self.eye_triangles = np.concatenate([ball_triangles, ball_triangles + count])
        self.skin_mesh = self._mesh(self.model.template[self.model.source], self.model.triangles)
        self.skin_mesh.GetPointData().SetTCoords(self._vtk(self.model.uv.astype(np.float32)))
        self.eye_polydata = self._mesh(np.concatenate([self.ball, self.ball]), self.eye_triangles)
        self.actors: dict[str, Any] = {}
        self._show("skin", self.skin_mesh)
        self._show("eyes", self.eye_polydata)
        self.plotter.show(auto_close=False)
        self.who: Identity | None = None

    @staticmethod
    def _vtk(array: Array) -> Any:
        from vtkmodules.util.numpy_support import numpy_to_vtk

        return numpy_to_vtk(np.ascontiguousarray(array), deep=True)

    def _mesh(self, points: Array, triangles: Array) -> Any:
        mesh = self.pv.PolyData.from_regular_faces(points.astype(np.float32), triangles)
        mesh["rgb"] = np.full((len(points), 3), 255, np.uint8)
        return mesh

    def _show(self, name: str, mesh: Any) -> None:
        if name in self.actors:
            self.plotter.remove_actor(self.actors.pop(name), render=False)
        self.actors[name] = self.plotter.add_mesh(
            mesh,
            scalars="rgb",
            rgb=True,
            lighting=False,
            smooth_shading=False,
            show_scalar_bar=False,
            render=False,
            reset_camera=False,
        )

    def close(self) -> None:
        """Frees the window."""
        self.plotter.close()

    def set_identity(self, who: Identity) -> None:
        """Builds the shape, skin, hair and clothes of a person."""
        import torch

        if self.who is not None and self.who.seed == who.seed:
            return
        self.who, head = who, self.model
        with torch.no_grad():
            rest = head.anny(phenotype_kwargs=who.phenotype, local_changes_kwargs=who.shape)
        points = rest["rest_vertices"][0].numpy()[head.skin]
        bones = rest["rest_bone_heads"][0].numpy()
        eyes = np.stack([bones[head.anny.bone_labels.index(b)] for b in ("eye.L", "eye.R")])
        shift = np.array([0, -0.06, 0]) - [0, eyes[:, 1].mean() + 0.0645, eyes[:, 2].mean()]
        self.points, self.eyes = points + shift, eyes + shift  # the origin is in the head, level with the eyes
        full = rest["rest_vertices"][0].numpy() + shift
        self.eye_radius = self._eye_radius(full)
        self.normals = normals_of(self.points, head.source[head.triangles])
        cosine = np.clip(self.normals @ self.environment.T, 0, None)
        self.transfer = (cosine * head.visible * (4 / DIRECTIONS)).astype(np.float32)
        self.scale = (self.points[:, 2].max() - self.eyes[0, 2]) / 0.1207
        skin = paint(who, head)
        image = self.vtk.vtkImageData()
        image.SetDimensions(TEXTURE[1], TEXTURE[0], 1)
        image.GetPointData().SetScalars(self._vtk(skin.astype(np.uint8).reshape(-1, 3)))
        texture = self.vtk.vtkTexture()
        texture.SetInputData(image)
        texture.InterpolateOn()
        texture.MipmapOn()
        texture.RepeatOn()
        self.actors["skin"].SetTexture(texture)
        parts = hair_parts(who, head, self.points) + glasses_parts(who, head, self.points, self.eyes)
        self.extra = merge(parts) if parts else None
        for name in ("extra", "torso"):
            if name in self.actors:
                self.plotter.remove_actor(self.actors.pop(name), render=False)
        if self.extra is not None:
            self.extra_normals = normals_of(self.extra.points, self.extra.triangles)
            outward = ((self.extra.points - [0, 0, 0]) * self.extra_normals).sum(1, keepdims=True)
            self.extra_normals *= np.where(outward < 0, -1, 1)
            self.extra_mesh = self._mesh(self.extra.points, self.extra.triangles)
            self._show("extra", self.extra_mesh)
        self.torso = torso_part(who, self.points)
        self.torso_normals = normals_of(self.torso.points, self.torso.triangles)
        self.torso_normals *= np.where(
            ((self.torso.points - self.torso.points.mean(0)) * self.torso_normals).sum(1, keepdims=True) < 0, -1, 1
        )
        self.torso_mesh = self._mesh(self.torso.points, self.torso.triangles)
        self._show("torso", self.torso_mesh)

    def _eye_radius(self, vertices: Array) -> float:
        outside = np.setdiff1d(np.arange(len(vertices)), self.model.skin)
        return float(np.median(np.linalg.norm(vertices[outside, None] - self.eyes, axis=2).min(1)))

    def box(self, pose: Pose, roll: float = 0.0) -> Array:
        """Extent of the head without its neck on the image's axes: left, bottom, right, top (metres at the head)."""
        points = self.points[
            (self.points[:, 2] > self.eyes[0, 2] - 0.118 * self.scale) & (np.abs(self.points[:, 0]) < 0.08 * self.scale)
        ]
        seen = points @ (rotation(0, 0, roll) @ pose.head @ HEAD_TO_RAY).T
        return np.array([seen[:, 0].min(), seen[:, 1].min(), seen[:, 0].max(), seen[:, 1].max()])

    def landmarks(self, pose: Pose) -> tuple[Array, Array]:
        """Eyes (left, right), nose tip, mouth corners (left, right): (5, 3) in the ray frame; how each faces it."""
        to_ray = pose.head @ HEAD_TO_RAY
        template = self.model.template
        pick = [
            np.argmin(np.linalg.norm(template - at, axis=1))
            for at in ((0.0, -0.172, 0.690), (0.0255, -0.145, 0.6612), (-0.0255, -0.145, 0.6612))
        ]
        points = np.concatenate([self.eyes + [0, -self.eye_radius, 0], self.points[pick]])
        normals = np.concatenate([np.array([[0.35, -0.9, 0], [-0.35, -0.9, 0]]), self.normals[pick]])
        return points @ to_ray.T, normals @ to_ray[2]

    def render(
        self, pose: Pose, light: Light, centre: Array, extent: float, distance: float, roll: float = 0.0
    ) -> Array:
        """Pixels (SIDE, SIDE, 4) RGBA in 0..1, premultiplied, display-encoded colour.

        `centre` (2,) metres on the axes of the image is the middle of the picture, `extent` its side in metres at the
        head's distance, `roll` the camera's roll in radians: the head appears turned by it.
        """
        assert self.who is not None
        head = self.model
        to_ray = pose.head @ HEAD_TO_RAY
        from_ray = to_ray.T
        gaze = from_ray @ pose.gaze
        eye_yaw, eye_pitch = np.arctan2(gaze[0], -gaze[1]), np.arcsin(np.clip(gaze[2], -1, 1))
        points = self._apply_actions(pose, eye_yaw, eye_pitch)

        arriving = radiance(light, self.environment @ to_ray.T).astype(np.float32)
        lit = self.transfer @ arriving
        mouth = 1 - 0.85 * head.mouth[:, None]
        shine = self._shine(pose, light, to_ray)
        colours = encode(lit * mouth * 0.42 + 0.02) + shine
        self._update(self.skin_mesh, points[head.source], colours[head.source] * 255)
        if self.extra is not None:
            shade = self._soft_light(self.extra_normals, arriving) * self.extra.open_sky[:, None]
            self._update(self.extra_mesh, None, encode(shade * 0.42 + 0.01) * self.extra.albedo)
        turn = rotation(pose.torso, 0, 0)
        body = from_ray @ turn @ HEAD_TO_RAY
        neck = np.array([0.0, 0.0, self.points[:, 2].min() + 0.035])
        torso = (self.torso.points - neck) @ body.T + neck
        shade = self._soft_light(self.torso_normals @ body.T, arriving) * self.torso.open_sky[:, None]
        self._update(self.torso_mesh, torso, encode(shade * 0.42 + 0.01) * self.torso.albedo)
        self._eyes(pose, light, arriving, eye_yaw, eye_pitch, from_ray)

        camera = self.plotter.renderer.GetActiveCamera()
        right, up = np.array([np.cos(roll), -np.sin(roll), 0.0]), np.array([np.sin(roll), np.cos(roll), 0.0])
        at = centre[0] * right + centre[1] * up
        camera.SetPosition(*(from_ray @ np.array([0.0, 0.0, distance])))
        camera.SetFocalPoint(*(from_ray @ at))
        camera.SetViewUp(*(from_ray @ up))
        camera.SetViewAngle(float(np.degrees(2 * np.arctan(extent / 2 / distance))))
        camera.SetClippingRange(distance - 0.6 if distance > 0.8 else 0.2, distance + 0.6)
        window = self.plotter.ren_win
        window.Render()
        buffer = self.vtk.vtkUnsignedCharArray()
        window.GetRGBACharPixelData(0, 0, SIDE - 1, SIDE - 1, 0, buffer)
        from vtkmodules.util.numpy_support import vtk_to_numpy

        pixels = vtk_to_numpy(buffer).reshape(SIDE, SIDE, 4)[::-1]
        return pixels.astype(np.float32) / 255

    def _apply_actions(self, pose: Pose, eye_yaw: float, eye_pitch: float) -> Array:
        assert self.who is not None
        amount = dict(pose.actions)
        shut = min(max(self.who.lid, pose.blink + self.who.lid * (1 - pose.blink)), 1.0)
        horizontal, up = np.degrees(eye_yaw) / 22.8, np.degrees(eye_pitch)
        for side, sign in (("Left", 1), ("Right", -1)):
            amount["eyeBlink" + side] = shut
            amount["eyeLookOut" + side] = float(np.clip(sign * horizontal, 0, 1.4))
            amount["eyeLookIn" + side] = float(np.clip(-sign * horizontal, 0, 1.4))
            amount["eyeLookUp" + side] = float(np.clip(up / 12, 0, 1.6)) * (1 - shut)
            amount["eyeLookDown" + side] = float(np.clip(-up / 16.3, 0, 1.7)) * (1 - shut)
        out = self.points.astype(np.float32)
        for name, weight in amount.items():
            if abs(weight) > 1e-3:
                out = out + np.float32(weight * self.scale) * self.model.actions[ACTIONS.index(name)]
        return out

    def _soft_light(self, normals: Array, arriving: Array) -> Array:
        return (np.clip(normals @ self.environment.T * 0.85 + 0.15, 0, None) * (4 / DIRECTIONS)) @ arriving

    def _shine(self, pose: Pose, light: Light, to_ray: Array) -> Array:
        """A weak highlight on skin, (V, 3) display values."""
        normals = self.normals @ to_ray.T
        out = np.zeros((len(normals), 3))
        for lamp, colour, _ in light.lamps:
            half = unit(lamp + np.array([0, 0, 1.0]))
            out += np.clip(normals @ half, 0, 1)[:, None] ** 22 * colour * 0.035
        return out * self.model.visible.mean(1, keepdims=True)

    def _eyes(
        self, pose: Pose, light: Light, arriving: Array, eye_yaw: float, eye_pitch: float, from_ray: Array
    ) -> None:
        assert self.who is not None
        who, count = self.who, len(self.ball)
        angle = self.ball_angle
        rng = np.random.default_rng([who.seed, 15])
        fleck = 1 + 0.12 * rng.standard_normal(count)
        limbus = smoothstep(IRIS * 0.78, IRIS, angle)
        iris = who.iris * fleck[:, None] * (1 - 0.5 * limbus)[:, None]
        white = (
            np.array([238.0, 232, 226]) * (1 - 0.10 * smoothstep(0.7, 1.4, angle))[:, None]
            - np.array([0, 14, 14]) * smoothstep(0.6, 1.2, angle)[:, None]
        )
        albedo = np.where((angle < IRIS)[:, None], iris, white)
        albedo = np.where((angle < PUPIL)[:, None], 9.0, albedo)
        points, colours = [], []
        for k, sign in enumerate((1, -1)):
            yaw, pitch = eye_yaw - sign * pose.vergence, eye_pitch
            forward = np.array([np.sin(yaw) * np.cos(pitch), -np.cos(yaw) * np.cos(pitch), np.sin(pitch)])
            right = unit(np.cross(forward, [0, 0, 1.0]))
            basis = np.stack([right, np.cross(right, forward), forward])
            outward = self.ball @ basis
            bulge = 1 + 0.035 * smoothstep(IRIS * 1.1, 0, angle)
            points.append(self.eyes[k] + self.eye_radius * outward * bulge[:, None])
            lids = 0.74 + 0.26 * smoothstep(0.34, -0.12, outward[:, 2] - 0.5 * forward[2])  # the upper lid's shadow
            corners = 1 - 0.35 * smoothstep(0.45, 0.85, np.abs(outward[:, 0]))
            shade = self._soft_light(outward, arriving) * (lids * corners)[:, None] * 0.95
            colour = encode(shade * 0.42 + 0.01) * albedo
            # each lamp is seen mirrored in the cornea, a sphere of 7.8 mm around a point 5.6 mm before the eye's centre
            glint_at = []
            for lamp, strength, _ in light.lamps:
                half = unit(from_ray @ unit(lamp + np.array([0, 0, 1.0])))
                glint_at.append((unit(0.0056 * forward + 0.0078 * half), strength))
            for at, strength in glint_at:
                spot = np.exp(-((np.arccos(np.clip(outward @ at, -1, 1)) / 0.10) ** 2))
                colour = colour + 255 * spot[:, None] * np.clip(strength * 0.28, 0, 0.8)
            colours.append(colour)
        self._update(self.eye_polydata, np.concatenate(points), np.concatenate(colours))

    @staticmethod
    def _update(mesh: Any, points: Array | None, colours: Array) -> None:
        if points is not None:
            mesh.points = points.astype(np.float32)
        mesh["rgb"] = np.clip(colours, 0, 255).astype(np.uint8)


def eye_in_head(pose: Pose) -> tuple[float, float]:
    """Yaw and pitch of the gaze relative to the head, radians."""
    gaze = pose.head.T @ pose.gaze
    return float(np.arctan2(gaze[0], gaze[2])), float(np.arcsin(np.clip(gaze[1], -1, 1)))


def limit_gaze(
    head: Array, gaze: Array, yaw_limit: float = np.radians(32), pitch_limit: float = np.radians(24)
) -> Array:
    """The gaze nearest to `gaze` (3,) that eyes in a head turned by `head` (3, 3) can take."""
    local = head.T @ gaze
    yaw, pitch = np.arctan2(local[0], local[2]), np.arcsin(np.clip(local[1], -1, 1))
    return head @ direction(np.clip(yaw, -yaw_limit, yaw_limit), np.clip(pitch, -pitch_limit, pitch_limit))


def angles_of(head: Array) -> tuple[float, float, float]:
    """Yaw, pitch and roll (radians) of a rotation made by `rotation`."""
    forward = head[:, 2]
    return (
        float(np.arctan2(forward[0], forward[2])),
        float(np.arcsin(np.clip(forward[1], -1, 1))),
        float(np.arctan2(head[1, 0], head[1, 1])),
    )


PRETRAINING_TARGETS = [
    "head_yaw",
    "head_pitch",
    "head_roll",
    "left_eye_yaw",
    "left_eye_pitch",
    "right_eye_yaw",
    "right_eye_pitch",
    "eye_openness",
    "jaw_open",
    "smile",
    "brow_up",
    "brow_down",
    "log_size",
    "left_eye_x",
    "left_eye_y",
    "right_eye_x",
    "right_eye_y",
    "nose_x",
    "nose_y",
    "left_mouth_x",
    "left_mouth_y",
    "right_mouth_x",
    "right_mouth_y",
]
SHARD = 1000  # crops
PER_IDENTITY = 40


def render_pretraining(count: int, seed: int, out: Path, workers: int = 1) -> None:
    """Writes crops of people who occur in no split, in random poses, with what is true about each, for pretraining.

    `out/shard_%05d.npz` holds up to 1,000 crops: `jpeg` (all files end to end, uint8), `offsets` (n + 1,), `targets`
    (n, len(names)) float32 and `names`. Angles are radians, head angles relative to the line to the camera, with the
    camera's roll, eye angles relative to the head; landmarks are in crop units (0..1, y down). None of it is the
    LAM label.
    A shard depends on the seed and its number alone, not on `workers`; a shard that is there already is kept.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    jobs = [(seed, k, min(SHARD, count - k * SHARD), out) for k in range((count + SHARD - 1) // SHARD)]
    jobs = [job for job in jobs if not (out / f"shard_{job[1]:05d}.npz").exists()]
    if workers == 1:
        for job in jobs:
            _pretraining_shard(job)
        return
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for _ in pool.imap_unordered(_pretraining_shard, jobs):
            pass


@functools.cache
def _renderer() -> Renderer:
    """This process's; from here on its BLAS has one thread: for matrices as small as these, more only wait."""
    threadpool_limits(1, "blas")
    return Renderer()


def random_pose(rng: np.random.Generator, distance: float) -> tuple[Pose, float]:
    """A pose out of any context, and the camera's roll: broad, with a good share of gazes at and near the camera."""
    wide = rng.random() < 0.4
    head = rotation(
        float(np.clip(rng.normal(0, np.radians(45 if wide else 18)), -1.5, 1.5)),
        float(np.clip(rng.normal(-0.05, 0.24), -0.9, 0.8)),
        float(rng.normal(0, 0.1)),
    )
    case = rng.random()
    if case < 0.35:
        gaze = direction(*rng.normal(0, np.radians(2.5), 2))
    elif case < 0.65:
        gaze = direction(*rng.uniform(-np.radians(20), np.radians(20), 2))
    else:
        gaze = head @ direction(float(rng.normal(0, np.radians(13))), float(rng.normal(-0.05, np.radians(9))))
    smile = float(rng.uniform(0.1, 1) * (rng.random() < 0.3))
    talk = rng.random() < 0.35
    brow = rng.normal(0, 0.35)
    actions = dict(
        jawOpen=float(rng.uniform(0, 0.5) * talk),
        mouthFunnel=float(rng.uniform(0, 0.6) * talk * (rng.random() < 0.4)),
        mouthSmileLeft=smile,
        mouthSmileRight=smile * float(rng.uniform(0.8, 1)),
        cheekSquintLeft=smile * 0.6,
        cheekSquintRight=smile * 0.6,
        browInnerUp=float(np.clip(brow, 0, 1)),
        browDownLeft=float(np.clip(-brow, 0, 1)),
        browDownRight=float(np.clip(-brow, 0, 1)),
        eyeSquintLeft=0.5 * smile,
        eyeSquintRight=0.5 * smile,
    )
    pose = Pose(
        head=head,
        gaze=limit_gaze(head, gaze),
        vergence=float(np.arctan(0.031 / max(distance, 0.5))),
        blink=float(rng.choice([0, rng.uniform(0, 1)], p=[0.88, 0.12])),
        actions=actions,
        torso=float(np.clip(0.5 * angles_of(head)[0] + rng.normal(0, 0.4), -1.6, 1.6)),
    )
    return pose, float(rng.normal(0, 0.09))


def shoot(
    renderer: Renderer,
    pose: Pose,
    light: Light,
    roll: float,
    distance: float,
    box: Array,
    size: tuple[int, int],
    behind: Array,
    defects: Defects,
    rng: np.random.Generator,
    occluder: Occluder | None = None,
) -> bytes:
    """The JPEG of the part `box` (left, bottom, right, top; metres on the image's axes) of what the camera sees."""
    extent = float(max(box[2] - box[0], box[3] - box[1]))
    centre = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    rgba = renderer.render(pose, light, centre, extent, distance, roll)
    share = ((box[2] - box[0]) / extent, (box[3] - box[1]) / extent)
    return photograph(rgba, behind, share, size, defects, rng, occluder)


def landmarks_in_crop(renderer: Renderer, pose: Pose, roll: float, distance: float, box: Array) -> tuple[Array, Array]:
    """Landmarks (5, 3) in crop units (x right, y down, z towards the camera) and how they face the camera (5,)."""
    points, facing = renderer.landmarks(pose)
    seen = points @ rotation(0, 0, roll).T
    seen[:, :2] *= (distance / (distance - seen[:, 2]))[:, None]
    width, height = box[2] - box[0], box[3] - box[1]
    return np.stack([(seen[:, 0] - box[0]) / width, (box[3] - seen[:, 1]) / height, seen[:, 2] / width], 1), facing


def _pretraining_shard(job: tuple[int, int, int, Path]) -> None:
    seed, number, count, out = job
    rng = np.random.default_rng([seed, number, 21])
    renderer = _renderer()
    files: list[bytes] = []
    rows: list[list[float]] = []
    while len(files) < count:
        identity = 10_000_000 + seed * 100_000 + number * 100 + len(files) // PER_IDENTITY  # no split has such numbers
        renderer.set_identity(sample_identity(identity, renderer.model.shape_labels))
        backdrop = make_backdrop(rng)
        for k in range(min(PER_IDENTITY, count - len(files))):
            if k % 5 == 0:
                light, camera = sample_light(rng), sample_camera(rng)
            pixels = float(np.clip(np.exp(rng.normal(np.log(62), 0.42)), 24, 112))
            distance = float(560 * 0.29 / pixels)
            pose, roll = random_pose(rng, distance)
            left, bottom, right, top = renderer.box(pose, roll)
            middle = np.array([left + right, bottom + top]) / 2 + rng.normal(0, 0.012, 2)
            half = np.array([right - left, top - bottom]) / 2 * rng.uniform(1.0, 1.3) * np.exp(rng.normal(0, 0.04, 2))
            box = np.concatenate([middle - half, middle + half])
            w, h = (half * pixels / half.max()).round().astype(int)
            size = (max(int(w), 12), max(int(h), 12))
            camera.motion = rng.normal(0, 0.8, 2) * (rng.random() < 0.35) * pixels / 50
            occluder = None
            if rng.random() < 0.07:
                occluder = sample_occluder(rng)
                occluder.at = rng.uniform(-0.6, 0.6, 2)
            x, y = int(rng.uniform(0, 960 - 120)), int(rng.uniform(0, 540 - 120))
            behind = backdrop[y : y + max(size[1] // 2, 8), x : x + max(size[0] // 2, 8)]
            files.append(shoot(renderer, pose, light, roll, distance, box, size, behind, camera, rng, occluder))
            seen_head = rotation(0, 0, roll) @ pose.head
            eye_yaw, eye_pitch = eye_in_head(pose)
            marks, _ = landmarks_in_crop(renderer, pose, roll, distance, box)
            a = pose.actions
            rows.append(
                [
                    *angles_of(seen_head),
                    eye_yaw - pose.vergence,
                    eye_pitch,
                    eye_yaw + pose.vergence,
                    eye_pitch,
                    1 - pose.blink,
                    a["jawOpen"],
                    a["mouthSmileLeft"],
                    a["browInnerUp"],
                    a["browDownLeft"],
                    np.log(max(size)),
                    *marks[:, :2].ravel(),
                ]
            )
    offsets = np.cumsum([0] + [len(f) for f in files])
    target = out / f"shard_{number:05d}.npz"
    scratch = target.with_suffix(".tmp.npz")
    np.savez(
        scratch,
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        offsets=offsets,
        targets=np.array(rows, np.float32),
        names=np.array(PRETRAINING_TARGETS),
    )
    scratch.replace(target)


SPLITS = {"train": 62, "val": 17, "test": 29}  # clips
MOST_TIMES = 999 // SPLITS["train"]
PEOPLE = (2, 1, 3, 2)  # in the clips, in turn
MIN_SIDE, MAX_SIDE = 22, 112  # the detector finds nothing smaller; crops are never larger


@dataclass
class Crop:
    """One row of the data set: a face box of a frame with what is known about it. Angles in degrees."""

    person: str
    track: str
    frame: int
    box: tuple[float, float, float, float]  # x, y, width, height in the frame
    label: int
    jpeg: bytes | None  # None: annotated, but there is no picture
    truth: dict[str, float]
    head_pose: list[float] | None  # as an estimator gives it
    landmarks: list[list[float]] | None


def plan(seed: int, times: int = 1) -> dict[str, list[Any]]:
    """The clips of the three splits (`synthlam_scene.Clip`), identities never shared; `times` as many in the first.

    A clip without any look is drawn again: Ego4D lists only clips with at least one. A split whose share of looking
    frames is not between 14.5 and 15.7 % has clips drawn again, in turn, where that brings it nearer.
    """
    if not 0 <= seed < 90:
        raise ValueError(f"seed {seed}: must be 0..89, so that identities never meet those of the pretraining renders")
    if not 1 <= times <= MOST_TIMES:
        raise ValueError(f"times {times}: must be 1..{MOST_TIMES}, so that clips are numbered in three digits")
    out = {}
    for number, (split, count) in enumerate(SPLITS.items()):
        count *= times if split == "train" else 1

        def draw(k: int, attempt: int, split: str = split, number: int = number) -> Any:
            people = PEOPLE[k % len(PEOPLE)]
            first = seed * 100_000 + number * 10_000 + k * max(PEOPLE)
            for again in range(100):
                key = (((seed * 10 + number) * 1000 + attempt) * 1000 + k) * 100 + again
                clip = scene.simulate(f"{split}_{k:03d}", key, list(range(first, first + people)))
                if any(p.segments for p in clip.people):
                    break
            return clip

        clips = [draw(k, 0) for k in range(count)]
        attempt = 0
        while not 0.145 <= (rate := _looking(clips)) <= 0.157:
            attempt += 1
            other = [*clips]
            other[attempt % count] = draw(attempt % count, attempt)
            if abs(_looking(other) - 0.151) < abs(rate - 0.151):
                clips = other
        out[split] = clips
    return out


def _looking(clips: list[Any]) -> float:
    """Share of frames labelled as looking."""
    return float(np.concatenate([p.labels for c in clips for p in c.people]).mean())


def render_clip(clip: Any, split: str, every: int = 1) -> list[Crop]:
    """All rows of a clip, rendered, or those of every so many frames; the same whatever was rendered before."""
    renderer = _renderer()
    rng = np.random.default_rng([clip.seed, 41])
    room, base, backdrop = sample_light(rng), sample_camera(rng), make_backdrop(rng)
    base.noise *= 0.6  # a video codec smooths more of it away than the one pass here
    focus, exposure = (
        scene.wander(rng, clip.frames, 0.25, 0.8),
        scene.wander(rng, clip.frames, 0.12, 1.5),
    )
    out: list[Crop] = []
    for person in clip.people:
        rng = np.random.default_rng([clip.seed, 42, int(person.name)])
        renderer.set_identity(sample_identity(person.identity, renderer.model.shape_labels))
        out += _render_person(renderer, clip, person, split, room, base, backdrop, focus, exposure, rng, every)
    return out


def _render_person(
    renderer: Renderer,
    clip: Any,
    person: Any,
    split: str,
    room: Light,
    base: Defects,
    backdrop: Array,
    focus: Array,
    exposure: Array,
    rng: np.random.Generator,
    every: int,
) -> list[Crop]:
    frames = clip.frames
    margin, aspect = rng.uniform(1.0, 1.22), np.exp(rng.normal(0, 0.03))
    jitter = np.stack([scene.wander(rng, frames, s, 0.1) for s in (0.018, 0.018, 0.025, 0.025)], 1)
    bias = rng.normal(0, 0.02, 2)
    present = np.ones(frames, bool)
    if rng.random() < 0.3:  # enters or leaves
        cut = int(rng.uniform(4, frames / 3))
        present[(slice(None, cut), slice(frames - cut, None))[int(rng.random() < 0.5)]] = False
    if rng.random() < 0.35:
        start = int(rng.uniform(5, frames - 12))
        present[start : start + int(rng.integers(3, 10))] = False
    cover: Occluder | None = None
    covered, path = np.zeros(frames, bool), np.zeros((frames, 2))
    if rng.random() < 0.25:
        cover = sample_occluder(rng)
        start, length = int(rng.uniform(0, frames - 6)), int(rng.integers(5, 15))
        covered[start : start + length] = True
        phase = (np.arange(frames) - start) / length
        side = rng.choice([-1, 1])
        across = np.stack([side * (phase * 2.2 - 1.1), rng.uniform(-0.3, 0.4) + 0 * phase], 1)
        rising = np.stack(
            [rng.uniform(-0.3, 0.3) + 0 * phase, 0.9 - rng.uniform(0.5, 1.1) * np.sin(np.clip(phase, 0, 1) * np.pi)], 1
        )
        path = across if cover.kind != "hand" or rng.random() < 0.4 else rising
    rows: list[Crop] = []
    track = 0
    last: int | None = None
    before: Array | None = None
    for t in range(frames):
        line = clip.camera[t] - person.position[t]
        distance = float(np.linalg.norm(line))
        z = line / distance
        x = unit(np.cross([0.0, 1.0, 0.0], z))
        ray = np.stack([x, np.cross(z, x), z], axis=1)
        up = ray.T @ clip.camera_turn[t][:, 1]
        roll = float(np.arctan2(up[0], up[1]))
        seen = clip.camera_turn[t].T @ -line
        middle = np.array(
            [
                scene.FRAME_SIZE[0] / 2 + scene.FOCAL * seen[0] / -seen[2],
                scene.FRAME_SIZE[1] / 2 - scene.FOCAL * seen[1] / -seen[2],
            ]
        )
        moved, before = (middle - before if before is not None else np.zeros(2)), middle
        pose = Pose(
            head=ray.T @ person.head[t],
            gaze=ray.T @ person.gaze[t],
            vergence=float(np.arctan(0.031 / max(distance, 0.4))),
            blink=float(person.blink[t]),
            actions={name: float(value[t]) for name, value in person.actions.items()},
            torso=float(np.clip((person.torso[t] - np.arctan2(z[0], z[2]) + np.pi) % (2 * np.pi) - np.pi, -1.7, 1.7)),
        )
        # the detector's box, metres on the image's axes
        scale = scene.FOCAL / distance
        tight = renderer.box(pose, roll)
        half = (tight[2:] - tight[:2]) / 2 * margin * np.array([aspect, 1 / aspect]) * np.exp(jitter[t, 2:])
        fits = min(1.0, MAX_SIDE / (2 * half.max() * scale))
        half *= fits
        centre = (tight[:2] + tight[2:]) / 2 + (bias + jitter[t, :2]) * 2 * half
        box = np.concatenate([centre - half, centre + half])
        x1, y1 = middle[0] + box[0] * scale, middle[1] - box[3] * scale
        width, height = 2 * half * scale
        visible = [
            max(x1, 0),
            max(y1, 0),
            min(x1 + width, scene.FRAME_SIZE[0]),
            min(y1 + height, scene.FRAME_SIZE[1]),
        ]
        share = max(visible[2] - visible[0], 0) * max(visible[3] - visible[1], 0) / (width * height)
        head_yaw, head_pitch, head_roll = (float(a) for a in np.degrees(angles_of(rotation(0, 0, roll) @ pose.head)))
        size = (int(round(visible[2] - visible[0])), int(round(visible[3] - visible[1])))
        hidden = bool(covered[t]) and cover is not None and float(np.abs(path[t]).max()) < 0.5
        miss = (
            0.02 + 0.25 * (abs(head_yaw) > 75) + 0.3 * hidden + 0.1 * (np.hypot(*moved) * clip.exposure > 0.12 * width)
        )
        luck = rng.random(8)  # drawn whatever happens, so that one decision does not move the next
        if not present[t] or fits < 0.85 or share < 0.55 or max(size) < MIN_SIDE or min(size) < 10 or luck[0] < miss:
            continue
        frame = clip.first_frame + t
        if last is not None and frame - last > 6 and luck[1] < 0.6:
            track += 1
        last = frame
        if t % every:
            continue
        shown = [
            box[0] + (visible[0] - x1) / scale,
            box[3] - (visible[3] - y1) / scale,
            box[0] + (visible[2] - x1) / scale,
            box[3] - (visible[1] - y1) / scale,
        ]
        shown_box = np.array(shown)
        defects = Defects(
            motion=moved * clip.exposure,
            defocus=base.defocus * float(np.exp(focus[t])),
            gain=base.gain * float(np.exp(exposure[t])),
            cast=base.cast,
            noise=base.noise,
            sharpen=base.sharpen,
            codec=base.codec,
            quality=base.quality,
        )
        light = Light(room.sky, room.ground, [(ray.T @ d, c, k) for d, c, k in room.lamps])
        turn = clip.camera_turn[t][:, 2]
        pan = scene.FOCAL * np.array([np.arctan2(-turn[0], turn[2]), np.arcsin(np.clip(turn[1], -1, 1))])
        reach = max(size) / 2
        left, top = (np.array([visible[0] + visible[2], visible[1] + visible[3]]) / 2 + pan) / 2 - reach / 2
        columns, lines = (
            np.arange(int(left), int(left) + int(reach) + 8),
            np.arange(int(top), int(top) + int(reach) + 8),
        )
        behind = backdrop[np.clip(lines, 0, len(backdrop) - 1)][:, columns % backdrop.shape[1]]
        if cover is not None:
            cover.at = path[t]
        jpeg: bytes | None = shoot(
            renderer, pose, light, roll, distance, shown_box, size, behind, defects, rng, cover if covered[t] else None
        )
        annotated = (float(x1), float(y1), float(width), float(height))
        if split != "test":
            if luck[2] < 0.012:
                jpeg = None
            if luck[3] < 0.004:  # the annotations have boxes without area, and so no picture
                annotated = (annotated[0], annotated[1], -3.0, annotated[3]) if luck[4] < 0.5 else (*annotated[:3], 0.0)
                jpeg = None
        marks, facing = landmarks_in_crop(renderer, pose, roll, distance, shown_box)
        eye_yaw, eye_pitch = np.degrees(eye_in_head(pose))
        gaze_yaw, gaze_pitch = np.degrees(
            [np.arctan2(pose.gaze[0], pose.gaze[2]), np.arcsin(np.clip(pose.gaze[1], -1, 1))]
        )
        truth = dict(
            gaze_angle=np.degrees(person.gaze_angle[t]),
            gaze_yaw=gaze_yaw,
            gaze_pitch=gaze_pitch,
            head_yaw=head_yaw,
            head_pitch=head_pitch,
            head_roll=head_roll,
            eye_yaw=eye_yaw,
            eye_pitch=eye_pitch,
            blink=pose.blink,
            distance=distance,
            occluded=float(hidden),
            motion=float(np.hypot(*defects.motion)),
        )
        pixels = max(size)
        lost = luck[5] < 0.02 + 0.15 * (pixels < 32) + 0.3 * hidden + 0.2 * (abs(head_yaw) > 75)
        spread = (2.0 + 110 / pixels) * (1 + abs(head_yaw) / 90)
        noisy = np.array([head_yaw, head_pitch, head_roll]) + rng.normal(0, 1, 3) * spread * [1, 0.9, 0.6]
        marks = marks + rng.normal(0, 1, marks.shape) * (0.9 / pixels + 0.012)
        confidence = 1 / (1 + np.exp(-(6 * facing + rng.normal(0, 0.8, 5) - 2.5 * hidden)))
        row = Crop(
            person.name,
            f"{clip.name}_person{person.name}_{track}",
            frame,
            annotated,
            int(person.labels[t]),
            jpeg,
            {k: round(float(v), 3) for k, v in truth.items()},
            None if lost else [round(float(v), 2) for v in noisy],
            None
            if luck[6] < 0.5 * lost
            else [[round(float(v), 4) for v in (*m, c)] for m, c in zip(marks, confidence, strict=True)],
        )
        rows.append(row)
    return rows
