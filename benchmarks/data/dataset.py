"""The data sets that `--dataset` names: where a split's frame table and crops come from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from benchmarks.data import ego4d, synthlam
from benchmarks.data.ego4d import SPLITS
from registry import DATASETS, UserError


class Dataset:
    """A root folder read as frame tables, one a split.

    A plug-in registers a subclass that takes `root` and answers `frames`; everything else has a default.

    Args:
        root: the folder of `--root`, or None where none was named.
    """

    #: What a table row says of figures measured here.
    note = ""
    #: Frames a second.
    rate: float = 30.0
    #: Share of a face detector's box that crops have more on each side, or on the left, above, on the right, below.
    margin: float | tuple[float, float, float, float] = 0.0
    #: Whether crops were stretched to squares, whatever their boxes were.
    square: bool = False
    #: Of what is trained on it: SPDX name, or None where that depends.
    licence: str | None = None

    def __init__(self, root: Path | None = None) -> None:
        if root is None:
            raise UserError(f"dataset {type(self).__name__.lower()} needs its folder: --root DIR")
        self.root = Path(root)

    def splits(self) -> tuple[str, ...]:
        """The splits that are there; training needs `train` and `val`."""
        return SPLITS

    def frames(self, split: str) -> pd.DataFrame:
        """The FrameTable of one split; `image` is relative to `root`."""
        raise NotImplementedError

    def checksum(self) -> str | None:
        """The sha256 that fixes the data, where it is shipped under one."""
        return None


@DATASETS.register_module(name="ego4d")
class Ego4D(Dataset):
    """Ego4D Looking-At-Me, prepared by `bench.py prepare`. The test split has crops and no labels."""

    note = "Ego4D"
    square = True

    def splits(self) -> tuple[str, ...]:
        return SPLITS if (self.root / "videos_challenge").is_dir() else SPLITS[:2]

    def frames(self, split: str) -> pd.DataFrame:
        return ego4d.read_split(self.root, split)


@DATASETS.register_module(name="synthlam")
class SynthLAM(Ego4D):
    """SynthLAM: rendered faces in Ego4D's layout, shipped with the project, every split labelled."""

    note = "synthetic data"
    rate = 15.0
    # The boxes, and so the crops, hold the head without its neck, hair and all, and up to a fifth more (`_track` of
    # synthlam_render draws how much); `python -m tools.check_margin` compares them with what a face detector finds.
    margin = (0.14, 0.37, 0.14, 0.09)
    square = False
    licence = "Apache-2.0"

    def __init__(self, root: Path | None = None) -> None:
        self._shipped = root is None
        super().__init__(synthlam.root() if root is None else root)

    def checksum(self) -> str | None:
        return synthlam.checksum() if self._shipped else None


def table_sha256(frames: pd.DataFrame) -> str:
    """The sha256 of a frame table: which frames, boxes, labels and crops there are, in order."""
    rows = pd.util.hash_pandas_object(frames, index=False).to_numpy()
    return hashlib.sha256(rows.tobytes()).hexdigest()
