"""Measure models on labelled photographs of real faces.

    python -m tools.check_photos FOLDER benchmarks/records/photos/labels.csv --model gaze_nano_lstm
    python -m tools.check_photos FOLDER LABELS.csv --model geometry --fit ARGUMENT ... [--record FILE.json]

FOLDER holds the pictures, under any name: they are found by their sha256, and nothing is fetched. Each face is scored
as `predict` scores it in a still video. Faces count on which both labelling passes agree. Printed are AUC, AP at 15 %
looking, and at the model's threshold balanced accuracy, looks found, false rate and calibration; by size and by the
head's angle; 95 % intervals over people. The reference row ranks faces by the angle of the head in Face Mesh alone.

`--fit` fits scale and offset of the log odds, and the named arguments of the model's head, in a nested
cross-validation over people, and prints the figures on the people left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

from tools.faces.figures import Scored
from tools.faces.fitting import nested
from tools.faces.labels import PICTURES, LabelledFace, find_files, read_labels
from tools.faces.report import by_size, counts, describe, make_parser, run, scored, show
from tools.faces.scores import UNKNOWN_ANGLE, features_of, head_angles, still_scores
from zoo.models import open_model

ANGLES = {"head under 15°": (0, 15), "head 15° to 30°": (15, 30), "head 30° or more": (30, UNKNOWN_ANGLE)}
HEAD_POSE = "head pose alone"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables and write the record."""
    parser = make_parser(__doc__, "pictures")
    parser.add_argument("--model", nargs="+", default=[], help="of the zoo")
    parser.add_argument("--fit", nargs="*", help="arguments of the head that are fitted besides scale and offset")
    run(measure, parser.parse_args(arguments))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Score, print the tables and return the record."""
    everyone = read_labels(args.labels)
    faces = [face for face in everyone if face.agreed]
    pictures = find_files(args.folder, faces, PICTURES)
    angles = head_angles(faces, pictures)
    groups = groups_of(faces, angles)
    record: dict[str, Any] = {"set": counts(everyone), "models": {}, "fits": {}}
    print(describe(record["set"], "photographs"), flush=True)
    rows: dict[str, Scored] = {HEAD_POSE: scored(faces, -angles)}
    thresholds: dict[str, float] = {}
    for name in args.model:
        model = open_model(name)
        head, features = model.network.head, features_of(model, faces, pictures)
        scores, thresholds[name] = still_scores(head, features), model.threshold
        rows[name] = scored(faces, scores, scores >= model.threshold)
        if args.fit is not None:
            found = nested(head, features, rows[name], args.fit)
            record["fits"][name] = found.constants
            rows[f"{name}, fitted"] = found.scored
    for name, of_row in rows.items():
        record["models"][name] = {"threshold": thresholds.get(name)} | show(name, of_row, groups, args.resamples)
    for name, constants in record["fits"].items():
        title = f"{name}: constants fitted in each outer fold"
        print(f"\n{title}\n\n{tabulate(constants, headers='keys', tablefmt='github')}")
    return record


def groups_of(faces: Sequence[LabelledFace], angles: np.ndarray) -> dict[str, np.ndarray]:
    """All faces, then those of each size and of each angle of the head in degrees ``(N,)``: name -> ``(N,)`` bool."""
    groups = by_size(faces)
    groups |= {name: (angles >= low) & (angles < high) for name, (low, high) in ANGLES.items()}
    groups["head unknown"] = angles >= UNKNOWN_ANGLE
    return {name: chosen for name, chosen in groups.items() if chosen.any()}


if __name__ == "__main__":
    main()
