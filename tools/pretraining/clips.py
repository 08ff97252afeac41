"""Crops of rendered clips as training data."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from backbones.gaze_nano import PREPROCESSING
from benchmarks.data import synthlam
from tools.pretraining.renders import NAMES, Renders

EYE_OFFSET = 0.031  # metres from the middle of the face to an eye


def load_clips(root: Path, split: str, share: slice = slice(None)) -> Renders:
    """Read the crops of a split; targets that the clips' ground truth lacks are NaN.

    Args:
        root: a folder in SynthLAM's layout.
        split: name.
        share: rows of the split to read.
    """
    truth = synthlam.truth(root)
    truth = truth[truth["split"] == split][share]
    images = np.stack([PREPROCESSING.resize_crop(Image.open(root / image)) for image in truth["image"]])
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
