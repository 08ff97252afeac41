"""The folder of a finished `predict`: its rows, and the video and the model that they were made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from backbones.checksums import file_sha256
from benchmarks.video.decode import Video
from benchmarks.video.journal import read_rows
from benchmarks.video.pipeline import model_identity, video_identity
from registry import UserError, did_you_mean
from zoo.files.untrusted import checked, read_json
from zoo.models import Model, model_names, open_model

EDGES = ["x1", "y1", "x2", "y2"]


class _VideoIdentity(TypedDict):
    name: str
    bytes: int
    sha256_of_ends: str


class _Settings(TypedDict):
    video: _VideoIdentity
    model: dict[str, Any]


class _Facts(TypedDict):
    sha256: str


class _Bouts(TypedDict):
    threshold: float


class _Inputs(TypedDict):
    video: str
    model: str


class _Run(TypedDict):
    """The part of `run.json` that is read here."""

    settings: _Settings
    facts: _Facts
    bouts: _Bouts
    inputs: _Inputs


@dataclass(frozen=True)
class FinishedRun:
    """A finished prediction.

    Attributes:
        folder: of its files.
        rows: of frames.csv: time, frame, track, x1, y1, x2, y2, score.
        sha256: of frames.csv.
        threshold: score from which a frame counted as looking.
        place: of the model, for `open_model`.
        video: what the video is recognised by.
        video_path: where it was.
        model: what the model is recognised by.
    """

    folder: Path
    rows: pd.DataFrame
    sha256: str
    threshold: float
    place: str
    video: dict[str, Any]
    video_path: Path
    model: dict[str, Any]

    def open_video(self) -> Video:
        """Open the video that was predicted.

        Raises:
            UserError: it is no longer where it was, or has changed since.
        """
        path = self.video_path
        if not path.is_file():
            raise UserError(
                f"{self.folder} was made from {path}, which is no longer there; run predict again with the video's new "
                f"path and -o {self.folder}: it resumes in seconds"
            )
        found = video_identity(path)
        if any(found[key] != self.video[key] for key in ("bytes", "sha256_of_ends")):
            raise UserError(f"video {path} has changed since {self.folder} was made (another sha256); predict it again")
        return Video(path)

    def open_model(self, device: str) -> Model:
        """Open the model that scored the run.

        Raises:
            UserError: it is no longer where it was, or has changed since.
        """
        if self.place not in model_names() and not Path(self.place).is_dir():
            raise UserError(
                f"{self.folder} was scored by the model {self.place or '(unnamed)'}, which is no folder here"
                f"{did_you_mean(self.place, model_names())}; run predict again with the model's folder"
            )
        model = open_model(self.place, device)
        if model_identity(model) != self.model:
            raise UserError(f"model {self.place} has changed since {self.folder} was scored; predict again with it")
        return model

    def same_model(self, other: FinishedRun) -> bool:
        """Whether both were scored by one model."""
        return self.model == other.model


def read_run(folder: Path) -> FinishedRun:
    """Read the folder of a finished `predict`.

    Raises:
        UserError: the folder is none, its files are damaged or links, or it has no face.
    """
    again = "run it first: python bench.py predict VIDEO -o OUT"
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of predict; {again}")
    for name in ("run.json", "frames.csv"):
        if not (folder / name).is_file() or (folder / name).is_symlink():
            problem = "is not a file" if (folder / name).exists() else "is missing"
            raise UserError(f"{folder} is not a finished run of predict: its {name} {problem}; {again}")
    path = folder / "run.json"
    content = read_json(path, "a run of predict")
    if isinstance(content, dict) and "settings" in content and "inputs" not in content:
        raise UserError(f"{folder} is unfinished, or of an older version; run the same predict again: it resumes")
    try:
        run: _Run = checked(content, _Run)
    except ValueError as error:
        raise UserError(
            f"{path}: {error}; not a run of predict, or damaged: delete {folder} and predict again"
        ) from error
    sha256 = file_sha256(folder / "frames.csv")
    if sha256 != run["facts"]["sha256"]:
        raise UserError(f"{folder / 'frames.csv'} is damaged (its checksum differs); run the same predict again")
    rows = _read_frames(folder / "frames.csv")
    threshold = run["bouts"]["threshold"]
    if not 0 <= threshold <= 1:
        raise UserError(f"{path}: threshold is {threshold}; it must be between 0 and 1")
    if not len(rows):
        raise UserError(f"{folder / 'frames.csv'} has no face to mark; predict a video with people in it")
    inputs, settings = run["inputs"], run["settings"]
    return FinishedRun(
        folder=folder,
        rows=rows,
        sha256=sha256,
        threshold=threshold,
        place=inputs["model"],
        video=dict(settings["video"]),
        video_path=Path(inputs["video"]),
        model=content["settings"]["model"],
    )


def _read_frames(path: Path) -> pd.DataFrame:
    """Read frames.csv, sorted as it is: by frame and track."""
    found = list(read_rows(path))
    rows = pd.DataFrame(
        {
            "time": [row.time for row in found],
            "frame": [row.frame for row in found],
            "track": [row.track for row in found],
            **{name: [float(row.box[place]) for row in found] for place, name in enumerate(EDGES)},
            "score": [row.score for row in found],
        }
    )
    if rows.duplicated(["frame", "track"]).any():
        raise UserError(f"{path} has a track twice in one frame; delete its folder and predict again")
    if not np.isfinite(rows[["time", *EDGES, "score"]].to_numpy(dtype=np.float64)).all():
        raise UserError(f"{path} has values that are not finite; delete its folder and predict again")
    if not rows["score"].between(0, 1).all():
        raise UserError(f"{path} has scores outside 0 to 1; delete its folder and predict again")
    return rows
