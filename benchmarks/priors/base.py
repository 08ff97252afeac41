"""What a prior provider is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from registry import PRIORS, UserError

#: The landmarks, in the order of the files; left and right are the person's.
LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")

_MIRRORED = [1, 0, 2, 4, 3]  # places of `LANDMARKS` in a mirrored crop


class Priors(NamedTuple):
    """What an estimator says of N crops.

    Attributes:
        head_pose: ``(N, 3)`` float32, yaw, pitch and roll in degrees, NaN where unknown. Yaw is positive towards the
            right of the image, pitch upwards, roll anticlockwise; all are zero for a head that faces the camera.
        landmarks: ``(N, 5, 3)`` float32, x, y and confidence of `LANDMARKS`; x and y (downwards) are relative to the
            mid-point of the eyes in units of the crop, NaN where unknown, and the confidence in [0, 1] is 0 there.
    """

    head_pose: np.ndarray
    landmarks: np.ndarray

    def mirrored(self) -> Priors:
        """Return what the estimator would say of the crops mirrored left to right."""
        pose = self.head_pose * np.array([-1, 1, -1], dtype=np.float32)
        return Priors(pose, self.landmarks[:, _MIRRORED] * np.array([-1, 1, 1], dtype=np.float32))


class Prior:
    """A provider of priors for the crops of one data set.

    A plug-in registers a subclass that takes `root`, `cache` and its own arguments, annotated, and answers `read` and
    `fingerprint`.

    Args:
        root: the data set's root, which the crops' paths are relative to.
        cache: folder of this data set's own where a provider that computes keeps its answers.
    """

    #: How a user comes by these priors: half a sentence for the message of a recipe that lacks them.
    how = ""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root = Path(root)
        self.cache = Path(cache)

    def read(self, frames: pd.DataFrame) -> Priors:
        """Answer for the N rows of a FrameTable.

        Raises:
            UserError: the priors cannot be read or made; says what to do.
        """
        raise NotImplementedError

    def fingerprint(self) -> dict[str, Any]:
        """What decides the answers besides the crops themselves, ready for JSON."""
        raise NotImplementedError


def lacking(recipe: str, needs: Sequence[str]) -> UserError:
    """The error of a recipe that names no provider of the priors its head needs: says which there are."""
    ways = "; ".join(f"{name}: {getattr(PRIORS.get(name), 'how', '')}".rstrip(": ") for name in PRIORS)
    return UserError(
        f"recipe {recipe}: its head needs {' and '.join(needs)}, and no provider of priors is named; "
        f"add --set priors=NAME with one of these names - {ways}"
    )
