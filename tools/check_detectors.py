"""Compare face detectors by recall, false faces and time.

    python -m tools.check_detectors                          SynthLAM's crops back in their frames, with truth
    python -m tools.check_detectors --pictures DIR -o OUT    a folder of photographs, without truth
    python -m tools.check_detectors --detectors centerface yunet:side=960

A detector searches each picture as `predict` searches a whole frame. On rendered frames the table counts the true faces
found, by size in pixels of the searched 1280 x 720 frame, and detections that are none. Photographs have no truth: the
table counts the faces that each finds and those that only it finds, and `-o` writes pages of the latter, to be judged
by eye. Processor time is of all threads, with the detectors in turn on each picture. `--margins` prints where the first
detector's boxes lie in the second's.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from benchmarks.config.settings import parse_setting
from benchmarks.system.progress import Progress
from benchmarks.video.detectors.base import Detector, Faces, iou
from registry import DETECTORS
from tools.check_video import clips_of, pictures_of
from tools.synthlam.scene import FRAME_SIZE

EVERY = 30  # frames of a clip, of which one is searched
SHOWN = 1280  # longer side of the frames, in pixels; reported face sizes refer to it
SAME = 0.2  # intersection over union of two boxes of one face; the true boxes include more of the head
BINS = (0, 20, 30, 40, 60, 100, 200, 10_000)
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
TILE, COLUMNS, ROWS = 150, 8, 6  # of the pages of faces


class Picture(NamedTuple):
    """A picture and, where they are known, its true faces ``(N, 4)`` x1, y1, x2, y2 in pixels."""

    name: str
    pixels: np.ndarray
    truth: np.ndarray | None


@dataclass
class Searched:
    """What one detector found.

    Attributes:
        name: as given on the command line.
        detector: with its arguments.
        seconds: processor time of each picture.
        found: sizes and best scores of the true faces; 0 for those not found.
        false: scores of the detections that are no true face.
        faces: detections by picture, in its pixels.
    """

    name: str
    detector: Detector
    seconds: list[float] = field(default_factory=list)
    found: list[tuple[float, float]] = field(default_factory=list)
    false: list[float] = field(default_factory=list)
    faces: list[Faces] = field(default_factory=list)


def detector_of(text: str) -> Searched:
    """Builds a detector from ``NAME:key=value,key=value``."""
    name, _, settings = text.partition(":")
    arguments: dict[str, Any] = dict(parse_setting(one) for one in settings.split(",") if one)
    return Searched(text, DETECTORS.build({"type": name, **arguments}))


def rendered(split: str, limit: int) -> Iterator[Picture]:
    """Yields frames of SynthLAM with the boxes of their faces, one in `EVERY`."""
    for clip, rows in clips_of(split)[:limit]:
        by_frame = list(rows[rows["image"] != ""].groupby("frame"))
        for frame, seen in by_frame[EVERY // 2 :: EVERY]:
            picture = next(pictures_of(seen, FRAME_SIZE))
            yield Picture(f"{clip} {frame}", np.asarray(picture), seen[["x1", "y1", "x2", "y2"]].to_numpy())


def photographs(folder: Path, limit: int) -> Iterator[Picture]:
    """Yields pictures of a folder in an order that is random but always the same; unreadable ones are skipped."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    random.Random(0).shuffle(paths)
    for path in paths[:limit]:
        try:
            picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
        picture.thumbnail((2 * SHOWN, 2 * SHOWN))
        yield Picture(path.name, np.asarray(picture), None)


def search(one: Searched, picture: Picture) -> Faces:
    """Searches a picture, shrunk to the detector's side; boxes in pixels of the picture."""
    import cv2

    height, width = picture.pixels.shape[:2]
    scale = min(1.0, (one.detector.side or max(width, height)) / max(width, height))
    shape = (max(1, round(scale * width)), max(1, round(scale * height)))
    small = cv2.resize(picture.pixels, shape, interpolation=cv2.INTER_AREA) if scale < 1 else picture.pixels
    began = time.process_time()
    boxes, scores = one.detector.detect(small)
    one.seconds.append(time.process_time() - began)
    return Faces(boxes * np.tile([width / shape[0], height / shape[1]], 2), scores)


def judge(one: Searched, picture: Picture, faces: Faces) -> None:
    """Adds what was found of the true faces."""
    assert picture.truth is not None
    overlap = iou(picture.truth, faces.boxes)
    scale = SHOWN / max(picture.pixels.shape[:2])
    for row, box in zip(overlap, picture.truth, strict=True):
        hits = faces.scores[row > SAME]
        one.found.append((scale * max(box[2:] - box[:2]), hits.max() if len(hits) else 0.0))
    one.false += faces.scores[overlap.max(axis=0, initial=0) <= SAME / 2].tolist()


def table_of_truth(searched: Sequence[Searched]) -> None:
    """Prints recall by size and false faces, at the detector's own threshold and at its two confidences."""
    for one in searched:
        sizes, scores = np.array(one.found).T
        levels = {"any": 1e-9, "confident": one.detector.confident, "sure": one.detector.sure}
        print(f"{one.name}: {1e3 * np.median(one.seconds):.0f} ms of processor time (median)")
        for word, level in levels.items():
            cells = []
            for low, high in zip(BINS[:-1], BINS[1:], strict=True):
                inside = (sizes >= low) & (sizes < high)
                if inside.any():
                    cells.append(f"{low}+ px {(scores[inside] >= level).mean():.3f} of {inside.sum()}")
            false = sum(score >= level for score in one.false)
            print(f"  {word} ({level:.2f}): {', '.join(cells)}; {false} false in {len(one.seconds)} frames")


# -- without truth ------------------------------------------------------------------------------------------------


class Alone(NamedTuple):
    """A face that only one detector finds: picture's number, box ``(4,)``, score, and longer side as shown."""

    picture: int
    box: np.ndarray
    score: float
    side: float


def alone(one: Searched, other: Searched, shapes: Sequence[tuple[int, int]]) -> tuple[list[Alone], list[float]]:
    """Returns the confident faces that the other does not find at all, and the sides of all confident faces."""
    out, sides = [], []
    for number, (mine, theirs) in enumerate(zip(one.faces, other.faces, strict=True)):
        overlap = iou(mine.boxes, theirs.boxes).max(axis=1, initial=0)
        scale = min(1.0, SHOWN / max(shapes[number]))
        for box, score, most in zip(mine.boxes, mine.scores, overlap, strict=True):
            if score >= one.detector.confident:
                side = scale * float(max(box[2:] - box[:2]))
                sides.append(side)
                if most <= SAME:
                    out.append(Alone(number, box, float(score), side))
    return out, sides


def table_of_two(searched: Sequence[Searched], pictures: Sequence[tuple[str, tuple[int, int]]]) -> list[list[Alone]]:
    """Prints the faces by size that each of two finds and the other does not; returns the latter."""
    lists, shapes = [], [shape for _, shape in pictures]
    for one, other in ((searched[0], searched[1]), (searched[1], searched[0])):
        only, sides = alone(one, other, shapes)
        lists.append(only)
        cells = []
        for low, high in zip(BINS[:-1], BINS[1:], strict=True):
            count = sum(low <= side < high for side in sides)
            lonely = sum(low <= face.side < high for face in only)
            cells.append(f"{low}+ px {count} ({lonely})")
        time_of = f"{1e3 * np.median(one.seconds):.0f} ms of processor time (median)"
        print(f"{one.name}: {time_of}; faces of {one.detector.confident:.2f} or more (not found by {other.name}):")
        print("  " + ", ".join(cells))
    return lists


def write_page(path: Path, faces: Sequence[Alone], of: Sequence[Path]) -> None:
    """Writes faces with some of their surroundings, numbered, with score and size."""
    page = Image.new("RGB", (COLUMNS * TILE, ROWS * (TILE + 12)), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    for place, face in enumerate(faces):
        picture = ImageOps.exif_transpose(Image.open(of[face.picture])).convert("RGB")
        picture.thumbnail((2 * SHOWN, 2 * SHOWN))
        middle, side = (face.box[:2] + face.box[2:]) / 2, float(max(face.box[2:] - face.box[:2]))
        rect = np.concatenate([middle - side, middle + side]).round().astype(int).tolist()
        left, top = TILE * (place % COLUMNS), (TILE + 12) * (place // COLUMNS)
        page.paste(picture.crop(rect).resize((TILE, TILE)), (left, top + 12))
        corner, half = (left + TILE // 4, top + 12 + TILE // 4), TILE // 2
        draw.rectangle((*corner, corner[0] + half, corner[1] + half), outline="red")
        draw.text((left + 2, top), f"{place} {face.score:.2f} {face.side:.0f} px", fill="black")
    page.save(path)


def print_margins(searched: Sequence[Searched]) -> None:
    """Prints where the first detector's boxes lie in the second's: edges in sides of the second's box."""
    edges = []
    for mine, theirs in zip(searched[0].faces, searched[1].faces, strict=True):
        overlap = iou(mine.boxes, theirs.boxes)
        for row, column in zip(*np.nonzero(overlap > 0.4), strict=True):
            box, other = mine.boxes[row], theirs.boxes[column]
            sides = np.tile(other[2:] - other[:2], 2)
            if mine.scores[row] > 0.6 and max(sides) >= 25:
                edges.append((box - other) / sides)
    low, middle, high = np.percentile(edges, [25, 50, 75], axis=0).round(3)
    print(f"{len(edges)} faces of both: edges of {searched[0].name} from those of {searched[1].name}, in its sides:")
    for name, *values in zip(("left", "top", "right", "bottom"), middle, low, high, strict=True):
        print("  {:<6} median {:+.3f}, quartiles {:+.3f} to {:+.3f}".format(name, *values))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.check_detectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--detectors", nargs="+", default=["centerface", "yunet"], metavar="NAME[:KEY=VALUE,...]")
    parser.add_argument("--split", default="val", choices=("train", "val", "test"), help="of SynthLAM (default: val)")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="photographs, in place of rendered frames")
    parser.add_argument("--limit", type=int, default=60, metavar="N", help="clips or photographs (default: 60)")
    parser.add_argument("--margins", action="store_true", help="compare the boxes of the first two")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="pages of the faces that only one finds")
    args = parser.parse_args()
    searched = [detector_of(text) for text in args.detectors]
    if args.pictures is not None and len(searched) != 2:
        parser.error("photographs need two --detectors")
    pictures = photographs(args.pictures, args.limit) if args.pictures else rendered(args.split, args.limit)
    seen: list[tuple[str, tuple[int, int]]] = []
    with Progress("detectors", 0, "picture") as progress:
        for picture in pictures:
            seen.append((picture.name, picture.pixels.shape[:2]))
            for one in searched:
                faces = search(one, picture)
                one.faces.append(faces)
                if picture.truth is not None:
                    judge(one, picture, faces)
            progress.advance()
    if args.pictures is None:
        table_of_truth(searched)
    else:
        lists = table_of_two(searched, seen)
        if args.out is not None:
            args.out.mkdir(parents=True, exist_ok=True)
            by_name = {path.name: path for path in args.pictures.rglob("*")}
            paths = [by_name[name] for name, _ in seen]
            for one, faces_alone in zip(searched, lists, strict=True):
                for start in range(0, len(faces_alone), COLUMNS * ROWS):
                    name = one.name.replace(":", "_").replace(",", "_")
                    write_page(args.out / f"{name}_{start:04d}.png", faces_alone[start : start + COLUMNS * ROWS], paths)
    if args.margins:
        print_margins(searched)


if __name__ == "__main__":
    main()
