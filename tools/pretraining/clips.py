"""Crops of rendered clips as training data."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from backbones.base import Preprocessing
from benchmarks.data import synthlam
from benchmarks.data.windows import image_windows, windows
from tools.pretraining.renders import NAMES, Renders

EYE_OFFSET = 0.031  # metres from the middle of the face to an eye


def load_clips(root: Path, split: str, preprocessing: Preprocessing, share: slice = slice(None)) -> Renders:
    """Read the crops of a split; targets that the clips' ground truth lacks are NaN.

    Args:
        root: a folder in SynthLAM's layout.
        split: name.
        preprocessing: of the backbone.
        share: rows of the split to read.
    """
    truth = synthlam.truth(root)
    truth = truth[truth["split"] == split][share]
    images = np.stack([preprocessing.resize_crop(Image.open(root / image)) for image in truth["image"]])
    vergence = np.degrees(np.arctan(EYE_OFFSET / truth["distance"].clip(lower=0.4)))
    known = {
        "head_yaw": truth["head_yaw"],
        "head_pitch": truth["head_pitch"],
        "head_roll": truth["head_roll"],
        "left_eye_yaw": truth["eye_yaw"] - vergence,
        "left_eye_pitch": truth["eye_pitch"],
        "right_eye_yaw": truth["eye_yaw"] + vergence,
        "right_eye_pitch": truth["eye_pitch"],
    }
    targets = np.full((len(truth), len(NAMES)), np.nan, np.float32)
    for name, degrees in known.items():
        targets[:, NAMES.index(name)] = np.radians(degrees)
    targets[:, NAMES.index("eye_openness")] = 1 - truth["blink"]
    targets[:, NAMES.index("log_size")] = np.log(truth[["width", "height"]].max(axis=1))
    return Renders(torch.from_numpy(images), torch.from_numpy(targets))


def load_windows(root: Path, split: str, preprocessing: Preprocessing) -> tuple[Renders, Tensor]:
    """Read the crops of a split, and the window of seven frames around each of them.

    Returns:
        N crops, and ``(N, 7)`` int64 rows of them; absent frames are filled with present ones.
    """
    truth = synthlam.truth(root)
    rows = image_windows(windows(truth[truth["split"] == split]))
    return load_clips(root, split, preprocessing), torch.from_numpy(rows)
