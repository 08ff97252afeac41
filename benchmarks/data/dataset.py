"""The data sets of `--dataset`: a root folder read as frame tables."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from benchmarks.data import ego4d, synthlam
from benchmarks.data.annotations import clip_videos
from benchmarks.data.ego4d import SPLITS
from registry import DATASETS, UserError


class Dataset:
    """A root folder read as one frame table per split.

    A plug-in registers a subclass that takes `root` and implements `frames`; everything else has a default.

    Args:
        root: folder given by `--root`, or None.
    """

    #: Shown in table rows next to figures measured on this data set.
    note = ""
    #: Frames per second.
    rate: float = 30.0
    #: Margin of crops around a face detector's box, as a share of the box: one number, or left, top, right, bottom.
    margin: float | tuple[float, float, float, float] = 0.0
    #: Whether crops were stretched to squares, ignoring the aspect ratio of the box.
    square: bool = False
    #: Licence (SPDX name) of weights trained on this data set, or None if it depends.
    licence: str | None = None

    def __init__(self, root: Path | None = None) -> None:
        if root is None:
            raise UserError(f"dataset {type(self).__name__.lower()} needs its folder: --root DIR")
        self.root = Path(root)

    def splits(self) -> tuple[str, ...]:
        """Returns the available splits; training needs `train` and `val`."""
        return SPLITS

    def frames(self, split: str) -> pd.DataFrame:
        """Returns the FrameTable of one split; `image` is relative to `root`, in a folder of it."""
        raise NotImplementedError

    def videos(self, split: str) -> dict[str, str]:
        """Returns clip -> video where this is known; intervals resample whole videos that have several clips."""
        return {}

    def truth(self) -> pd.DataFrame | None:
        """Returns clip, track, frame and gaze_angle, the angle between gaze and camera in degrees; None if unknown."""
        return None

    def checksum(self) -> str | None:
        """Returns the sha256 of the data if it is shipped with the project."""
        return None


@DATASETS.register_module(name="ego4d")
class Ego4D(Dataset):
    """Ego4D Looking-At-Me, prepared by `bench.py prepare`. The test split has crops but no labels."""

    note = "Ego4D"
    square = True

    def splits(self) -> tuple[str, ...]:
        return SPLITS if (self.root / "videos_challenge").is_dir() else SPLITS[:2]

    def frames(self, split: str) -> pd.DataFrame:
        return ego4d.read_split(self.root, split)

    def videos(self, split: str) -> dict[str, str]:
        path = self.root / "json" / f"av_{split}.json"  # no longer needed once the root is prepared, so it may be gone
        return clip_videos(path) if path.exists() else {}


@DATASETS.register_module(name="synthlam")
class SynthLAM(Ego4D):
    """SynthLAM: rendered faces in Ego4D's layout, shipped with the project, every split labelled."""

    note = "synthetic data"
    # Boxes and crops hold the head with its hair, without the neck, plus a margin of up to 22 % drawn by
    # tools/synthlam/filming.py. `python -m tools.check_margin` compares them with a face detector's boxes.
    margin = (0.14, 0.37, 0.14, 0.09)
    square = False
    licence = "Apache-2.0"

    def __init__(self, root: Path | None = None) -> None:
        self._shipped = root is None
        super().__init__(synthlam.root() if root is None else root)

    def truth(self) -> pd.DataFrame:
        return synthlam.truth(self.root)

    def checksum(self) -> str | None:
        return synthlam.checksum() if self._shipped else None


def table_sha256(frames: pd.DataFrame) -> str:
    """Returns the sha256 of a frame table: its frames, boxes, labels and crop paths, in order."""
    rows = pd.util.hash_pandas_object(frames, index=False).to_numpy()
    return hashlib.sha256(rows.tobytes()).hexdigest()
