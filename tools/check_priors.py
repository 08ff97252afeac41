"""Check the priors against SynthLAM's ground truth, draw them, or compute the mean face.

    python -m tools.check_priors
    python -m tools.check_priors draw --image PHOTO.jpg -o OVERLAY.png
    python -m tools.check_priors face

`check` runs Face Mesh on SynthLAM's val and test crops (half a minute on one core) and prints the errors of its head
poses and of the shipped ones by size of the crop. The mean face comes from other people, those of train. `draw` draws
points and pose on a picture of a face, or on a sheet of SynthLAM's crops. `face` prints `FACE` of
backbones/face_mesh.py.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from tabulate import tabulate

from backbones.face_mesh import OUTER_EYES
from benchmarks.data import synthlam
from benchmarks.data.dataset import SynthLAM
from benchmarks.data.pictures import over_crops
from benchmarks.priors import face_mesh
from benchmarks.priors.base import LANDMARKS
from registry import PRIORS
from tools.synthlam.geometry import rotation

SIZES = (22, 32, 40, 50, 60, 80, 113)  # pixels, the crop's larger side
YAWS = (0, 20, 40, 60, 180)  # degrees, for faces of 60 pixels or more
ANGLES = ("yaw", "pitch", "roll")
COLOURS = ((255, 0, 0), (255, 128, 0), (255, 255, 0), (0, 128, 255), (0, 255, 255))  # in the order of the landmarks

# Points of the mean face, on the midline and in mirrored pairs: brow, nose, cheekbones and corners of the eyes.
MIDDLE = (4, 6, 10)
PAIRS = (
    (33, 263),
    (133, 362),
    (54, 284),
    (67, 297),
    (117, 346),
    (119, 348),
    (121, 350),
    (127, 356),
    (129, 358),
    (143, 372),
    (147, 376),
    (198, 420),
)


def check(cache: Path) -> None:
    """Print the errors of both priors."""
    dataset = SynthLAM()
    truth = synthlam.truth(dataset.root)
    truth["size"] = truth[["width", "height"]].max(axis=1)
    frames = pd.concat([dataset.frames(split) for split in ("val", "test")], ignore_index=True)
    frames = frames.merge(truth[["image", "size", *(f"head_{name}" for name in ANGLES)]], on="image", how="inner")
    true, size = frames[[f"head_{name}" for name in ANGLES]].to_numpy(), frames["size"].to_numpy()
    priors = {
        name: PRIORS.build({"type": name, "root": dataset.root, "cache": cache}).read(frames)
        for name in ("face_mesh", "synthlam")
    }
    for name, prior in priors.items():
        print(f"\n{name}: median error in degrees of known poses, and 90th percentile of the yaw\n")
        print(pose_table(prior.head_pose, true, size))
        bias = np.nanmedian((prior.head_pose - true)[size >= 60], axis=0)
        signed = (f"{angle} {value:+.1f}" for angle, value in zip(ANGLES, bias, strict=True))
        print("\nmedian of the signed error, 60 px or more:", *signed)
    ours, theirs = (prior.landmarks for prior in priors.values())
    sure = (size >= 60) & (ours[:, 0, 2] > 0.9)
    apart = np.nanmedian(np.hypot(*np.moveaxis((ours - theirs)[sure, :, :2], -1, 0)), axis=0)
    print("\nmedian distance of the landmarks in % of the crop's sides, 60 px or more and confidence above 0.9:")
    print(", ".join(f"{name} {100 * value:.1f}" for name, value in zip(LANDMARKS, apart, strict=True)))


def pose_table(poses: np.ndarray, true: np.ndarray, size: np.ndarray) -> str:
    """Return a table of pose errors by size and yaw.

    Args:
        poses: ``(N, 3)`` degrees, NaN if unknown.
        true: ``(N, 3)`` degrees.
        size: ``(N,)`` pixels, the crop's larger side.
    """
    error, yaw, large = np.abs((poses - true + 180) % 360 - 180), np.abs(true[:, 0]), size >= 60
    groups = {f"{a} to {b} px": (size >= a) & (size < b) for a, b in pairwise(SIZES)}
    groups["60 px or more"] = large
    groups |= {f"60 px or more, yaw {a} to {b}": large & (yaw >= a) & (yaw < b) for a, b in pairwise(YAWS)}
    body = []
    for group, chosen in groups.items():
        known = chosen & np.isfinite(error[:, 0])
        medians = [round(float(value), 1) for value in np.median(error[known], axis=0)]
        share = f"{known.sum() / chosen.sum():.0%}"
        body.append([group, int(chosen.sum()), share, *medians, round(float(np.percentile(error[known, 0], 90)))])
    return tabulate(body, ["crops", "count", "known", *ANGLES, "yaw 90 %"], tablefmt="github")


def make_face() -> None:
    """Print the mean face: meshes of large training faces, turned back by their true pose, mirrored, averaged."""
    root = synthlam.root()
    truth = synthlam.truth(root)
    large = (truth[["width", "height"]].max(axis=1) >= 60) & (truth.head_yaw.abs() < 40) & (truth.occluded == 0)
    chosen = truth[large & (truth.split == "train")]
    estimator = face_mesh.Estimator()
    unknown = np.full(2, np.nan)
    answers = over_crops(root, chosen["image"].tolist(), lambda _, picture: estimator.mesh(picture, unknown))
    degrees = chosen[[f"head_{name}" for name in ANGLES]].to_numpy()
    faces = []
    for answer, pose in zip(answers, degrees, strict=True):
        if answer is not None and answer[1] > 0.95:
            turned = answer[0] * [1, -1, -1] @ rotation(*np.radians(pose))
            turned -= turned[OUTER_EYES].mean(axis=0)
            faces.append(turned / np.linalg.norm(turned[OUTER_EYES[1]] - turned[OUTER_EYES[0]]))
    face = np.median(faces, axis=0)
    points = {}
    for right, left in [(middle, middle) for middle in MIDDLE] + list(PAIRS):
        for one, other in ((right, left), (left, right)):
            points[one] = (face[one] + face[other] * [-1, 1, 1]) / 2
    print(f"# of {len(faces)} faces")
    for number in sorted(points):
        print(f"    {number}: ({', '.join(f'{value:.3f}' for value in points[number] + 0.0)}),")


def draw(image: Path | None, out: Path) -> None:
    """Draw points, pose and confidence on a picture, or on a sheet of SynthLAM's crops."""
    estimator = face_mesh.Estimator()
    if image is not None:
        _drawn(estimator, Image.open(image).convert("RGB"), 768, "").save(out)
        return
    root = synthlam.root()
    truth = synthlam.truth(root)
    size = truth[["width", "height"]].max(axis=1)
    columns, side = 6, 260
    sheet = Image.new("RGB", (columns * side, 4 * side))
    for row, (low, high) in enumerate(((22, 36), (40, 60), (60, 80), (80, 113))):
        of_size = truth[(size >= low) & (size < high)].sample(columns, random_state=row)
        for column, known in enumerate(of_size.itertuples()):
            words = f"true {known.head_yaw:.0f} {known.head_pitch:.0f} {known.head_roll:.0f}"
            crop = Image.open(root / known.image).convert("RGB")
            sheet.paste(_drawn(estimator, crop, side, words), (column * side, row * side))
    sheet.save(out)


def _drawn(estimator: face_mesh.Estimator, picture: Image.Image, side: int, words: str) -> Image.Image:
    shape = np.full(2, np.nan)
    mesh, flag, size = estimator.mesh(picture, shape)
    pose, five = estimator(picture, shape)
    scale = side / max(picture.size)
    shown = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    brush = ImageDraw.Draw(shown)
    ratio = np.array([shown.width / size[0], shown.height / size[1]])
    for x, y in mesh[:, :2] * ratio:
        brush.point((x, y), fill=(0, 255, 0))
    for number, (x, y, *_) in enumerate(five):
        at = np.array([x * shown.width, y * shown.height])
        brush.ellipse([*(at - 3), *(at + 3)], outline=COLOURS[number])
    if pose is not None:
        forward = rotation(*np.radians(pose))[:, 2] * [1, -1, 1] * side / 4
        nose = five[2, :2] * [shown.width, shown.height]
        brush.line([*nose, *(nose + forward[:2])], fill=(255, 0, 255), width=2)
        words = f"{words}\n{pose[0]:.0f} {pose[1]:.0f} {pose[2]:.0f}".strip()
    brush.multiline_text((2, 2), f"{words}\nflag {flag:.2f}", fill=(255, 255, 255))
    return shown


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("check", "draw", "face"), default="check")
    parser.add_argument("--image", type=Path, help="picture of one face")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("priors.png"), help="file for the drawing (default: %(default)s)"
    )
    parser.add_argument("--cache", type=Path, help="folder for computed priors (default: a temporary one)")
    args = parser.parse_args()
    if args.what == "face":
        make_face()
    elif args.what == "draw":
        draw(args.image, args.out)
    elif args.cache is not None:
        check(args.cache)
    else:
        with tempfile.TemporaryDirectory() as folder:
            check(Path(folder))


if __name__ == "__main__":
    main()
