"""Trained models from Python: who looks at the camera in a video, in frames of your own, or live.

`from zoo import load_model, list_models` imports these. The command `predict` does the same through the same rooms.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from typing_extensions import Unpack  # in typing from Python 3.11

from benchmarks.system.device import take_device
from benchmarks.video.arrays import Arrays
from benchmarks.video.bouts import BoutOptions, decide_looks, join_looks
from benchmarks.video.decode import Video
from benchmarks.video.defaults import DETECTIONS, DETECTOR, LEAST, MERGE
from benchmarks.video.inputs import named_video
from benchmarks.video.journal import COLUMNS, read_rows
from benchmarks.video.live import Live
from benchmarks.video.options import check_limits
from benchmarks.video.pipeline import KEPT, Job, header_of, predict_video, score_faces
from benchmarks.video.scorer import ScoredFace, Scorer
from benchmarks.video.search import FaceSource, face_source
from registry import UserError, did_you_mean, printable
from zoo import weights
from zoo.cards import model_cards
from zoo.models import Model, open_model, read_model_config


class LookOptions(TypedDict, total=False):
    """What counts as looking. Without them, the model's own threshold and cost count."""

    threshold: float
    """Score from which a frame looks, in [0, 1]."""
    change_cost: float
    """Evidence for the start or end of a look, in log odds x seconds; with 0 each frame counts by itself."""


class LiveOptions(LookOptions, total=False):
    """Options of `LoadedModel.live`."""

    detector: str | Mapping[str, Any] | None
    """Name, or ``dict(type=NAME, **arguments)``; None: every picture comes with boxes. Default: centerface."""
    detections: float
    """Whole pictures per second to search for new faces; default 2.5."""


class PredictOptions(LookOptions, total=False):
    """Options of `LoadedModel.predict`: the first two for any source, then those for a video, then those for frames."""

    causal: bool
    """A score depends on no later frame."""
    out: str | Path
    """Of a video: folder that keeps all files of `bench.py predict`; the same call resumes or reads it."""
    detector: str | Mapping[str, Any]
    """Of a video: name, or ``dict(type=NAME, **arguments)``. Default: centerface."""
    detections: float
    """Of a video: whole frames per second to search for new faces; default 2.5."""
    tracks: Iterable[Any]
    """Of frames: for each frame the name of its box, or a sequence of names. Needed if a frame has several boxes."""
    rate: float
    """Of frames: frames per second."""
    times: Iterable[float]
    """Of frames, in place of a rate: seconds of each frame, increasing."""


OF_VIDEOS, OF_FRAMES = ("out", "detector", "detections"), ("tracks", "rate", "times")
FACES = [*COLUMNS, "looking", "seconds"]  # columns of `LoadedModel.predict`


@dataclass(frozen=True, repr=False)
class LoadedModel:
    """A trained model that scores faces. Made by `load_model`.

    Attributes:
        model: its network, and the settings needed to run it: views, rate, margin, threshold, cost, card.
    """

    model: Model

    @property
    def name(self) -> str:
        """Name of a shipped model, name of the folder, or ``OWNER/NAME@COMMIT``."""
        return self.model.name

    @property
    def margin(self) -> tuple[float, float, float, float]:
        """What a crop shows beyond a detector's box, in shares of the box's sides: left, top, right, bottom."""
        return self.model.margin

    @property
    def notes(self) -> list[str]:
        """Notes on the scores: how they were measured, and whether on people."""
        return header_of(self.model)

    def __repr__(self) -> str:
        return f"LoadedModel({self.name!r}: {'; '.join(self.notes)})"

    def predict(
        self, source: str | Path | Iterable[Any], boxes: Any = None, **options: Unpack[PredictOptions]
    ) -> pd.DataFrame:
        """Score every face of every frame of a video, of frames with boxes, or of face crops.

        **A video** is decoded, searched for faces and scored as by `python bench.py predict`, with the same figures.

        **Frames** are RGB pictures ``(H, W, 3)`` uint8 with one box ``(4,)`` or several ``(N, 4)`` each: x1, y1, x2,
        y2 in pixels, from forehead to chin and from cheek to cheek, as face detectors draw them. The model's margin is
        added here. Boxes of one person are one track. They need `rate` or `times`.

        **Crops** are frames without boxes: pictures of one person's face, one after another. A crop must look like the
        training crops: a detector's box, widened by `margin`. For `gaze_nano_lstm` and `internlstm_nano` that is the
        whole head without the neck. Nothing is added, and any size is fine.

        Frames and crops may be an array ``(T, H, W, 3)``, a list or a generator, which is read once.

        Args:
            source: path of a video, `sample` for the shipped one, frames, or crops.
            boxes: of frames: one entry per frame. Of a video: None to use a detector, or the path of a CSV file with
                the columns track, x1, y1, x2, y2, and frame or time. None with frames: they are crops.
            options: see `PredictOptions`.

        Returns:
            A row per face and frame, by frame. time (seconds), frame (number from 0), track (name), x1, y1, x2, y2
            (pixels), score (P(looking) in [0, 1]), looking (bool, decoded along the track with the model's threshold
            and cost), seconds (how long the frame is shown). `attrs["notes"]` has the model's notes.

        Raises:
            UserError: anything that the caller can correct, in one line.

        Example:
            >>> model = load_model("internlstm_nano")
            >>> crops = np.full((8, 96, 80, 3), 128, dtype=np.uint8)  # eight grey crops
            >>> faces = model.predict(crops, rate=30)
            >>> faces.columns.tolist()
            ['time', 'frame', 'track', 'x1', 'y1', 'x2', 'y2', 'score', 'looking', 'seconds']
            >>> len(faces), int(faces["looking"].sum())
            (8, 0)
            >>> frames = np.full((8, 360, 640, 3), 128, dtype=np.uint8)  # two people in each
            >>> boxes = np.tile([[100, 80, 160, 150], [400, 90, 450, 150]], (8, 1, 1))
            >>> faces = model.predict(frames, boxes, tracks=[["ann", "bob"]] * 8, rate=30)
            >>> faces["track"].tolist()[:3]
            ['ann', 'bob', 'ann']
        """
        _check("predict", options, PredictOptions)
        if isinstance(source, str | os.PathLike):
            _refuse(OF_FRAMES, options, "frames, and the source is a video")
            return self._predict_video(named_video(os.fspath(source)), boxes, options)
        _refuse(OF_VIDEOS, options, "a video, and the source is frames")
        own = Arrays(source, boxes, options.get("tracks"), options.get("rate"), options.get("times"))
        return self._predict_arrays(own, options)

    def looks(self, faces: pd.DataFrame, min_duration: float = LEAST, merge_gap: float = MERGE) -> pd.DataFrame:
        """Join the frames that look to looks, as `bouts.csv` has them.

        Args:
            faces: from `predict`, or rows of it.
            min_duration: seconds; shorter looks are dropped.
            merge_gap: seconds; looks of a track this close together become one.

        Returns:
            A row per look, by start: track, start, end, duration (seconds), score (mean over its frames).

        Raises:
            UserError: a column is missing, or a value is out of range.

        Example:
            >>> model = load_model("internlstm_nano")
            >>> faces = model.predict(np.zeros((30, 64, 64, 3), dtype=np.uint8), rate=30, threshold=0)
            >>> model.looks(faces)[["track", "start", "end"]].round(3).values.tolist()
            [['1', 0.0, 1.0]]
        """
        check_limits({"min_duration": min_duration, "merge_gap": merge_gap})
        missing = [name for name in FACES if name not in faces]
        if missing:
            raise UserError(f"faces lack {', '.join(missing)}; give what predict returned, or rows of it")
        ordered = faces.sort_values("frame", kind="stable")
        rows = zip(_scored(ordered), ordered["seconds"], ordered["looking"], strict=True)
        found = join_looks(rows, BoutOptions(least=min_duration, merge=merge_gap))
        lines = [(each.track, each.start, each.end, each.end - each.start, each.score) for each in found]
        columns = ["track", "start", "end", "duration", "score"]
        return pd.DataFrame(lines, columns=columns).astype({"track": object} | dict.fromkeys(columns[1:], float))

    def live(self, **options: Unpack[LiveOptions]) -> Live:
        """Start to score pictures as they come, each at once and without later ones.

        Args:
            options: see `LiveOptions`.

        Returns:
            An object with ``push(picture, time, boxes=None)``, which returns the faces of that picture.

        Raises:
            UserError: an option is out of range, or the detector's package is missing.

        Example:
            >>> live = load_model("internlstm_nano").live(detector=None)  # boxes come from a detector of your own
            >>> picture = np.full((360, 640, 3), 128, dtype=np.uint8)
            >>> for number in range(4):
            ...     faces = live.push(picture, time=number / 30, boxes=[[100, 80, 160, 150]])
            >>> [(face.frame, face.track, round(face.score, 1)) for face in faces]
            [(3, '1', 0.6)]
        """
        _check("live", options, LiveOptions)
        detector, rate = options.get("detector", DETECTOR), options.get("detections", DETECTIONS)
        source = FaceSource(None, rate) if detector is None else face_source(_named(detector), rate, causal=True)
        return Live(self.model, source, self._looks(options))

    def _looks(self, options: LookOptions) -> BoutOptions:
        threshold, cost = options.get("threshold"), options.get("change_cost")
        return BoutOptions(
            threshold=self.model.threshold if threshold is None else threshold,
            cost=self.model.cost if cost is None else cost,
        )

    def _predict_arrays(self, own: Arrays, options: PredictOptions) -> pd.DataFrame:
        scorer = Scorer(self.model, options.get("causal", False), crops=own.boxes is None)
        times, rows = [], []
        for tracked in own.tracked():
            times.append(tracked.frame.time)
            rows += scorer.push(tracked)
        rows += scorer.finish()
        frame_time = float(np.median(np.diff(times))) if len(times) > 1 else 1 / self.model.rate
        return self._table(rows, frame_time, self._looks(options))

    def _predict_video(self, path: Path, boxes: Any, options: PredictOptions) -> pd.DataFrame:
        if not (boxes is None or isinstance(boxes, str | os.PathLike)):
            raise UserError("boxes of a video are the path of a CSV file; give arrays of boxes with frames")
        if boxes is not None and "detector" in options:
            raise UserError("boxes replace the detector; drop one of them")
        video = Video(path)
        faces = Path(boxes) if boxes is not None else _named(options.get("detector", DETECTOR))
        source = face_source(faces, options.get("detections", DETECTIONS), options.get("causal", False))
        looks = self._looks(options)
        if (out := options.get("out")) is not None:
            predict_video(path, self.model, source, looks, Path(out))
            return self._table(read_rows(Path(out) / "frames.csv"), video.frame_time, looks)
        with TemporaryDirectory() as folder:
            job = Job(video, self.model, source, Path(folder), annotated=False)
            job.work.mkdir()
            score_faces(job)
            return self._table(read_rows(job.work / KEPT), video.frame_time, looks)

    def _table(self, rows: Iterable[ScoredFace], frame_time: float, looks: BoutOptions) -> pd.DataFrame:
        """Return the data frame of `predict`; a frame lasts `frame_time` seconds as a rule."""
        rows = list(rows)
        decided = {  # in another order, because some frames are decided late
            (row.frame, row.track): (looking, seconds)
            for row, seconds, looking in decide_looks(rows, frame_time, looks)
        }
        lines = [
            (row.time, row.frame, row.track, *row.box.tolist(), row.score, *decided[row.frame, row.track])
            for row in rows
        ]
        types = dict.fromkeys(FACES, float) | {"frame": int, "track": object, "looking": bool}
        table = pd.DataFrame(lines, columns=FACES).astype(types)
        table.attrs["notes"] = self.notes
        return table


def load_model(name: str | Path, device: str | None = None) -> LoadedModel:
    """Load a shipped model, a model folder, or a model of the Hugging Face hub, as `predict --model` does.

    Args:
        name: name of a shipped model (see `list_models`), path of a folder, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``.
        device: torch device; None for a GPU if there is one, else the CPU.

    Raises:
        UserError: no such model (lists the shipped ones), its folder is damaged, a package that it needs is missing, or
            this machine lacks the device.

    Example:
        >>> model = load_model("internlstm_nano")
        >>> model.name, model.model.rate, model.margin
        ('internlstm_nano', 30.0, (0.14, 0.37, 0.14, 0.09))
    """
    return LoadedModel(open_model(os.fspath(name), take_device(device)))


def list_models() -> pd.DataFrame:
    """List the shipped models, as `python bench.py list models` does.

    Returns:
        A row per model: name, what (what it is), measured (what it was measured on, and the result).

    Example:
        >>> list_models()["name"].tolist()
        ['gaze_nano_lstm', 'geometry', 'internlstm_nano']
    """
    lines = [(name, card.title, _measured(name)) for name, card in model_cards().items()]
    return pd.DataFrame(lines, columns=["name", "what", "measured"])


def _measured(name: str) -> str:
    """Return what a shipped model was measured on."""
    config = read_model_config(weights.FOLDER / name)
    line = config.get("measured", "not measured")
    return f"{line}; trained on rendered faces only" if config["rendered_only"] else line


def _named(detector: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return detector if isinstance(detector, Mapping) else {"type": detector}


def _refuse(names: Iterable[str], options: Mapping[str, Any], why: str) -> None:
    for name in names:
        if name in options:
            raise UserError(f"{name} is an option for {why}; leave it out")


def _check(function: str, options: Mapping[str, Any], known: type) -> None:
    """Check names and ranges of options.

    Raises:
        UserError: names the option.
    """
    names = sorted(known.__annotations__ | LookOptions.__annotations__)
    for name in options:
        if name not in names:
            raise UserError(f"{function} has no option '{printable(name)}'{did_you_mean(name, names)}")
    check_limits(options)


def _scored(faces: pd.DataFrame) -> Iterator[ScoredFace]:
    """Yield the rows of a frame of `predict`."""
    boxes = faces[["x1", "y1", "x2", "y2"]].to_numpy(float)
    columns = (faces[name] for name in ("time", "frame", "track", "score"))
    for box, time, frame, track, score in zip(boxes, *columns, strict=True):
        yield ScoredFace(float(time), int(frame), str(track), box, float(score))
