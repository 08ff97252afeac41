"""The light that falls on the faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.synthlam.geometry import Array, direction, unit
from tools.synthlam.head_model import DIRECTIONS, environment_directions


@dataclass
class Light:
    """The light of a place in the ray frame: a gradient from ground to sky, and lamps or windows."""

    sky: Array  # (3,) linear radiance from above
    ground: Array  # (3,)
    lamps: list[tuple[Array, Array, float]]  # direction (3,), colour (3,), concentration


def sample_light(rng: np.random.Generator) -> Light:
    """Draw indoor light: weak and soft from all sides, and one to three lamps or windows."""
    warm = np.array([1.0, 0.9, 0.76]) ** rng.uniform(-0.6, 1.2)
    sky = rng.uniform(0.25, 0.7) * np.ones(3) * warm**0.5
    lamps = []
    for k in range(int(rng.integers(1, 4))):
        towards = direction(rng.uniform(-2.4, 2.4) if k else rng.uniform(-1.3, 1.3), rng.uniform(0.0, 1.3))
        lamps.append(
            (towards, rng.uniform(0.8, 3.2) * (warm if rng.random() < 0.7 else warm[::-1]), float(rng.uniform(3, 14)))
        )
    light = Light(sky, sky * rng.uniform(0.25, 0.7) * [1, 0.95, 0.88], lamps)
    # the camera exposes for the room, so the light on a face that looks at the camera varies threefold
    gain = rng.uniform(1.0, 2.6) / strength(light)
    return Light(light.sky * gain, light.ground * gain, [(d, c * gain, t) for d, c, t in lamps])


def strength(light: Light) -> float:
    """Return the light on a face that looks at the camera, with the camera's exposure as the unit."""
    ahead = np.clip(environment_directions() @ unit(np.array([0, 0.15, 1.0])), 0, None) * (4 / DIRECTIONS)
    return float((ahead @ radiance(light, environment_directions())).mean())


def radiance(light: Light, towards: Array) -> Array:
    """Return the light (N, 3) arriving from unit directions (N, 3) of the ray frame."""
    up = (towards[:, 1:2] + 1) / 2
    out = light.ground * (1 - up) + light.sky * up
    for lamp, colour, tight in light.lamps:
        out = out + colour * np.exp(tight * (towards @ lamp - 1))[:, None]
    return out


def encode(linear: Array) -> Array:
    """Encode linear light as display values, both 0..1, by a 2.2 power, so that encoding commutes with products."""
    return np.clip(linear, 0, 1) ** (1 / 2.2)
