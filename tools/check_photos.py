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
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from registry import UserError
from tools.faces.figures import Scored, by_group, calibration
from tools.faces.fitting import nested
from tools.faces.labels import PICTURES, LabelledFace, find_files, kappa, read_labels
from tools.faces.scores import UNKNOWN_ANGLE, features_of, head_angles, still_scores
from zoo.files.atomic import write_json
from zoo.models import open_model

SIZES = {"under 50 px": (0, 50), "50 to 100 px": (50, 100), "100 to 200 px": (100, 200), "200 px or more": (200, 1e9)}
ANGLES = {"head under 15°": (0, 15), "head 15° to 30°": (15, 30), "head 30° or more": (30, UNKNOWN_ANGLE)}
HEAD_POSE = "head pose alone"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the pictures")
    parser.add_argument("labels", type=Path, help="CSV file")
    parser.add_argument("--model", nargs="+", default=[], help="of the zoo")
    parser.add_argument("--fit", nargs="*", help="arguments of the head that are fitted besides scale and offset")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap over people")
    parser.add_argument("--record", type=Path, help="JSON file to write")
    args = parser.parse_args(arguments)
    try:
        record = measure(args)
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
    if args.record:
        write_json(args.record, record)


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
    for name in args.model:
        model = open_model(name)
        head, features = model.network.head, features_of(model, faces, pictures)
        rows[name] = scored(faces, still_scores(head, features), model.threshold)
        if args.fit is not None:
            found = nested(head, features, rows[name], args.fit)
            record["fits"][name] = found.constants
            rows[f"{name}, fitted"] = found.scored
        record["models"][name] = {"threshold": model.threshold}
    for name, of_row in rows.items():
        record["models"].setdefault(name, {"threshold": None}).update(show(name, of_row, groups, args.resamples))
    for name, constants in record["fits"].items():
        title = f"{name}: constants fitted in each outer fold"
        print(f"\n{title}\n\n{tabulate(constants, headers='keys', tablefmt='github')}")
    return record


def show(name: str, scored: Scored, groups: dict[str, np.ndarray], resamples: int) -> dict[str, Any]:
    """Print the tables of one row; returns its part of the record."""
    result = by_group(scored, groups, resamples)
    print(f"\n{name}\n\n{table(result)}", flush=True)
    out: dict[str, Any] = {"groups": result}
    if scored.called is not None:
        out["calibration"] = calibration(scored)
        print(f"\n{tabulate(out['calibration'], headers='keys', tablefmt='github')}")
    return out


def scored(faces: Sequence[LabelledFace], scores: np.ndarray, threshold: float | None = None) -> Scored:
    """Scores ``(N,)`` of N faces with their labels and people."""
    called = None if threshold is None else scores >= threshold
    return Scored(scores, np.array([face.looking for face in faces]), np.array([face.person for face in faces]), called)


def counts(faces: Sequence[LabelledFace]) -> dict[str, Any]:
    """Faces, people, pictures, and the agreement of the two passes."""
    agreed = [face for face in faces if face.agreed]
    return {
        "faces": len(faces),
        "agreed": len(agreed),
        "looking": sum(face.looking for face in agreed),
        "people": len({face.person for face in agreed}),
        "files": len({face.sha256 for face in agreed}),
        "kappa": round(kappa(faces), 4),
    }


def describe(of: dict[str, Any], what: str) -> str:
    """The counts in a sentence; `what` the faces are in."""
    return (
        f"{of['faces']} faces; both passes agree on {of['agreed']} (kappa {of['kappa']:.2f}), of {of['people']} people "
        f"in {of['files']} {what}; {of['looking']} look at the camera"
    )


def groups_of(faces: Sequence[LabelledFace], angles: np.ndarray) -> dict[str, np.ndarray]:
    """All faces, then those of each size and of each angle of the head in degrees ``(N,)``: name -> ``(N,)`` bool."""
    sizes = np.array([face.size for face in faces])
    groups = {"all": np.ones(len(faces), dtype=bool)}
    groups |= {name: (sizes >= low) & (sizes < high) for name, (low, high) in SIZES.items()}
    groups |= {name: (angles >= low) & (angles < high) for name, (low, high) in ANGLES.items()}
    groups["head unknown"] = angles >= UNKNOWN_ANGLE
    return {name: chosen for name, chosen in groups.items() if chosen.any()}


def table(result: dict[str, dict]) -> str:
    """A row for each group: counts, then each figure with its interval."""
    names = list(result["all"]["figures"])
    body = []
    for group, of in result.items():
        cells = []
        for name in names:
            figure = of["figures"].get(name)
            cells.append(
                "-" if figure is None else "{:.3f} [{:.2f}, {:.2f}]".format(figure["value"], *figure["interval"])
            )
        body.append([group, of["faces"], of["looking"], *cells])
    return tabulate(body, ["faces", "count", "looking", *names], tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    main()
