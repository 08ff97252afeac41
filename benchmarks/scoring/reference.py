"""Scores of the reference rows: one score for all frames, or minus an angle to the camera, mapped to [0, 1].

mAP depends on the order of the scores alone, so any falling function of the angle gives the same mAP.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.data.frames import KEY

# Degrees at which a score is 0.5, so accuracy counts smaller angles as looking: SynthLAM's rule for labels.
CONE = 6.0


def chance_scores(count: int) -> np.ndarray:
    """Scores (count,) of chance, all 0.

    Constant scores and not random ones: ties are mixed evenly, so their mAP is that of a ranking that knows nothing,
    without the luck of a draw. At 0 no frame is called looking.
    """
    return np.zeros(count)


def angle_scores(angles: np.ndarray) -> np.ndarray:
    """Scores (N,) of angles (N,) in degrees, 0 to 180: 1 at 0 degrees, 0.5 at `CONE`, falling; 0 where NaN.

    Example:
        >>> angle_scores(np.array([0.0, 6.0, 18.0, np.nan])).tolist()
        [1.0, 0.5, 0.25, 0.0]
    """
    return np.where(np.isnan(angles), 0.0, CONE / (CONE + angles))


def head_angles(head_pose: np.ndarray) -> np.ndarray:
    """Angle between the direction of heads and the line to the camera.

    Turned by yaw and pitch, in either order, a head that faced the camera has cos(yaw) cos(pitch) of its direction left
    on the line to the camera. Roll turns about that direction and changes nothing.

    Args:
        head_pose: (N, 3) yaw, pitch and roll in degrees, as in `benchmarks.priors.base.Priors`.

    Returns:
        (N,) float64 degrees, NaN where yaw or pitch is.

    Example:
        >>> head_angles(np.array([[0.0, 0.0, 20.0], [30.0, 0.0, 0.0], [90.0, 45.0, 0.0]])).round(6).tolist()
        [0.0, 30.0, 90.0]
    """
    yaw, pitch = np.radians(head_pose[:, :2].astype(np.float64)).T
    return np.degrees(np.arccos(np.cos(yaw) * np.cos(pitch)))


def true_angles(truth: pd.DataFrame, frames: pd.DataFrame) -> np.ndarray:
    """Angle between gaze and the line to the camera, for the N rows of a frame table.

    Args:
        truth: clip, track, frame and gaze_angle, each frame once, as `Dataset.truth` returns it.
        frames: N rows of a frame table.

    Returns:
        (N,) float64 degrees, NaN for frames that `truth` lacks.
    """
    joined = frames[KEY].merge(truth[[*KEY, "gaze_angle"]], on=KEY, how="left", validate="one_to_one")
    return joined["gaze_angle"].to_numpy(dtype=np.float64)
