"""Heads to pixels with PyVista, and to the JPEG of a crop.

`anny`, `pyvista` and `vtk` belong to the extra `synth`, so they are imported where they are used.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tools.synthlam.camera import SIDE, Shot, photograph
from tools.synthlam.geometry import HEAD_TO_RAY, Array, direction, normals_of, rotation, smoothstep, unit
from tools.synthlam.head_model import ACTIONS, DIRECTIONS, TEXTURE, environment_directions, head_model
from tools.synthlam.identity import Identity
from tools.synthlam.light import Light, encode, radiance, strength
from tools.synthlam.paint import paint
from tools.synthlam.parts import IRIS, eye_mesh, glasses_parts, hair_parts, merge, torso_part

#: The points of `Renderer.landmarks`, left and right of the person.
POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
LID = 0.65  # of the action that raises the lower lid, taken back when the gaze is 20 degrees down
PUPILS = np.radians((5, 16))  # smallest and largest half angle seen from the eye's centre


@dataclass
class Pose:
    """The part of a person that changes from frame to frame; angles in radians."""

    head: Array  # (3, 3) rotation from a head that faces the camera to the ray frame
    gaze: Array  # (3,) unit vector of the gaze in the ray frame, from between the eyes to the target
    vergence: float = 0.0  # inward turn of each eye towards a target that is not at infinity
    blink: float = 0.0  # 0 open, 1 shut
    actions: dict[str, float] = field(default_factory=dict)
    torso: float = 0.0  # yaw of the body in the ray frame


@dataclass
class View:
    """Where the camera is, and the part of its picture that is a crop."""

    roll: float  # the camera's, in radians, by which the head appears turned
    distance: float  # from camera to head, metres
    box: Array  # (4,) left, bottom, right, top of the crop in metres on the image's axes at the head's distance
    size: tuple[int, int]  # width and height of the crop, pixels

    @property
    def extent(self) -> float:
        """Larger side of the box, metres."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


class Renderer:
    """Off-screen renderer of identities. The scene is built once; only points and colours change."""

    def __init__(self) -> None:
        import pyvista
        import vtk

        pv: Any = pyvista  # pyvista's annotations are stricter than its code
        self.pv, self.vtk = pv, vtk
        self.model = head_model()
        self.environment = environment_directions()
        self.plotter = pv.Plotter(off_screen=True, window_size=[SIDE, SIDE], lighting="none")
        self.plotter.ren_win.SetAlphaBitPlanes(1)
        self.plotter.ren_win.SetMultiSamples(0)  # the picture is larger than the crop, which already antialiases
        self.plotter.set_background("black")
        self.plotter.renderer.SetBackgroundAlpha(0.0)
        ball, ball_triangles, _ = eye_mesh(PUPILS[0])
        count = len(ball)
        self.eye_triangles = np.concatenate([ball_triangles, ball_triangles + count])
        self.skin_mesh = self._mesh(self.model.template[self.model.source], self.model.triangles)
        self.skin_mesh.GetPointData().SetTCoords(self._vtk(self.model.uv.astype(np.float32)))
        self.eye_polydata = self._mesh(np.concatenate([ball, ball]), self.eye_triangles)
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
        """Release the window."""
        self.plotter.close()

    def set_identity(self, who: Identity) -> None:
        """Build the shape, skin, hair and clothes of a person."""
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
        """Return the head's extent without its neck on the image's axes: left, bottom, right, top, in metres."""
        points = self.points[
            (self.points[:, 2] > self.eyes[0, 2] - 0.118 * self.scale) & (np.abs(self.points[:, 0]) < 0.08 * self.scale)
        ]
        seen = points @ (rotation(0, 0, roll) @ pose.head @ HEAD_TO_RAY).T
        return np.array([seen[:, 0].min(), seen[:, 1].min(), seen[:, 0].max(), seen[:, 1].max()])

    def landmarks(self, pose: Pose) -> tuple[Array, Array]:
        """Return `POINTS` as (5, 3) in the ray frame, and how much each faces it (5,)."""
        to_ray = pose.head @ HEAD_TO_RAY
        template = self.model.template
        pick = [
            np.argmin(np.linalg.norm(template - at, axis=1))
            for at in ((0.0, -0.172, 0.690), (0.0255, -0.145, 0.6612), (-0.0255, -0.145, 0.6612))
        ]
        points = np.concatenate([self.eyes + [0, -self.eye_radius, 0], self.points[pick]])
        normals = np.concatenate([np.array([[0.35, -0.9, 0], [-0.35, -0.9, 0]]), self.normals[pick]])
        return points @ to_ray.T, normals @ to_ray[2]

    def render(self, pose: Pose, light: Light, view: View) -> Array:
        """Render the square around a view's box: (SIDE, SIDE, 4) RGBA in 0..1, premultiplied display colour."""
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
        self._eyes(pose, light, arriving, from_ray, (eye_yaw, eye_pitch))

        camera = self.plotter.renderer.GetActiveCamera()
        roll, distance, centre = view.roll, view.distance, (view.box[:2] + view.box[2:]) / 2
        right, up = np.array([np.cos(roll), -np.sin(roll), 0.0]), np.array([np.sin(roll), np.cos(roll), 0.0])
        at = centre[0] * right + centre[1] * up
        camera.SetPosition(*(from_ray @ np.array([0.0, 0.0, distance])))
        camera.SetFocalPoint(*(from_ray @ at))
        camera.SetViewUp(*(from_ray @ up))
        camera.SetViewAngle(float(np.degrees(2 * np.arctan(view.extent / 2 / distance))))
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
            # the lower lid's part, which eyeLookDown lacks and eyeLookUp has: a third of the pupil's way
            lower = LID * float(np.clip(up / 20, -1.2, 0)) * (1 - shut)
            amount["eyeSquint" + side] = amount.get("eyeSquint" + side, 0.0) + lower
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

    def pupil(self, light: Light) -> float:
        """Return the half angle of the pupils seen from the eye's centre, radians: smaller in stronger light."""
        assert self.who is not None
        return float(np.clip(self.who.pupil * strength(light) ** -0.35, *PUPILS))

    def _eyes(self, pose: Pose, light: Light, arriving: Array, from_ray: Array, angles: tuple[float, float]) -> None:
        assert self.who is not None
        who, pupil = self.who, self.pupil(light)
        ball, _, angle = eye_mesh(pupil)
        rng = np.random.default_rng([who.seed, 15])
        fleck = 1 + 0.12 * rng.standard_normal(len(ball))
        limbus = smoothstep(IRIS * 0.78, IRIS, angle)
        iris = who.iris * fleck[:, None] * (1 - 0.5 * limbus)[:, None]
        white = (
            np.array([238.0, 232, 226]) * (1 - 0.10 * smoothstep(0.7, 1.4, angle))[:, None]
            - np.array([0, 14, 14]) * smoothstep(0.6, 1.2, angle)[:, None]
        )
        albedo = np.where((angle < IRIS)[:, None], iris, white)
        albedo = np.where((angle < pupil)[:, None], 9.0, albedo)
        points, colours = [], []
        for k, (yaw, pitch) in enumerate(eye_angles(pose, who, angles)):
            forward = np.array([np.sin(yaw) * np.cos(pitch), -np.cos(yaw) * np.cos(pitch), np.sin(pitch)])
            right = unit(np.cross(forward, [0, 0, 1.0]))
            basis = np.stack([right, np.cross(right, forward), forward])
            outward = ball @ basis
            bulge = 1 + 0.035 * smoothstep(IRIS * 1.1, 0, angle)
            points.append(self.eyes[k] + self.eye_radius * outward * bulge[:, None])
            lids = 0.74 + 0.26 * smoothstep(0.34, -0.12, outward[:, 2] - 0.5 * forward[2])  # the upper lid's shadow
            corners = 1 - 0.35 * smoothstep(0.45, 0.85, np.abs(outward[:, 0]))
            shade = self._soft_light(outward, arriving) * (lids * corners)[:, None] * 0.95
            colour = encode(shade * 0.42 + 0.01) * albedo
            # each lamp is mirrored in the cornea, a sphere of 7.8 mm around a point 5.6 mm in front of the eye's centre
            for lamp, brightness, _ in light.lamps:
                half = unit(from_ray @ unit(lamp + np.array([0, 0, 1.0])))
                at = unit(0.0056 * forward + 0.0078 * half)
                spot = np.exp(-((np.arccos(np.clip(outward @ at, -1, 1)) / 0.10) ** 2))
                colour = colour + 255 * spot[:, None] * np.clip(brightness * 0.28, 0, 0.8)
            colours.append(colour)
        self._update(self.eye_polydata, np.concatenate(points), np.concatenate(colours))

    @staticmethod
    def _update(mesh: Any, points: Array | None, colours: Array) -> None:
        if points is not None:
            mesh.points = points.astype(np.float32)
        mesh["rgb"] = np.clip(colours, 0, 255).astype(np.uint8)


def eye_angles(pose: Pose, who: Identity, angles: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    """Return yaw and pitch of the left and the right eye for a gaze of `angles`, relative to the head, radians."""
    yaw, pitch = angles
    eyes = [(yaw - pose.vergence, pitch), (yaw + pose.vergence, pitch)]
    other = 1 - who.leading
    eyes[other] = eyes[other][0] + who.deviation[0], eyes[other][1] + who.deviation[1]
    return tuple(eyes)


def eye_in_head(pose: Pose) -> tuple[float, float]:
    """Return yaw and pitch of the gaze relative to the head, radians."""
    gaze = pose.head.T @ pose.gaze
    return float(np.arctan2(gaze[0], gaze[2])), float(np.arcsin(np.clip(gaze[1], -1, 1)))


def limit_gaze(
    head: Array, gaze: Array, yaw_limit: float = np.radians(32), pitch_limit: float = np.radians(24)
) -> Array:
    """Clip `gaze` (3,) to the range of the eyes in a head turned by `head` (3, 3)."""
    local = head.T @ gaze
    yaw, pitch = np.arctan2(local[0], local[2]), np.arcsin(np.clip(local[1], -1, 1))
    return head @ direction(np.clip(yaw, -yaw_limit, yaw_limit), np.clip(pitch, -pitch_limit, pitch_limit))


@functools.cache
def process_renderer() -> Renderer:
    """Return this process's renderer; limits BLAS to one thread, which is faster for matrices this small."""
    threadpool_limits(1, "blas")
    return Renderer()


def shoot(renderer: Renderer, pose: Pose, light: Light, view: View, shot: Shot) -> bytes:
    """Photograph the box of `view` and return the JPEG."""
    rgba = renderer.render(pose, light, view)
    left, bottom, right, top = view.box
    return photograph(rgba, ((right - left) / view.extent, (top - bottom) / view.extent), view.size, shot)


def landmarks_in_crop(renderer: Renderer, pose: Pose, view: View) -> tuple[Array, Array]:
    """Return `POINTS` (5, 3) in crop units (x right, y down, z to the camera) and how much they face it (5,)."""
    points, facing = renderer.landmarks(pose)
    seen = points @ rotation(0, 0, view.roll).T
    seen[:, :2] *= (view.distance / (view.distance - seen[:, 2]))[:, None]
    left, bottom, right, top = view.box
    width, height = right - left, top - bottom
    return np.stack([(seen[:, 0] - left) / width, (top - seen[:, 1]) / height, seen[:, 2] / width], 1), facing
