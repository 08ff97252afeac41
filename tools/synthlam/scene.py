"""Behaviour in SynthLAM: clips of one to three people in front of a head-worn camera, their gaze and the labels.

World: x to the wearer's right, y up, -z ahead, metres; the wearer's head starts at the origin. All draws come
from `numpy.random.Generator`s seeded by the clip, so a clip does not depend on the others. Angles are radians unless
named `_deg`. Rendering is in `clips`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tools.synthlam.geometry import Array, unit

RATE = 30  # frames per second, as Ego4D
SECONDS = (2.0, 2.6)  # length of a clip
FRAME_SIZE = (1920, 1080)
FOCAL = 560.0  # pixels: 119 degrees across, a wide-angle action camera
HEAD = 0.29  # metres, about the larger side of a detector's box
LOOKING_DEG = 6.0  # the gaze axis passes the camera within this angle
CONFUSION_DEG = 0.7  # annotators' error on a steady gaze, plus CONFUSION_PX / (larger side of the crop)
CONFUSION_PX = 28.0
NEAR_DEG = (10, 24)  # gazes that just miss: how far beside the wearer's face they go
FIXATION = (0.2, 2.5)  # seconds
SPEAKER = (0.7, 3.0)  # seconds until another person speaks
SMILE = 1.3  # seconds until a smile may change
BLINK = (0.3, 0.8, 1.0, 0.9, 0.6, 0.25)  # lids of a blink, frame by frame: 0.2 s
HOLE = round(0.13 * RATE)  # frames; annotators close holes in a look up to this length
SHORTEST = round(0.27 * RATE)  # frames; annotators drop most shorter looks
HEAD_SHARE = (0.45, 1.0)  # part of a turn of the gaze that the head takes over, by person
EYE_YAW, EYE_PITCH = np.radians(30), np.radians(22)  # how far eyes turn in the head
TARGETS = ("camera", "near", "partner", "hands", "own", "away")


@dataclass
class Fixation:
    """One steady gaze of a person: frames start..end (end excluded)."""

    start: int
    end: int
    target: str
    offset: Array  # (3,) metres from the target, or a fixed direction for "away"
    other: int = -1


@dataclass
class Person:
    """One partner through a clip of F frames; arrays are world coordinates unless named otherwise."""

    name: str
    identity: int
    position: Array  # (F, 3) of the middle of the head
    gaze: Array  # (F, 3) unit vectors
    head: Array  # (F, 3, 3) columns: the person's left, up, ahead
    torso: Array  # (F,) yaw
    blink: Array  # (F,)
    actions: dict[str, Array]  # (F,) each
    gaze_angle: Array  # (F,) between the gaze and the line to the camera
    nearness: Array  # (F,) 1 / metres to the point where the eyes meet
    fixations: list[Fixation]
    speaking: Array  # (F,)
    labels: Array = field(default_factory=lambda: np.zeros(0, np.int64))  # (F,) annotators' 0 or 1
    segments: list[tuple[int, int]] = field(default_factory=list)  # first and last frame of each look, both included


@dataclass
class Clip:
    """A clip of F frames, before rendering."""

    name: str
    seed: int
    first_frame: int  # of the video
    camera: Array  # (F, 3)
    camera_turn: Array  # (F, 3, 3) columns: right, up, back
    people: list[Person]
    exposure: float  # share of the frame's time that the shutter is open

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.camera)


def basis(ahead: Array, roll: float = 0.0) -> Array:
    """Return columns left, up and ahead, as seen by a person who faces `ahead`, with up nearest to the world's."""
    left = unit(np.cross([0.0, 1.0, 0.0], ahead))
    up = np.cross(ahead, left)
    if roll:
        left, up = np.cos(roll) * left + np.sin(roll) * up, np.cos(roll) * up - np.sin(roll) * left
    return np.stack([left, up, ahead], axis=1)


def wander(rng: np.random.Generator, frames: int, size: float, seconds: float) -> Array:
    """Draw a mean-reverting random walk (F,) with standard deviation `size` and time constant `seconds`."""
    keep = np.exp(-1 / (seconds * RATE))
    out = np.empty(frames)
    value = rng.normal(0, size)
    for t in range(frames):
        out[t] = value
        value = keep * value + np.sqrt(1 - keep**2) * rng.normal(0, size)
    return out


def ease(values: Array, seconds: float) -> Array:
    """Apply a first-order lag along the first axis."""
    rate = 1 - np.exp(-1 / (seconds * RATE))
    out = values.astype(float).copy()
    for t in range(1, len(out)):
        out[t] = out[t - 1] + rate * (values[t] - out[t - 1])
    return out


def _camera_motion(rng: np.random.Generator, frames: int, towards: float) -> tuple[Array, Array]:
    calm = rng.uniform(0.4, 1.6)
    t = np.arange(frames) / RATE
    yaw, pitch = wander(rng, frames, np.radians(4) * calm, 1.5), wander(rng, frames, np.radians(2.5) * calm, 1.5)
    for _ in range(rng.poisson(0.5 * frames / (3 * RATE))):  # the wearer turns to look elsewhere
        yaw += np.radians(rng.normal(0, 14)) / (1 + np.exp(-(t - rng.uniform(0, t[-1])) / 0.10))
    walking = rng.random() < 0.25
    step = 2 * np.pi * rng.uniform(1.6, 2.1) * t
    bob = walking * np.radians(rng.uniform(0.5, 1.2))
    yaw, pitch = ease(yaw, 0.12), ease(pitch, 0.12) + bob * np.sin(step)
    roll = wander(rng, frames, np.radians(4), 2.0) + 0.6 * bob * np.sin(step / 2) + np.radians(rng.normal(0, 2))
    yaw = yaw - np.average(yaw) * 0.5 + towards
    place = np.stack(
        [wander(rng, frames, 0.03, 1.5), wander(rng, frames, 0.015, 1.5), wander(rng, frames, 0.03, 1.5)], 1
    )
    place[:, 2] -= walking * 0.06 * t
    place[:, 1] += walking * 0.02 * np.sin(step)
    turns = []
    for a, b, c in zip(yaw, pitch + np.radians(rng.normal(-4, 4)), ease(roll, 0.1), strict=True):
        back = np.array([-np.sin(a) * np.cos(b), -np.sin(b), np.cos(a) * np.cos(b)])
        right = unit(np.cross([0.0, 1, 0], back))
        up = np.cross(back, right)
        turns.append(np.stack([np.cos(c) * right - np.sin(c) * up, np.cos(c) * up + np.sin(c) * right, back], 1))
    return place, np.stack(turns)


def _fixations(
    rng: np.random.Generator, frames: int, weights: Array, partners: list[int], distance: float
) -> list[Fixation]:
    out: list[Fixation] = []
    t, last = -int(rng.uniform(0, 0.8) * RATE), ""
    while t < frames:
        p = weights.copy()
        if not partners:
            p[2] = 0
        if last in TARGETS and last != "away":
            p[TARGETS.index(last)] *= 0.35
        target = str(rng.choice(TARGETS, p=p / p.sum()))
        long = 0.85 if target == "camera" else 0.62
        seconds = float(np.clip(np.exp(rng.normal(np.log(long), 0.6)), *FIXATION))
        other = int(rng.choice(partners)) if target == "partner" else -1
        if target == "camera":  # the wearer's face: the camera sits on the forehead or the temple
            offset = np.array([rng.normal(0, 0.03), rng.normal(-0.045, 0.03), 0])
        elif target == "near":  # someone beside the wearer, the wearer's shoulder, the room behind
            angle, around = np.radians(rng.uniform(*NEAR_DEG)), rng.uniform(0, 2 * np.pi)
            offset = distance * np.tan(angle) * np.array([np.cos(around), 0.75 * np.sin(around), 0])
        elif target == "hands":
            offset = np.array([rng.normal(0, 0.14), -rng.uniform(0.3, 0.6), -rng.uniform(0.25, 0.55)])
        elif target == "own":
            offset = np.array([rng.normal(0, 0.12), -rng.uniform(0.32, 0.5), rng.uniform(0.3, 0.5)])
        elif target == "partner":
            offset = rng.normal(0, 0.03, 3)
        else:
            offset = np.array([rng.uniform(-1.3, 1.3), rng.normal(-0.05, 0.16), 0])  # yaw and pitch from the torso's
        end = t + round(seconds * RATE)
        if end > 0:
            out.append(Fixation(max(t, 0), min(end, frames), target, offset, other))
        t, last = end, target
    return out


def simulate(name: str, seed: int, identities: list[int]) -> Clip:
    """Simulate a clip with one person for each of `identities`."""
    rng = np.random.default_rng([seed, 31])
    frames = round(rng.uniform(*SECONDS) * RATE)
    count = len(identities)
    sociable = rng.choice([0.25, 1.0, 2.4], p=[0.3, 0.45, 0.25])  # some talk to the wearer, some rarely look
    middle = rng.normal(0, 0.12)
    spread = rng.uniform(0.30, 0.55)
    azimuth = middle + spread * (np.arange(count) - (count - 1) / 2) + rng.normal(0, 0.04, count)
    camera, turn = _camera_motion(rng, frames, middle)
    pixels = np.clip(np.exp(rng.normal(np.log(62), 0.32) + rng.normal(0, 0.16, count)), 26, 82)
    distance = FOCAL * HEAD / pixels
    height = rng.normal(-0.03, 0.12) + rng.normal(0, 0.08, count)
    starts = np.stack([distance * np.sin(azimuth), height, -distance * np.cos(azimuth)], 1)

    talker = np.full(frames, -2)  # the speaker's number; -1 the wearer, -2 silence
    t = 0
    while t < frames:
        length = int(rng.uniform(*SPEAKER) * RATE)
        talker[t : t + length] = rng.integers(-2, count)
        t += length

    places = []
    for k in range(count):
        sway = np.stack([wander(rng, frames, s, 1.5) for s in (0.02, 0.01, 0.02)], 1)
        drift = rng.normal(0, 0.10, 3) * [1, 0, 1] * (rng.random() < 0.35)
        places.append(starts[k] + ease(sway, 0.2) + np.arange(frames)[:, None] / RATE * drift)
    people = []
    for k, identity in enumerate(identities):
        partners = [j for j in range(count) if j != k]
        weights = np.array([0.075 * sociable, 0.17, 0.16, 0.12, 0.15, 0.18]) * np.exp(rng.normal(0, 0.35, len(TARGETS)))
        fixations = _fixations(rng, frames, weights, partners, float(distance[k]))
        gaze = _wanted(rng, fixations, k, places, camera)
        people.append(_move(rng, f"{k + 1}", identity, gaze, talker == k))
    clip = Clip(
        name,
        seed,
        int(rng.choice([0, int(rng.uniform(0, 295) * RATE)], p=[0.08, 0.92])),
        camera,
        turn,
        people,
        float(rng.uniform(0.16, 0.9)),
    )
    for person, px in zip(people, pixels, strict=True):
        person.labels, person.segments = annotate(
            np.random.default_rng([seed, 32, int(person.name)]), person, float(px)
        )
    return clip


@dataclass
class _Wanted:
    """Where a person wants to look through F frames, before head and eyes follow."""

    place: Array  # (F, 3) of the head
    to_camera: Array  # (F, 3) unit vectors
    torso: Array  # (F,) yaw
    direction: Array  # (F, 3) unit vectors
    nearness: Array  # (F,) 1 / metres to the target, 0 for one far away
    fixations: list[Fixation]


def _wanted(rng: np.random.Generator, fixations: list[Fixation], k: int, places: list[Array], camera: Array) -> _Wanted:
    """Find the points that the fixations of person `k` name."""
    place, frames = places[k], len(camera)
    to_camera = unit(camera - place)
    facing = np.arctan2(to_camera[:, 0], to_camera[:, 2]).mean()
    torso = facing + rng.normal(0, np.radians(24)) + wander(rng, frames, np.radians(4), 2.0)
    wanted, nearness = np.empty((frames, 3)), np.zeros(frames)
    for f in fixations:
        span = slice(f.start, f.end)
        if f.target == "away":
            yaw, pitch = torso[span] + f.offset[0], f.offset[1]
            wanted[span] = np.stack(
                [np.sin(yaw) * np.cos(pitch), np.full(len(yaw), np.sin(pitch)), np.cos(yaw) * np.cos(pitch)], 1
            )
            continue
        if f.target == "partner":
            point = places[f.other][span] + f.offset
        elif f.target == "own":
            right = np.cross([0.0, 1.0, 0.0], to_camera[span])
            point = place[span] + f.offset[0] * right + [0, f.offset[1], 0] + f.offset[2] * to_camera[span] * [1, 0, 1]
        else:
            point = camera[span] + f.offset
        wanted[span] = unit(point - place[span])
        nearness[span] = 1 / np.linalg.norm(point - place[span], axis=1)
    return _Wanted(place, to_camera, torso, wanted, nearness, fixations)


def _move(rng: np.random.Generator, name: str, identity: int, wanted: _Wanted, speaking: Array) -> Person:
    """Let head, eyes and face follow the wanted gaze."""
    torso, fixations, frames = wanted.torso, wanted.fixations, len(wanted.place)
    yaw = np.unwrap(np.arctan2(wanted.direction[:, 0], wanted.direction[:, 2]))
    pitch = np.arcsin(np.clip(wanted.direction[:, 1], -1, 1))
    # the head covers part of the turn, late; the eyes do the rest
    share, lag = rng.uniform(*HEAD_SHARE), rng.uniform(0.12, 0.35)
    rest_pitch = rng.normal(-0.02, 0.07)
    goal_yaw = torso + share * (yaw - torso)
    goal_pitch = rest_pitch + share * 0.8 * (pitch - rest_pitch)
    goal_yaw = np.clip(goal_yaw, yaw - 0.9 * EYE_YAW, yaw + 0.9 * EYE_YAW)
    goal_pitch = np.clip(goal_pitch, pitch - 0.9 * EYE_PITCH, pitch + 0.9 * EYE_PITCH)
    late = int(rng.uniform(0, 0.16) * RATE)
    shifted = np.concatenate([np.repeat(goal_yaw[:1], late), goal_yaw[: frames - late]])
    head_yaw = ease(ease(shifted, lag / 2), lag / 2) + wander(rng, frames, np.radians(1.2), 0.6)
    shifted = np.concatenate([np.repeat(goal_pitch[:1], late), goal_pitch[: frames - late]])
    nod = speaking * np.radians(2.0) * np.sin(2 * np.pi * rng.uniform(1.2, 2.2) * np.arange(frames) / RATE)
    head_pitch = ease(ease(shifted, lag / 2), lag / 2) + wander(rng, frames, np.radians(1.0), 0.6) + nod
    head_roll = wander(rng, frames, np.radians(4.5), 1.2) + rng.normal(0, np.radians(3))

    # eyes: large saccades take one to three frames; small errors of fixation wander
    eye_yaw, eye_pitch = yaw.copy(), pitch.copy()
    for t in (f.start for f in fixations[1:]):
        size = np.degrees(np.hypot(yaw[t] - yaw[t - 1], pitch[t] - pitch[t - 1]))
        flight = int((0.021 + 0.0022 * size) * RATE)  # Bahill, Clark and Stark 1975: 21 ms and 2.2 ms per degree
        for i in range(min(flight, frames - t)):
            part = (i + 1) / (flight + 1)
            eye_yaw[t + i] = yaw[t - 1] + part * (yaw[t + i] - yaw[t - 1])
            eye_pitch[t + i] = pitch[t - 1] + part * (pitch[t + i] - pitch[t - 1])
    eye_yaw += wander(rng, frames, np.radians(0.8), 0.3)
    eye_pitch += wander(rng, frames, np.radians(0.8), 0.3)
    eye_yaw = np.clip(eye_yaw, head_yaw - EYE_YAW, head_yaw + EYE_YAW)
    eye_pitch = np.clip(eye_pitch, head_pitch - EYE_PITCH, head_pitch + EYE_PITCH)
    gaze = np.stack([np.sin(eye_yaw) * np.cos(eye_pitch), np.sin(eye_pitch), np.cos(eye_yaw) * np.cos(eye_pitch)], 1)
    ahead = np.stack(
        [np.sin(head_yaw) * np.cos(head_pitch), np.sin(head_pitch), np.cos(head_yaw) * np.cos(head_pitch)], 1
    )
    heads = np.stack([basis(a, r) for a, r in zip(ahead, head_roll, strict=True)])

    blink = np.zeros(frames)
    begins = set(np.flatnonzero(rng.random(frames) < 0.2 / RATE).tolist())
    begins |= {f.start for f in fixations[1:] if rng.random() < 0.1}
    for t in begins:
        for i, shut in enumerate(BLINK[: frames - t]):
            blink[t + i] = max(blink[t + i], shut)
    mouth = np.clip(np.abs(wander(rng, frames, 0.32, 0.12)), 0, 0.6) * speaking
    steady = round(SMILE * RATE)
    smile = np.clip(ease(np.repeat(rng.choice([0, 0, 0.4, 0.9], -(-frames // steady)), steady)[:frames], 0.4), 0, 1)
    brow = ease(wander(rng, frames, 0.3, 1.0), 0.2)
    actions = dict(
        jawOpen=mouth,
        mouthFunnel=np.clip(wander(rng, frames, 0.4, 0.15), 0, 0.7) * speaking,
        mouthStretchLeft=np.clip(wander(rng, frames, 0.3, 0.15), 0, 0.5) * speaking,
        mouthStretchRight=np.clip(wander(rng, frames, 0.3, 0.15), 0, 0.5) * speaking,
        mouthSmileLeft=smile,
        mouthSmileRight=smile * rng.uniform(0.8, 1),
        cheekSquintLeft=0.6 * smile,
        cheekSquintRight=0.6 * smile,
        eyeSquintLeft=0.5 * smile,
        eyeSquintRight=0.5 * smile,
        browInnerUp=np.clip(brow, 0, 1),
        browDownLeft=np.clip(-brow, 0, 1),
        browDownRight=np.clip(-brow, 0, 1),
    )
    angle = np.arccos(np.clip((gaze * wanted.to_camera).sum(1), -1, 1))
    nearness = ease(wanted.nearness, 0.08)  # eyes turn inwards more slowly than they turn together
    return Person(
        name, identity, wanted.place, gaze, heads, torso, blink, actions, angle, nearness, fixations, speaking
    )


def runs(mask: Array) -> list[tuple[int, int]]:
    """Return the first and last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def annotate(rng: np.random.Generator, person: Person, pixels: float) -> tuple[Array, list[tuple[int, int]]]:
    """Return labels (F,) with an annotator's errors, and their segments.

    1. A look is a run of frames whose gaze axis passes the camera within LOOKING_DEG.
    2. Annotators misjudge a steady gaze, more so on small faces: each fixation gets an error towards or away from the
       camera, so that some near misses become looks and some looks are missed.
    3. Holes of up to HOLE frames (corrective saccades) are closed; most looks shorter than SHORTEST are dropped.
    4. The ends move by a few frames, the start on average later: annotators take a moment to notice a look.
    """
    frames = len(person.gaze_angle)
    error = np.zeros(frames)
    for f in person.fixations:
        error[f.start : f.end] = rng.normal(0, np.radians(CONFUSION_DEG + CONFUSION_PX / pixels))
    mask = person.gaze_angle + error < np.radians(LOOKING_DEG)
    for a, b in runs(~mask):
        if b - a + 1 <= HOLE and a > 0 and b < frames - 1:
            mask[a : b + 1] = True
    labels, segments = np.zeros(frames, np.int64), []
    for a, b in runs(mask):
        if b - a + 1 < SHORTEST and rng.random() < 0.85:
            continue
        start = a + round(rng.normal(0.045, 0.087) * RATE) if a > 0 else a
        end = b + round(rng.normal(0.02, 0.087) * RATE) if b < frames - 1 else b
        start, end = max(start, 0), min(end, frames - 1)
        if end >= start:
            segments.append((start, end))
            labels[start : end + 1] = 1
    return labels, segments
