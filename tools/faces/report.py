"""What the commands on labelled faces share: their arguments, groups by size, tables and records."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from registry import UserError
from tools.faces.figures import RESAMPLES, Scored, by_group, calibration
from tools.faces.labels import LabelledFace, kappa
from zoo.files.atomic import write_json

SIZES = {"under 50 px": (0, 50), "50 to 100 px": (50, 100), "100 to 200 px": (100, 200), "200 px or more": (200, 1e9)}


def make_parser(description: str | None, folder: str) -> argparse.ArgumentParser:
    """A parser with the arguments that the commands share.

    Args:
        description: of the command.
        folder: what the folder has.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help=f"of the {folder}")
    parser.add_argument("labels", type=Path, help="CSV file")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="of the bootstrap over people")
    parser.add_argument("--record", type=Path, help="JSON file to write")
    return parser


def run(measure: Callable[[argparse.Namespace], dict[str, Any]], args: argparse.Namespace) -> None:
    """Measure, and write the record if one is wanted.

    Raises:
        SystemExit: something that the user can correct, in one line.
    """
    try:
        record = measure(args)
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
    if args.record:
        write_json(args.record, record)


def by_size(faces: Sequence[LabelledFace]) -> dict[str, np.ndarray]:
    """All N faces, then those of each size: name -> ``(N,)`` bool."""
    sizes = np.array([face.size for face in faces])
    groups = {name: (sizes >= low) & (sizes < high) for name, (low, high) in SIZES.items()}
    return {"all": np.ones(len(faces), dtype=bool)} | groups


def scored(faces: Sequence[LabelledFace], scores: np.ndarray, called: np.ndarray | None = None) -> Scored:
    """Scores ``(N,)`` of N faces, and whether each is called looking, with their labels and people."""
    return Scored(scores, np.array([face.looking for face in faces]), np.array([face.person for face in faces]), called)


def counts(faces: Sequence[LabelledFace]) -> dict[str, Any]:
    """Faces, people, files, and the agreement of the two passes."""
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


def show(name: str, scored: Scored, groups: dict[str, np.ndarray], resamples: int) -> dict[str, Any]:
    """Print the tables of one row; returns its part of the record."""
    result = by_group(scored, groups, resamples)
    print(f"\n{name}\n\n{table(result)}", flush=True)
    out: dict[str, Any] = {"groups": result}
    if scored.called is not None:
        out["calibration"] = calibration(scored)
        print(f"\n{tabulate(out['calibration'], headers='keys', tablefmt='github')}")
    return out


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
