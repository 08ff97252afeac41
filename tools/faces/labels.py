"""The labels of faces in photographs and videos, and the files they belong to, found by their sha256."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from backbones.checksums import file_sha256
from registry import UserError
from zoo.files.untrusted import read_text

COLUMNS = ("sha256", "repository", "path", "licence", "x1", "y1", "x2", "y2", "person", "first", "second")
LABELS = ("looking", "not", "unsure")  # as written in the columns first and second
PICTURES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True)
class LabelledFace:
    """One face of one photograph, or of one frame of a video.

    Attributes:
        sha256: of the file.
        box: x1, y1, x2, y2 in pixels of the picture, as a face detector gives it.
        person: faces of one person share it.
        first: label of the first pass, one of `LABELS`.
        second: label of the second pass.
        frame: number of the frame, from 0.
    """

    sha256: str
    box: tuple[float, float, float, float]
    person: str
    first: str
    second: str
    frame: int = 0

    @property
    def size(self) -> float:
        """Pixels of the box's longer side."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def agreed(self) -> bool:
        """Whether both passes gave the same label and were sure of it."""
        return self.first == self.second != "unsure"

    @property
    def looking(self) -> int:
        """1 if the first pass says looking, else 0."""
        return int(self.first == "looking")


def read_labels(path: Path) -> list[LabelledFace]:
    """Read a labels file with the columns `COLUMNS`, and frame for videos; others are ignored.

    Raises:
        UserError: the file or a column is missing, or a line, which is named, has an unknown label or no area.
    """
    reader = csv.DictReader(io.StringIO(read_text(path, "labels of faces")))
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return [_face(row, f"{path}: line {reader.line_num}") for row in reader]


def _face(row: dict[str, str], where: str) -> LabelledFace:
    try:
        x1, y1, x2, y2 = (float(row[name]) for name in ("x1", "y1", "x2", "y2"))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: a side of the box is no number; correct or remove the line") from error
    frame = row.get("frame", "0")
    if not (frame.isascii() and frame.isdecimal()):
        raise UserError(f"{where}: the frame is no number from 0; correct or remove the line")
    if not (np.isfinite([x1, y1, x2, y2]).all() and x2 > x1 and y2 > y1):
        raise UserError(f"{where}: the box has no area; correct or remove the line")
    if row["first"] not in LABELS or row["second"] not in LABELS:
        raise UserError(f"{where}: labels are {', '.join(LABELS)}; correct or remove the line")
    return LabelledFace(row["sha256"], (x1, y1, x2, y2), row["person"], row["first"], row["second"], int(frame))


def find_files(folder: Path, faces: Sequence[LabelledFace], suffixes: Collection[str]) -> dict[str, Path]:
    """Find the file of each face in a folder and its subfolders, whatever its name before the suffix.

    Returns:
        sha256 -> path.

    Raises:
        UserError: a file is not there.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    there = {file_sha256(path): path for path in files}
    wanted = {face.sha256 for face in faces}
    absent = sorted(wanted - there.keys())
    if absent:
        raise UserError(
            f"{len(absent)} of {len(wanted)} files are not in {folder}, the first has sha256 {absent[0]}; the labels"
            " file names the repository and path of each"
        )
    return {sha256: there[sha256] for sha256 in wanted}


def read_picture(path: Path) -> np.ndarray:
    """Read a picture as it is stored, ``(H, W, 3)`` uint8 RGB. An orientation in its metadata is ignored."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a picture: {error}") from error


def kappa(faces: Sequence[LabelledFace]) -> float:
    """Cohen's kappa between the two passes, over faces of which both are sure.

    Example:
        >>> box = (0, 0, 9, 9)
        >>> pairs = [("looking", "looking"), ("not", "not"), ("not", "looking"), ("not", "not"), ("unsure", "not")]
        >>> round(kappa([LabelledFace("", box, "p", *pair) for pair in pairs]), 2)
        0.5
    """
    from sklearn.metrics import cohen_kappa_score

    sure = [face for face in faces if "unsure" not in (face.first, face.second)]
    return float(cohen_kappa_score([face.first for face in sure], [face.second for face in sure]))
