"""The people of SynthLAM: everything about a person that does not change from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.synthlam.geometry import Array

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


SQUINT = 0.03  # share of people who squint


@dataclass(frozen=True)
class Identity:
    """A person; colours are sRGB in 0..255, lengths in metres."""

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
    lid: float  # how far the lids are closed at rest
    age: float
    pupil: float  # half angle seen from the eye's centre, in light of strength one
    leading: int  # the eye that meets the target: 0 left, 1 right
    deviation: tuple[float, float]  # yaw and pitch of the other eye from its target, radians


def sample_identity(seed: int, shape_labels: list[str]) -> Identity:
    """Draw a person from `seed`; `shape_labels` are anny's local changes."""
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
        pupil=float(np.radians(np.clip(rng.normal(11.5 - 3 * (age - 0.5), 1.3), 7, 15))),  # smaller in the old
        leading=int(rng.integers(2)),
        deviation=_deviation(rng),
    )


def _deviation(rng: np.random.Generator) -> tuple[float, float]:
    """Draw the angles by which the eye that does not lead misses the target."""
    yaw, pitch = rng.normal(0, np.radians(1.0)), rng.normal(0, np.radians(0.4))
    if rng.random() < SQUINT:
        yaw += np.radians(rng.uniform(6, 14)) * rng.choice([-1, 1])
    return float(yaw), float(pitch)
