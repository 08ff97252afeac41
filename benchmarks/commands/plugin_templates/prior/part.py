"""Prior `my_part`: head poses from one CSV file. Replace it with your estimator."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data.csv_fields import read_csv
from benchmarks.priors.base import LANDMARKS, Prior, Priors
from registry import PRIORS, UserError

POSE = ["yaw", "pitch", "roll"]


@PRIORS.register_module(name="my_part")
class MyPart(Prior):
    """Yaw, pitch and roll of `ROOT/head_pose.csv` (clip, track, frame, yaw, pitch, roll); landmarks are unknown.

    Args:
        root: folder of the dataset.
        cache: folder for results that are expensive to compute; not used here.
    """

    how = "a file head_pose.csv below the dataset's root"

    def __init__(self, root: Path, cache: Path) -> None:
        super().__init__(root, cache)
        self.path = self.root / "head_pose.csv"

    def read(self, frames: pd.DataFrame) -> Priors:
        """Return the priors of the rows of a frame table. Rows that are not in the file get NaN and confidence 0."""
        text: dict[Any, Any] = {"clip": str, "track": str}
        empty: dict[Any, Any] = dict.fromkeys(POSE, [""])  # unknown, while a clip may be named NA
        try:
            table = read_csv(self.path.read_bytes(), dtype=text, keep_default_na=False, na_values=empty)
            known = table.set_index(["clip", "track", "frame"])[POSE]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"cannot read {self.path} ({error}); it needs columns clip,track,frame,yaw,pitch,roll"
            ) from error
        keys = pd.MultiIndex.from_frame(frames[["clip", "track", "frame"]])
        landmarks = np.full((len(frames), len(LANDMARKS), 3), np.nan, dtype=np.float32)
        landmarks[..., 2] = 0
        return Priors(known.reindex(keys).to_numpy(dtype=np.float32), landmarks)

    def fingerprint(self) -> dict[str, Any]:
        """What determines the priors."""
        return {"head_pose": hashlib.sha256(self.path.read_bytes()).hexdigest()}
