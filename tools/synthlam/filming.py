"""From a simulated clip to its rows: what the camera sees of each person, and what a detector makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.priors.base import LANDMARKS
from tools.synthlam import scene
from tools.synthlam.camera import Defects, Occluder, Shot, make_backdrop, sample_camera, sample_occluder
from tools.synthlam.geometry import Array, angles_of, rotation, unit
from tools.synthlam.identity import sample_identity
from tools.synthlam.light import Light, sample_light
from tools.synthlam.renderer import (
    POINTS,
    Pose,
    Renderer,
    View,
    eye_in_head,
    landmarks_in_crop,
    process_renderer,
    shoot,
)

MIN_SIDE, MAX_SIDE = 22, 112  # the detector finds nothing smaller; crops are never larger
NEW_TRACK = round(0.4 * scene.RATE)  # frames; after a longer gap, most people get a new track


@dataclass
class Crop:
    """One row of the data set: a face box in a frame, its picture and the truth about it. Angles in degrees."""

    person: str
    track: str
    frame: int
    box: tuple[float, float, float, float]  # x, y, width, height in the frame
    label: int
    jpeg: bytes | None  # None: annotated, but without a picture
    truth: dict[str, float]
    head_pose: list[float] | None  # with an estimator's errors
    landmarks: list[list[float]] | None  # in the order of `LANDMARKS`, with an estimator's errors


@dataclass
class Take:
    """What the people of a clip share."""

    clip: scene.Clip
    split: str
    every: int  # renders every n-th frame
    room: Light  # in the world
    camera: Defects
    backdrop: Array
    focus: Array  # (F,) log of the factor on defocus
    exposure: Array  # (F,) log of the factor on gain


@dataclass
class Detector:
    """How a detector sees one person through F frames, and what passes in front of the face."""

    margin: float
    aspect: float
    jitter: Array  # (F, 4) of centre and size, relative to the box
    bias: Array  # (2,) of the centre
    present: Array  # (F,)
    cover: Occluder | None
    covered: Array  # (F,)
    path: Array  # (F, 2) of the occluder, in crop widths


@dataclass
class Sight:
    """One person in one frame, as the camera sees them."""

    ray: Array  # (3, 3) from the ray frame to the world
    distance: float  # metres
    roll: float  # the camera's, radians
    middle: Array  # (2,) of the head in the frame, pixels
    pose: Pose

    @property
    def scale(self) -> float:
        """Pixels per metre at the head."""
        return scene.FOCAL / self.distance

    @property
    def head_angles(self) -> tuple[float, float, float]:
        """Yaw, pitch and roll of the head, degrees."""
        yaw, pitch, roll = np.degrees(angles_of(rotation(0, 0, self.roll) @ self.pose.head))
        return float(yaw), float(pitch), float(roll)


@dataclass
class Box:
    """A detection: the full box in the frame, and the part of it inside the frame, which is the crop."""

    full: tuple[float, float, float, float]  # x, y, width, height in pixels
    visible: Array  # (4,) left, top, right, bottom in pixels
    view: View
    fits: float  # 1, or below if the box was shrunk to `MAX_SIDE`

    @property
    def share(self) -> float:
        """Share of the box inside the frame."""
        left, top, right, bottom = self.visible
        return float(max(right - left, 0) * max(bottom - top, 0) / (self.full[2] * self.full[3]))


def render_clip(clip: scene.Clip, split: str, every: int = 1) -> list[Crop]:
    """Render all rows of a clip, or those of every `every`-th frame; independent of what was rendered before."""
    renderer = process_renderer()
    rng = np.random.default_rng([clip.seed, 41])
    room, camera, backdrop = sample_light(rng), sample_camera(rng), make_backdrop(rng)
    camera.noise *= 0.6  # a video codec removes more noise than the single JPEG pass here
    focus, exposure = scene.wander(rng, clip.frames, 0.25, 0.8), scene.wander(rng, clip.frames, 0.12, 1.5)
    take = Take(clip, split, every, room, camera, backdrop, focus, exposure)
    out: list[Crop] = []
    for person in clip.people:
        renderer.set_identity(sample_identity(person.identity, renderer.model.shape_labels))
        out += _film(renderer, take, person)
    return out


def _film(renderer: Renderer, take: Take, person: scene.Person) -> list[Crop]:
    """Render the rows of one person."""
    clip = take.clip
    rng = np.random.default_rng([clip.seed, 42, int(person.name)])
    detector = sample_detector(rng, clip.frames)
    rows: list[Crop] = []
    track = 0
    last: int | None = None
    before: Array | None = None
    for t in range(clip.frames):
        sight = see(clip, person, t)
        moved, before = (sight.middle - before if before is not None else np.zeros(2)), sight.middle
        box = detect(renderer, sight, detector, t)
        if detector.cover is not None:
            detector.cover.at = detector.path[t]
        hidden = bool(detector.covered[t]) and float(np.abs(detector.path[t]).max()) < 0.5
        blurred = np.hypot(*moved) * clip.exposure > 0.12 * box.full[2]
        miss = 0.02 + 0.25 * (abs(sight.head_angles[0]) > 75) + 0.3 * hidden + 0.1 * blurred
        luck = rng.random(8)  # always drawn, so that one decision does not shift the draws of the next
        size = box.view.size
        lost = box.fits < 0.85 or box.share < 0.55 or max(size) < MIN_SIDE or min(size) < 10
        if not detector.present[t] or lost or luck[0] < miss:
            continue
        frame = clip.first_frame + t
        if last is not None and frame - last > NEW_TRACK and luck[1] < 0.6:
            track += 1
        last = frame
        if t % take.every:
            continue
        shot = _shot(take, t, box, rng)
        shot.defects.motion = moved * clip.exposure
        shot.occluder = detector.cover if detector.covered[t] else None
        light = Light(take.room.sky, take.room.ground, [(sight.ray.T @ d, c, k) for d, c, k in take.room.lamps])
        jpeg: bytes | None = shoot(renderer, sight.pose, light, box.view, shot)
        annotated = box.full
        if take.split != "test":
            if luck[2] < 0.012:
                jpeg = None
            if luck[3] < 0.004:  # Ego4D's annotations have boxes without area, which have no picture
                annotated = (annotated[0], annotated[1], -3.0, annotated[3]) if luck[4] < 0.5 else (*annotated[:3], 0.0)
                jpeg = None
        pose, marks = _estimated(renderer, sight, box.view, hidden, rng)
        unknown = luck[5] < 0.02 + 0.15 * (max(size) < 32) + 0.3 * hidden + 0.2 * (abs(sight.head_angles[0]) > 75)
        rows.append(
            Crop(
                person.name,
                f"{clip.name}_person{person.name}_{track}",
                frame,
                annotated,
                int(person.labels[t]),
                jpeg,
                _truth(sight, np.degrees(person.gaze_angle[t]), hidden, shot.defects.motion),
                None if unknown else pose,
                None if luck[6] < 0.5 * unknown else marks,
            )
        )
    return rows


def sample_detector(rng: np.random.Generator, frames: int) -> Detector:
    """Draw a detector's margins and errors for one person, their absences and what hides them."""
    rate = scene.RATE
    margin, aspect = rng.uniform(1.0, 1.22), np.exp(rng.normal(0, 0.03))
    jitter = np.stack([scene.wander(rng, frames, s, 0.1) for s in (0.018, 0.018, 0.025, 0.025)], 1)
    bias = rng.normal(0, 0.02, 2)
    present = np.ones(frames, bool)
    if rng.random() < 0.3:  # enters or leaves
        cut = int(rng.uniform(0.27 * rate, frames / 3))
        present[(slice(None, cut), slice(frames - cut, None))[int(rng.random() < 0.5)]] = False
    if rng.random() < 0.35:
        start = int(rng.uniform(0.33 * rate, frames - 0.8 * rate))
        present[start : start + int(rng.uniform(0.2, 0.65) * rate)] = False
    cover: Occluder | None = None
    covered, path = np.zeros(frames, bool), np.zeros((frames, 2))
    if rng.random() < 0.25:
        cover = sample_occluder(rng)
        start, length = int(rng.uniform(0, frames - 0.4 * rate)), int(rng.uniform(0.33, 1.0) * rate)
        covered[start : start + length] = True
        phase = (np.arange(frames) - start) / length
        side = rng.choice([-1, 1])
        across = np.stack([side * (phase * 2.2 - 1.1), rng.uniform(-0.3, 0.4) + 0 * phase], 1)
        rising = np.stack(
            [rng.uniform(-0.3, 0.3) + 0 * phase, 0.9 - rng.uniform(0.5, 1.1) * np.sin(np.clip(phase, 0, 1) * np.pi)], 1
        )
        path = across if cover.kind != "hand" or rng.random() < 0.4 else rising
    return Detector(float(margin), float(aspect), jitter, bias, present, cover, covered, path)


def see(clip: scene.Clip, person: scene.Person, t: int) -> Sight:
    """Turn frame `t` of a person from the world to the camera."""
    line = clip.camera[t] - person.position[t]
    distance = float(np.linalg.norm(line))
    z = line / distance
    x = unit(np.cross([0.0, 1.0, 0.0], z))
    ray = np.stack([x, np.cross(z, x), z], axis=1)
    up = ray.T @ clip.camera_turn[t][:, 1]
    seen = clip.camera_turn[t].T @ -line
    middle = np.array(scene.FRAME_SIZE) / 2 + scene.FOCAL * np.array([seen[0], -seen[1]]) / -seen[2]
    pose = Pose(
        head=ray.T @ person.head[t],
        gaze=ray.T @ person.gaze[t],
        vergence=float(np.arctan(0.031 * person.nearness[t])),
        blink=float(person.blink[t]),
        actions={name: float(value[t]) for name, value in person.actions.items()},
        torso=float(np.clip((person.torso[t] - np.arctan2(z[0], z[2]) + np.pi) % (2 * np.pi) - np.pi, -1.7, 1.7)),
    )
    return Sight(ray, distance, float(np.arctan2(up[0], up[1])), middle, pose)


def detect(renderer: Renderer, sight: Sight, detector: Detector, t: int) -> Box:
    """Return the detector's box of frame `t`."""
    scale, middle = sight.scale, sight.middle
    tight = renderer.box(sight.pose, sight.roll)
    form = np.array([detector.aspect, 1 / detector.aspect])
    half = (tight[2:] - tight[:2]) / 2 * detector.margin * form * np.exp(detector.jitter[t, 2:])
    fits = min(1.0, MAX_SIDE / (2 * half.max() * scale))
    half *= fits
    centre = (tight[:2] + tight[2:]) / 2 + (detector.bias + detector.jitter[t, :2]) * 2 * half
    left, top = middle[0] + (centre[0] - half[0]) * scale, middle[1] - (centre[1] + half[1]) * scale
    width, height = 2 * half * scale
    wide, high = scene.FRAME_SIZE
    visible = np.array([max(left, 0), max(top, 0), min(left + width, wide), min(top + height, high)])
    at = (visible - np.concatenate([middle, middle])) / scale  # metres, y down
    size = (round(visible[2] - visible[0]), round(visible[3] - visible[1]))
    view = View(sight.roll, sight.distance, np.array([at[0], -at[3], at[2], -at[1]]), size)
    return Box((float(left), float(top), float(width), float(height)), visible, view, float(fits))


def _shot(take: Take, t: int, box: Box, rng: np.random.Generator) -> Shot:
    """Return frame `t`'s backdrop behind a box, and the camera's state."""
    turn = take.clip.camera_turn[t][:, 2]
    pan = scene.FOCAL * np.array([np.arctan2(-turn[0], turn[2]), np.arcsin(np.clip(turn[1], -1, 1))])
    reach = max(box.view.size) / 2
    left, top = ((box.visible[:2] + box.visible[2:]) / 2 + pan) / 2 - reach / 2
    columns, lines = (np.arange(int(start), int(start) + int(reach) + 8) for start in (left, top))
    backdrop = take.backdrop
    defects = replace(
        take.camera,
        defocus=take.camera.defocus * float(np.exp(take.focus[t])),
        gain=take.camera.gain * float(np.exp(take.exposure[t])),
    )
    behind = backdrop[np.clip(lines, 0, len(backdrop) - 1)][:, columns % backdrop.shape[1]]
    return Shot(behind, defects, rng)


def _truth(sight: Sight, gaze_angle: float, hidden: bool, motion: Array) -> dict[str, float]:
    gaze = sight.pose.gaze
    eye_yaw, eye_pitch = np.degrees(eye_in_head(sight.pose))
    yaw, pitch, roll = sight.head_angles
    values = dict(
        gaze_angle=gaze_angle,
        gaze_yaw=np.degrees(np.arctan2(gaze[0], gaze[2])),
        gaze_pitch=np.degrees(np.arcsin(np.clip(gaze[1], -1, 1))),
        head_yaw=yaw,
        head_pitch=pitch,
        head_roll=roll,
        eye_yaw=eye_yaw,
        eye_pitch=eye_pitch,
        blink=sight.pose.blink,
        distance=sight.distance,
        occluded=hidden,
        motion=np.hypot(*motion),
    )
    return {name: round(float(value), 2) for name, value in values.items()}


def _estimated(
    renderer: Renderer, sight: Sight, view: View, hidden: bool, rng: np.random.Generator
) -> tuple[list[float], list[list[float]]]:
    """Return head pose and landmarks with an estimator's errors."""
    pixels, angles = max(view.size), np.array(sight.head_angles)
    spread = (2.0 + 110 / pixels) * (1 + abs(angles[0]) / 90)
    noisy = angles + rng.normal(0, 1, 3) * spread * [1, 0.9, 0.6]
    points, facing = landmarks_in_crop(renderer, sight.pose, view)
    points = points + rng.normal(0, 1, points.shape) * (0.9 / pixels + 0.012)
    confidence = 1 / (1 + np.exp(-(6 * facing + rng.normal(0, 0.8, 5) - 2.5 * hidden)))
    order = [POINTS.index(name) for name in LANDMARKS]
    rows = np.concatenate([points, confidence[:, None]], axis=1)[order]
    marks = [[round(float(v), digits) for v, digits in zip(row, (3, 3, 2, 2), strict=True)] for row in rows]
    return [round(float(v), 1) for v in noisy], marks
