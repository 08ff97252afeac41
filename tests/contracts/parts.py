"""Contract checks of data sets and priors, for built-in parts and plug-ins.

>>> from tests.contracts.parts import check_dataset
>>> check_dataset(dict(type="my_dataset", root=ROOT))
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.data.dataset import Dataset
from benchmarks.data.frames import COLUMNS, KEY, frame_table
from benchmarks.priors.base import LANDMARKS, Prior, Priors
from registry import DATASETS, PRIORS


def check_dataset(config: Mapping[str, Any]) -> None:
    """Build a data set and check it against the contract of `benchmarks.data.dataset.Dataset`.

    Args:
        config: ``dict(type=NAME, root=DIR)`` of a small data set.
    """
    dataset = DATASETS.build(config)
    assert isinstance(dataset, Dataset)
    splits = dataset.splits()
    assert {"train", "val"} <= set(splits) <= {"train", "val", "test"}, f"splits are {splits}"
    clips: dict[str, str] = {}
    for split in splits:
        table = dataset.frames(split)
        assert len(table), f"{split} is empty"
        pd.testing.assert_frame_equal(table, frame_table(table))  # complete, right types, sorted, no duplicates
        pd.testing.assert_frame_equal(table, dataset.frames(split))
        assert tuple(table.columns[: len(COLUMNS)]) == COLUMNS
        for clip in table["clip"].unique():
            assert clips.setdefault(clip, split) == split, f"clip {clip} is in {clips[clip]} and in {split}"
        if split != "test":
            assert set(table["label"]) >= {0, 1}, f"{split} has labels of one class only"
        crops = [image for image in table["image"] if image]
        assert crops, f"{split} has no crop"
        assert all("/" in image for image in crops), f"{split} has a crop that is in no folder of the root"
        for image in crops[:: max(1, len(crops) // 20)]:
            with Image.open(dataset.root / image) as picture:
                picture.load()


def check_prior(config: Mapping[str, Any], frames: pd.DataFrame) -> None:
    """Build a prior and check it against the contract of `benchmarks.priors.base.Prior`.

    Args:
        config: ``dict(type=NAME, root=DIR, cache=DIR, **arguments)``.
        frames: a FrameTable with at least one row that the prior knows.
    """
    prior = PRIORS.build(config)
    assert isinstance(prior, Prior)
    found = prior.read(frames)
    assert isinstance(found, Priors)
    assert (found.head_pose.shape, found.head_pose.dtype) == ((len(frames), 3), np.float32)
    assert (found.landmarks.shape, found.landmarks.dtype) == ((len(frames), len(LANDMARKS), 3), np.float32)
    confidence = found.landmarks[..., 2]
    assert ((confidence >= 0) & (confidence <= 1)).all(), "confidences are outside [0, 1]"
    assert (confidence[np.isnan(found.landmarks[..., :2]).any(-1)] == 0).all(), "an unknown landmark has confidence"
    assert np.isfinite(found.head_pose).any() or (confidence > 0).any(), "the prior knows none of the frames"
    turned = prior.read(frames.iloc[::-1].reset_index(drop=True))
    for one, other in zip(found, turned, strict=True):
        np.testing.assert_array_equal(one, other[::-1], err_msg="the output depends on the order of the rows")
    fingerprint = prior.fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint, "the fingerprint is not JSON"
    assert PRIORS.build(config).fingerprint() == fingerprint, "two builds have different fingerprints"
    assert set(KEY) <= set(frames.columns), "the prior changed the table"
