"""Measure models on labelled videos of real people.

    python -m tools.check_people FOLDER benchmarks/records/people/labels.csv --model geometry [--record FILE.json]

FOLDER holds the videos, under any name before the suffix: they are found by their sha256, and nothing is fetched. Each
is scored as by `predict`. A labelled face is called looking if `bouts.csv` would have a look of it at that frame. A
face without a score counts as not looking, with score 0. Faces count on which both labelling passes agree. Printed are
the figures of `tools.check_photos`, by size, with 95 % intervals over people.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.video.detectors.base import iou
from tools.faces.figures import Scored
from tools.faces.labels import LabelledFace, find_files, read_labels
from tools.faces.report import by_size, counts, describe, make_parser, run, scored, show
from zoo import load_model

VIDEOS = {".mp4", ".mkv", ".avi", ".mov", ".webm", ".gif"}
OVERLAP = 0.3  # intersection over union from which a scored box is the labelled face


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables and write the record."""
    parser = make_parser(__doc__, "videos")
    parser.add_argument("--model", nargs="+", required=True, help="of the zoo")
    parser.add_argument("--detector", default="centerface", help="of predict")
    run(measure, parser.parse_args(arguments))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Score, print the tables and return the record."""
    everyone = read_labels(args.labels)
    faces = [face for face in everyone if face.agreed]
    videos = find_files(args.folder, faces, VIDEOS)
    groups = by_size(faces)
    record: dict[str, Any] = {"set": counts(everyone), "detector": args.detector, "models": {}}
    print(describe(record["set"], "videos"), flush=True)
    for name in args.model:
        of_model, found = scores_in_videos(name, args.detector, faces, videos)
        print(f"\n{name}: {found.mean():.1%} of the faces got a score")
        record["models"][name] = {"scored": round(float(found.mean()), 4)}
        record["models"][name] |= show(name, of_model, groups, args.resamples)
    return record


def scores_in_videos(
    name: str, detector: str, faces: Sequence[LabelledFace], videos: dict[str, Path]
) -> tuple[Scored, np.ndarray]:
    """Run a model on the videos.

    Args:
        name: of the model.
        detector: its name.
        faces: N labelled faces.
        videos: sha256 -> path.

    Returns:
        The faces' scores and whether they are called looking; and ``(N,)`` whether each got a score.
    """
    model = load_model(name)
    scores, called, found = np.zeros(len(faces)), np.zeros(len(faces), dtype=bool), np.zeros(len(faces), dtype=bool)
    for sha256, path in sorted(videos.items()):
        rows = model.predict(path, detector=detector)
        looks = model.looks(rows)
        for number, face in enumerate(faces):
            if face.sha256 == sha256 and (row := row_of(face, rows)) is not None:
                scores[number], found[number] = row["score"], True
                called[number] = covered(row, looks)
    return scored(faces, scores, called), found


def row_of(face: LabelledFace, rows: pd.DataFrame) -> pd.Series | None:
    """The row whose box overlaps most with the face, in its frame; None if none overlaps by `OVERLAP`."""
    there = rows[rows["frame"] == face.frame]
    if there.empty:
        return None
    overlap = iou(np.array([face.box], np.float64), there[["x1", "y1", "x2", "y2"]].to_numpy(np.float64))[0]
    return there.iloc[int(overlap.argmax())] if overlap.max() >= OVERLAP else None


def covered(row: pd.Series, looks: pd.DataFrame) -> bool:
    """Whether a look of the row's track covers its time."""
    of_track = looks[looks["track"] == row["track"]]
    return bool(((of_track["start"] <= row["time"]) & (row["time"] < of_track["end"])).any())


if __name__ == "__main__":
    main()
