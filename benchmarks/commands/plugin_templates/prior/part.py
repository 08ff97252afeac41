"""Prior `my_part`: head poses from one CSV file. An estimator of yours goes in its place."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.priors.base import LANDMARKS, Prior, Priors
from registry import PRIORS, UserError


@PRIORS.register_module(name="my_part")
class MyPart(Prior):
    """Yaw, pitch and roll of `ROOT/head_pose.csv` (clip, track, frame, yaw, pitch, roll); landmarks are unknown.

    Args:
        root: the data set's root.
        cache: where answers that take long could be kept; not used.
    """

    how = "a file head_pose.csv below the data set's root"

    def __init__(self, root: Path, cache: Path) -> None:
        super().__init__(root, cache)
        self.path = self.root / "head_pose.csv"

    def read(self, frames: pd.DataFrame) -> Priors:
        """Answer for the rows of a FrameTable; what the file does not have is unknown: NaN, confidence 0."""
        text: dict[Any, Any] = {"clip": str, "track": str}
        try:
            known = pd.read_csv(self.path, dtype=text).set_index(["clip", "track", "frame"])[["yaw", "pitch", "roll"]]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{self.path} cannot be read ({error}); its columns: clip,track,frame,yaw,pitch,roll"
            ) from error
        keys = pd.MultiIndex.from_frame(frames[["clip", "track", "frame"]])
        landmarks = np.full((len(frames), len(LANDMARKS), 3), np.nan, dtype=np.float32)
        landmarks[..., 2] = 0
        return Priors(known.reindex(keys).to_numpy(dtype=np.float32), landmarks)

    def fingerprint(self) -> dict[str, Any]:
        """What decides the answers."""
        return {"head_pose": hashlib.sha256(self.path.read_bytes()).hexdigest()}
