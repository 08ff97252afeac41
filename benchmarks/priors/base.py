"""The interface of priors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from registry import PRIORS, UserError

#: The landmarks in GazePose's order, on which its checkpoints depend; left and right are the person's.
LANDMARKS = ("nose", "left_eye", "right_eye", "left_mouth", "right_mouth")

_MIRRORED = [0, 2, 1, 4, 3]  # places of `LANDMARKS` in a mirrored crop


class Priors(NamedTuple):
    """An estimator's output for N crops.

    Attributes:
        head_pose: ``(N, 3)`` float32, yaw, pitch and roll in degrees, NaN where unknown. Yaw is positive towards the
            right of the image, pitch upwards, roll anticlockwise; all are zero for a head that faces the camera.
        landmarks: ``(N, 5, 3)`` float32, x, y and confidence of `LANDMARKS`; x and y (downwards) are relative to the
            mid-point of the eyes in units of the crop, NaN where unknown, and the confidence in [0, 1] is 0 there.
    """

    head_pose: np.ndarray
    landmarks: np.ndarray

    def mirrored(self) -> Priors:
        """The priors of the crops mirrored left to right."""
        pose = self.head_pose * np.array([-1, 1, -1], dtype=np.float32)
        return Priors(pose, self.landmarks[:, _MIRRORED] * np.array([-1, 1, 1], dtype=np.float32))


class Prior:
    """A source of priors for the crops of one data set.

    A plug-in registers a subclass that takes `root`, `cache` and its own annotated arguments, and implements `read` and
    `fingerprint`.

    Args:
        root: of the data set; crop paths are relative to it.
        cache: folder for computed priors, one per data set.
    """

    #: How to obtain these priors: a phrase for the error message of a recipe without priors.
    how = ""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root = Path(root)
        self.cache = Path(cache)

    def read(self, frames: pd.DataFrame) -> Priors:
        """Read or compute the priors of the N rows of a frame table.

        Raises:
            UserError: the priors cannot be read or computed.
        """
        raise NotImplementedError

    def fingerprint(self) -> dict[str, Any]:
        """JSON values that determine the priors, apart from the crops."""
        raise NotImplementedError


def lacking(recipe: str, needs: Sequence[str]) -> UserError:
    """The error for a recipe that lacks the priors it needs; it lists the available ones."""
    ways = "; ".join(f"{name}: {getattr(PRIORS.get(name), 'how', '')}".rstrip(": ") for name in PRIORS)
    return UserError(f"recipe {recipe}: it needs {' and '.join(needs)}; add --set priors=NAME ({ways})")
