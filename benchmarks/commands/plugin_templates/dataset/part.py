"""Data set `my_part`: one CSV file a split, beside its crops. A reader of your own layout goes in its place."""

from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.data.dataset import Dataset
from benchmarks.data.frames import frame_table
from registry import DATASETS, UserError


@DATASETS.register_module(name="my_part")
class MyPart(Dataset):
    """`ROOT/train.csv`, `val.csv` and perhaps `test.csv`: columns clip, track, frame, label (1, 0, or -1), image.

    Args:
        root: the folder of `--root`; `image` is relative to it.
    """

    note = "my_part"  # what a row of the table says of figures measured here
    # For `export`: how crops of other videos come to look like these, and the licence of what is learnt from them.
    rate = 30.0  # frames a second
    margin = 0.0  # share of a face detector's box that crops show beyond it; four: left, above, right, below
    square = False  # whether they were stretched to squares, whatever their boxes were
    licence = None  # SPDX name; None: whoever exports has to ask

    def splits(self) -> tuple[str, ...]:
        """The splits that are there."""
        return tuple(split for split in ("train", "val", "test") if (self.root / f"{split}.csv").is_file())

    def frames(self, split: str) -> pd.DataFrame:
        """The FrameTable of one split."""
        path = Path(self.root, f"{split}.csv")
        text: dict[Any, Any] = dict.fromkeys(("clip", "track", "image"), str)
        try:
            table = pd.read_csv(path, dtype=text, keep_default_na=False)
            columns = {name: table[name] for name in ("clip", "track", "frame", "label", "image")}
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path} cannot be read ({error}); its columns: clip,track,frame,label,image") from error
        boxes = dict.fromkeys(("x1", "y1", "x2", "y2"), float("nan"))
        return frame_table({**columns, **boxes, "person": "", "unique_id": ""}, str(path))
