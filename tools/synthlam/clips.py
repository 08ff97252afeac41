"""The clips of the data set: which there are in each split, and their crops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.synthlam import scene
from tools.synthlam.camera import Defects, Occluder, make_backdrop, sample_camera, sample_occluder
from tools.synthlam.geometry import Array, angles_of, rotation, unit
from tools.synthlam.identity import sample_identity
from tools.synthlam.light import Light, sample_light
from tools.synthlam.renderer import Pose, Renderer, eye_in_head, landmarks_in_crop, process_renderer, shoot

SPLITS = {"train": 62, "val": 17, "test": 29}  # clips
MOST_TIMES = 999 // SPLITS["train"]
PEOPLE = (2, 1, 3, 2)  # per clip, repeating
MIN_SIDE, MAX_SIDE = 22, 112  # the detector finds nothing smaller; crops are never larger


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
    landmarks: list[list[float]] | None


def plan(seed: int, times: int = 1) -> dict[str, list[scene.Clip]]:
    """Plan the clips of the three splits, with no person in two splits; `times` multiplies the training clips.

    A clip without a look is drawn again, because Ego4D lists only clips with at least one. If the share of looking
    frames of a split is outside 14.5 to 15.7 %, its clips are redrawn one by one, keeping each that brings it nearer.
    """
    if not 0 <= seed < 90:
        raise ValueError(f"seed {seed}: must be 0..89, or identities overlap with those of the pretraining renders")
    if not 1 <= times <= MOST_TIMES:
        raise ValueError(f"times {times}: must be 1..{MOST_TIMES}, because clip numbers have three digits")
    out = {}
    for number, (split, count) in enumerate(SPLITS.items()):
        count *= times if split == "train" else 1

        def draw(k: int, attempt: int, split: str = split, number: int = number) -> scene.Clip:
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
        while not 0.145 <= (rate := looking_share(clips)) <= 0.157:
            attempt += 1
            other = [*clips]
            other[attempt % count] = draw(attempt % count, attempt)
            if abs(looking_share(other) - 0.151) < abs(rate - 0.151):
                clips = other
        out[split] = clips
    return out


def looking_share(clips: list[scene.Clip]) -> float:
    """Return the share of frames labelled as looking."""
    return float(np.concatenate([p.labels for c in clips for p in c.people]).mean())


def render_clip(clip: scene.Clip, split: str, every: int = 1) -> list[Crop]:
    """Render all rows of a clip, or those of every `every`-th frame; independent of what was rendered before."""
    renderer = process_renderer()
    rng = np.random.default_rng([clip.seed, 41])
    room, base, backdrop = sample_light(rng), sample_camera(rng), make_backdrop(rng)
    base.noise *= 0.6  # a video codec removes more noise than the single JPEG pass here
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
    clip: scene.Clip,
    person: scene.Person,
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
        luck = rng.random(8)  # always drawn, so that one decision does not shift the draws of the next
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
            if luck[3] < 0.004:  # Ego4D's annotations have boxes without area, which have no picture
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
