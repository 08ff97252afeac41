"""Crops of random poses, with the true angles and landmarks, to pretrain a backbone on."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np

from tools.synthlam.camera import Shot, make_backdrop, sample_camera, sample_occluder
from tools.synthlam.geometry import angles_of, direction, rotation
from tools.synthlam.identity import sample_identity
from tools.synthlam.light import sample_light
from tools.synthlam.renderer import (
    Pose,
    View,
    eye_angles,
    eye_in_head,
    landmarks_in_crop,
    limit_gaze,
    process_renderer,
    shoot,
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
    """Write crops of people from no split, with their true angles and landmarks.

    `out/shard_%05d.npz` holds up to 1,000 crops: `jpeg` (all files concatenated, uint8), `offsets` (n + 1,), `targets`
    (n, len(names)) float32 and `names`. Angles are radians; head angles are relative to the line to the camera
    and include the camera's roll; eye angles are relative to the head; landmarks are in crop units (0..1, y down). The
    LAM label is not among them. A shard depends on the seed and its number only, not on `workers`. Existing
    shards are kept.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    jobs = [(seed, k, min(SHARD, count - k * SHARD), out) for k in range((count + SHARD - 1) // SHARD)]
    jobs = [job for job in jobs if not (out / f"shard_{job[1]:05d}.npz").exists()]
    if workers == 1:
        for job in jobs:
            pretraining_shard(job)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for _ in pool.imap_unordered(pretraining_shard, jobs):
            pass


def random_pose(rng: np.random.Generator, distance: float) -> tuple[Pose, float]:
    """Draw a pose and the camera's roll from a broad distribution with many gazes at and near the camera."""
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


def pretraining_shard(job: tuple[int, int, int, Path]) -> None:
    """Write one shard; `job` is the seed, the shard's number, its crops and the folder."""
    seed, number, count, out = job
    rng = np.random.default_rng([seed, number, 21])
    renderer = process_renderer()
    files: list[bytes] = []
    rows: list[list[float]] = []
    while len(files) < count:
        identity = (
            10_000_000 + seed * 100_000 + number * 100 + len(files) // PER_IDENTITY
        )  # above the numbers of all splits
        who = sample_identity(identity, renderer.model.shape_labels)
        renderer.set_identity(who)
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
            view = View(roll, distance, box, size)
            files.append(shoot(renderer, pose, light, view, Shot(behind, camera, rng, occluder)))
            seen_head = rotation(0, 0, roll) @ pose.head
            left_eye, right_eye = eye_angles(pose, who, eye_in_head(pose))
            marks, _ = landmarks_in_crop(renderer, pose, view)
            a = pose.actions
            rows.append(
                [
                    *angles_of(seen_head),
                    *left_eye,
                    *right_eye,
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
