"""mAP of a million rows, from arrays and from CSV files, against a merge by key, a sort and a loop over the rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.evaluation.metrics import lam_map
from benchmarks.scoring.files import (
    VALIDATION,
    match,
    read_groundtruth,
    read_prediction_file,
    write_groundtruth,
    write_predictions,
)
from tools.speed.harness import Work

TOLERANCE = 1e-12
AGAINST = "pandas: merge by key, sort by score, both classes' AP with VOC's loop over the rows"


def made_up_rows(count: int, seed: int = 0) -> pd.DataFrame:
    """Make labelled validation rows in tracks of 1,000 frames, with scores about as good as a model's.

    Scores are distinct: with ties, the plain way's figure depends on the order of the rows.
    """
    random = np.random.default_rng(seed)
    row = np.arange(count)
    label = (random.random(count) < 0.15).astype(np.int64)
    score = 1 / (1 + np.exp(-random.normal(2.0 * label - 1, 1.3)))
    assert len(np.unique(score)) == count
    corner = np.round(random.random((count, 2)) * 1000, 3)
    size = np.round(30 + random.random((count, 2)) * 200, 3)
    clips = np.array(
        [f"{number:08x}-a937-499b-3f88-9cc4a2f72bec" for number in range(-(-count // 20_000))], dtype=object
    )
    return pd.DataFrame(
        {
            "clip": clips[row // 20_000],
            "frame": row % 1000 + 1,
            **dict(zip(("x1", "y1"), corner.T, strict=True)),
            **dict(zip(("x2", "y2"), (corner + size).T, strict=True)),
            "track": np.array([str(number) for number in range(20)], dtype=object)[row // 1000 % 20],
            "label": label,
            "score": score,
        }
    )


def plain_map(truth: pd.DataFrame, predictions: pd.DataFrame) -> float:
    """Return the mean of both classes' AP, computed like evaluation scripts do."""
    keyed = []
    for table in (truth, predictions):
        key = table["clip"] + ":" + table["track"].map(str) + ":" + table["frame"].map(str)
        keyed.append(table.assign(key=key))
    merged = keyed[0].merge(keyed[1][["key", "score"]], on="key")
    total = 0.0
    for own in (1, 0):
        ranked = merged.sort_values("score", ascending=own == 0)
        total += plain_average_precision((ranked["label"] == own).to_numpy())
    return total / 2


def plain_average_precision(hit: np.ndarray) -> float:
    """Return VOC's average precision of rows in order of score, with a loop over the rows for the envelope."""
    found = np.cumsum(hit)
    precision = np.concatenate([[0.0], found / np.arange(1, len(hit) + 1), [0.0]])
    recall = np.concatenate([[0.0], found / hit.sum(), [1.0]])
    for place in range(len(precision) - 1, 0, -1):
        precision[place - 1] = np.maximum(precision[place - 1], precision[place])
    step = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(np.sum((recall[step] - recall[step - 1]) * precision[step]))


def plain_map_of_files(truth: Path, predictions: Path) -> float:
    """Return the plain mAP of CSV files."""
    text = {"clip": str, "track": str}
    return plain_map(
        pd.read_csv(truth, header=None, names=[*VALIDATION, "label"], dtype=text),
        pd.read_csv(predictions, header=None, names=[*VALIDATION, "class", "score"], dtype=text),
    )


def our_map_of_files(truth: Path, predictions: Path) -> float | None:
    """Return the mAP of `bench.py score`, with all its checks."""
    labelled, scored = read_groundtruth(truth), read_prediction_file(predictions)
    rows = match(labelled, scored, (str(truth), str(predictions)))
    return lam_map(scored["score"].to_numpy()[rows], labelled["label"].to_numpy()).map


def differ(expected: float, found: float | None) -> str | None:
    """Describe the difference of two figures; None if they agree."""
    return None if found is not None and abs(found - expected) <= TOLERANCE else f"{expected!r} and {found!r}"


@contextmanager
def map_from_arrays(quick: bool) -> Iterator[list[Work]]:
    """MAP from arrays in memory."""
    count = 20_000 if quick else 1_000_000
    table = made_up_rows(count)
    scores, labels = table["score"].to_numpy(), table["label"].to_numpy()
    truth, predictions = table.drop(columns="score"), table.drop(columns="label")
    yield [
        Work(
            name="map",
            what=f"mAP, {count:,} rows from arrays",
            against=AGAINST,
            plain=lambda: plain_map(truth, predictions),
            ours=lambda: lam_map(scores, labels).map,
            differ=differ,
            must=50,
            aim=80,
            seconds=0.4,
        )
    ]


@contextmanager
def map_from_files(quick: bool) -> Iterator[list[Work]]:
    """MAP from the CSV files of the published programs."""
    count = 20_000 if quick else 1_000_000
    table = made_up_rows(count)
    with tempfile.TemporaryDirectory() as folder:
        truth, predictions = Path(folder) / "truth.csv", Path(folder) / "predictions.csv"
        write_groundtruth(truth, table, "val")
        write_predictions(predictions, table, "val")
        yield [
            Work(
                name="map_csv",
                what=f"mAP, {count:,} rows from CSV files",
                against=AGAINST,
                plain=lambda: plain_map_of_files(truth, predictions),
                ours=lambda: our_map_of_files(truth, predictions),
                differ=differ,
                must=6,
                aim=10,
            )
        ]
