"""Dataset `my_part`: one CSV file per split, beside its crops. Replace it with a reader of your layout."""

from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.data.csv_fields import read_csv
from benchmarks.data.dataset import Dataset
from benchmarks.data.frames import frame_table
from registry import DATASETS, UserError


@DATASETS.register_module(name="my_part")
class MyPart(Dataset):
    """`ROOT/train.csv`, `val.csv` and optionally `test.csv`: columns clip, track, frame, label (1, 0, or -1), image.

    Args:
        root: the folder of `--root`; `image` is relative to it.
    """

    note = "my_part"  # stands in the record and the card beside figures measured here
    # For `export`: how to cut similar crops from other videos, and the licence of trained models.
    rate = 30.0  # frames per second
    margin = 0.0  # share of a face detector's box that crops show beyond it; four: left, above, right, below
    square = False  # True if crops were stretched to squares
    licence = None  # SPDX name; None if unknown

    def splits(self) -> tuple[str, ...]:
        """Names of the splits with a file."""
        return tuple(split for split in ("train", "val", "test") if (self.root / f"{split}.csv").is_file())

    def frames(self, split: str) -> pd.DataFrame:
        """Read the frame table of one split."""
        path = Path(self.root, f"{split}.csv")
        text: dict[Any, Any] = dict.fromkeys(("clip", "track", "image"), str)
        try:
            table = read_csv(path.read_bytes(), dtype=text, keep_default_na=False)
            columns = {name: table[name] for name in ("clip", "track", "frame", "label", "image")}
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"cannot read {path} ({error}); it needs columns clip,track,frame,label,image") from error
        boxes = dict.fromkeys(("x1", "y1", "x2", "y2"), float("nan"))
        return frame_table({**columns, **boxes, "person": "", "unique_id": ""}, str(path))
