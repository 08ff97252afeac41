"""Errors of predicted renderer parameters."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tools.pretraining.renders import NAMES
from tools.synthlam.geometry import direction, rotation

SIZES = ((0, 40), (40, 70), (70, 1000))  # pixels, the crop's larger side
FINER_SIZES = ((0, 40), (40, 55), (55, 70), (70, 90), (90, 1000))
HELD_OUT = {
    "held_out_renders": "held-out renders, people unseen in training",
    "held_out_clips": "rendered clips, people unseen in training",
}


def gaze_directions(targets: np.ndarray) -> np.ndarray:
    """Return unit vectors ``(N, 3)`` of the gaze of both eyes together, seen from the camera."""
    column = {name: targets[:, index] for index, name in enumerate(NAMES)}
    yaw = (column["left_eye_yaw"] + column["right_eye_yaw"]) / 2
    pitch = (column["left_eye_pitch"] + column["right_eye_pitch"]) / 2
    heads = np.stack([rotation(*angles) for angles in targets[:, :3]])
    return np.einsum("nij,nj->ni", heads, direction(yaw, pitch))


def gazes(targets: Tensor) -> Tensor:
    """Return unit vectors ``(B, 3)`` of the gaze, seen from the camera; the third component points towards it."""
    return torch.from_numpy(gaze_directions(targets.numpy().astype(np.float64)).astype(np.float32))


def degrees_between(found: Tensor, true: Tensor) -> np.ndarray:
    """Return the angles ``(B,)`` between unit vectors ``(B, 3)``, in degrees."""
    return torch.rad2deg((found * true).sum(1).clamp(-1, 1).acos()).numpy()


def by_size(targets: Tensor) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of each of `FINER_SIZES` that occurs, such as `40 to 55 px`, and which crops have that size."""
    side = targets[:, NAMES.index("log_size")].exp().numpy()
    for low, high in FINER_SIZES:
        inside = (side >= low) & (side < high)
        if inside.any():
            yield f"{low} to {high} px" if high < 1000 else f"from {low} px", inside


def errors_of(predicted: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """Return the median error of each target (angles in degrees, other targets in their own units) and of the gaze."""
    report: dict[str, Any] = {}
    spread = np.median(np.abs(targets - np.median(targets, 0)), 0)
    for index, name in enumerate(NAMES):
        error = np.abs(predicted[:, index] - targets[:, index])
        unit = 180 / math.pi if name.endswith(("yaw", "pitch", "roll")) else 1.0
        residual = ((predicted[:, index] - targets[:, index]) ** 2).mean() / max(targets[:, index].var(), 1e-12)
        report[name] = {
            "median_error": round(float(np.median(error) * unit), 4),
            "median_error_of_guessing": round(float(spread[index] * unit), 4),
            "r2": round(float(1 - residual), 4),
        }
    return report | {"gaze_degrees": _gaze_errors(predicted, targets)}


def _gaze_errors(predicted: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    gaze = gaze_directions(targets)

    def errors(guess: np.ndarray) -> np.ndarray:
        return np.degrees(np.arccos((gaze_directions(guess) * gaze).sum(1).clip(-1, 1)))

    angle = errors(predicted)
    guessed = errors(np.broadcast_to(np.median(targets, 0), targets.shape))
    report = {
        "median_error": round(float(np.median(angle)), 3),
        "median_error_of_guessing": round(float(np.median(guessed)), 3),
    }
    size = np.exp(targets[:, NAMES.index("log_size")])
    for low, high in SIZES:
        chosen = (size >= low) & (size < high)
        if chosen.any():
            key = f"median_error_{low}_to_{high}_px" if high < 1000 else f"median_error_from_{low}_px"
            report[key] = round(float(np.median(angle[chosen])), 3)
    return report


def linear_probe(features: np.ndarray, targets: np.ndarray, groups: int = 2) -> np.ndarray:
    """Predict ``targets`` from ``features`` by ridge regression, each contiguous part from the other parts.

    Renders of one person are adjacent, so contiguous parts share at most one person.
    """
    x = (features - features.mean(0)) / (features.std(0) + 1e-6)
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    predicted = np.empty_like(targets)
    part = np.arange(len(x)) * groups // len(x)
    for group in range(groups):
        a, b = x[part != group], targets[part != group]
        predicted[part == group] = x[part == group] @ np.linalg.solve(a.T @ a + 1.0 * np.eye(a.shape[1]), a.T @ b)
    return predicted
