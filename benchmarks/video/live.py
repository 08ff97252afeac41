"""Scores frames at once, as they come: pictures of a program, or a camera, which is recorded like a video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from benchmarks.evaluation.calibration import log_odds
from benchmarks.scoring.looks import GAP, LOOK_CUT, Decoder
from benchmarks.system.locks import NAME, locked
from benchmarks.system.progress import plural, say
from benchmarks.video.annotate import SIDE, DrawnFace, draw_faces, join_parts
from benchmarks.video.arrays import as_boxes, as_picture, as_time
from benchmarks.video.bouts import BoutOptions
from benchmarks.video.camera import Camera, Recording
from benchmarks.video.decode import Frame, Video
from benchmarks.video.detectors.base import Faces
from benchmarks.video.doubt import Doubts
from benchmarks.video.journal import UNFINISHED
from benchmarks.video.pipeline import FILES, RECORDING, Job, Summary, identity_of, score_faces, write_results
from benchmarks.video.scorer import ScoredFace, Scorer
from benchmarks.video.search import FaceSource, LiveSearch
from benchmarks.video.track import Tracker
from benchmarks.video.window import LiveWindow
from registry import UserError
from zoo.files.atomic import check_writable, replacing, write_json
from zoo.models import Model


@dataclass
class _LiveTrack:
    decoder: Decoder
    newest: float  # seconds


class LiveLooks:
    """Says of each face, as it comes, whether it looks: what the decoder of looks holds for likelier so far.

    Args:
        options: threshold and cost of a change.
    """

    def __init__(self, options: BoutOptions) -> None:
        self._options = options
        self._level = log_odds(options.threshold, LOOK_CUT)
        self._tracks: dict[str, _LiveTrack] = {}

    def looks(self, row: ScoredFace) -> bool:
        """Adds the next face of a track."""
        if not self._options.cost:
            return row.score >= self._options.threshold
        track = self._tracks.get(row.track)
        if track is None or row.time - track.newest > GAP:
            self._tracks = {name: kept for name, kept in self._tracks.items() if row.time - kept.newest <= GAP}
            track = self._tracks[row.track] = _LiveTrack(Decoder(self._options.cost), row.time)
        # The frame's own duration is unknown yet; the one before it is taken for it.
        evidence = float(log_odds(row.score, LOOK_CUT) - self._level) * (row.time - track.newest or GAP / 9)
        track.decoder.push(evidence)
        track.newest = row.time
        return track.decoder.leading


class LiveFace(NamedTuple):
    """A face of the newest frame.

    Attributes:
        time: seconds, as given.
        frame: number of the frame, from 0.
        track: name.
        x1: left edge of the box, pixels.
        y1: upper edge.
        x2: right edge.
        y2: lower edge.
        score: P(looking at the camera), from this frame and earlier ones.
        looking: whether it is likelier, so far, that the face looks.
    """

    time: float
    frame: int
    track: str
    x1: float
    y1: float
    x2: float
    y2: float
    score: float
    looking: bool


class Live:
    """Scores pictures as they come. Make one with `load_model(NAME).live()`.

    Scores and tracks are those of `predict --causal`: nothing waits for a later picture. A track begins with its third
    detection. Memory does not grow with time.

    Args:
        model: computes on the device where its weights are.
        source: its detector, or None if all pictures come with boxes; and how often to search.
        options: threshold and cost of a change.
    """

    def __init__(self, model: Model, source: FaceSource, options: BoutOptions) -> None:
        self._tracker, self._scorer, self._looks = Tracker(causal=True), Scorer(model, causal=True), LiveLooks(options)
        self._search = LiveSearch(source.detector, source.rate) if source.detector is not None else None
        self._doubts = Doubts(source.detector, self._tracker)
        self._number, self._before = 0, -math.inf

    def push(self, picture: Any, time: float, boxes: Any = None) -> list[LiveFace]:
        """Adds the next picture and returns its faces, in the order in which their tracks began.

        It takes as long as detection and scoring take. If pictures come faster, push the newest and skip the others.

        Args:
            picture: ``(H, W, 3)`` uint8, RGB. OpenCV's are BGR: ``picture[..., ::-1]``.
            time: seconds, by any clock; more than that of the picture before.
            boxes: ``(N, 4)`` x1, y1, x2, y2 in pixels, from forehead to chin, as your own detector found them here;
                they are linked to tracks. None: the model's detector searches, if a search is due.

        Raises:
            UserError: a picture, box or time that cannot be; or neither boxes nor a detector.
        """
        where = f"frame {self._number}"
        now, pixels = as_time(time, self._before, where), as_picture(picture, where)
        frame = Frame(self._number, now, stamp=self._number, lost=0, shown=pixels)
        if boxes is not None:
            given = as_boxes(boxes, pixels, where)
            faces: Faces | None = Faces(given, np.ones(len(given)))
        elif self._search is not None:
            faces = self._search.faces(frame, self._tracker)
        else:
            raise UserError(f"{where} has no boxes, and live(detector=None) has no detector; give boxes")
        self._number, self._before = self._number + 1, now
        found = []
        for tracked in self._tracker.place(frame, faces):
            self._doubts.look(tracked)
            for row in self._scorer.push(tracked):
                if not self._doubts.doubted(row.track):
                    left, top, right, bottom = row.box.tolist()
                    place = row.time, row.frame, row.track, left, top, right, bottom
                    found.append(LiveFace(*place, row.score, self._looks.looks(row)))
        return found


def predict_camera(job: Job, options: BoutOptions, window: LiveWindow | None = None) -> Summary:
    """Scores a camera until the user ends it; then writes the files of `FILES`, and the recording.

    Args:
        job: frames from a `Camera`, faces from a causal source.
        options: what counts as a bout.
        window: shows what is found.

    Raises:
        UserError: the folder has results already or cannot be written, or the camera gave no picture.
    """
    camera, out = job.frames, job.out
    assert isinstance(camera, Camera) and job.source.causal
    check_writable(out)
    with locked(out / NAME, str(out)):
        taken = [name for name in (*FILES, RECORDING, UNFINISHED) if (out / name).exists()]
        if taken:
            there = [path for path in (out / RECORDING, job.work / RECORDING) if path.exists()]
            again = f" (to score the recording again: predict {there[0]} -o DIR)" if there else ""
            raise UserError(f"{out} has {taken[0]} already; use another folder: -o DIR{again}")
        recorded = job.work / RECORDING
        recording, looks = Recording(recorded, camera.size), LiveLooks(options)

        def watch(frame: Frame, rows: Sequence[ScoredFace]) -> None:
            recording.add(frame)
            faces = [DrawnFace(row, looks.looks(row)) for row in rows]
            if window is not None:
                window.show(drawn(frame, faces, camera.size, job.header))

        try:
            facts = score_faces(replace(job, watch=watch))
        finally:
            recording.close()
        with replacing(out / RECORDING) as temporary:
            join_parts([recorded], temporary, job.header)
        video = Video(out / RECORDING)
        if camera.skipped:
            say(f"{camera.name}: skipped {plural(camera.skipped, 'picture')} that came while another one was scored")
        settings = identity_of(video, job.model, job.source)
        run = {"settings": settings, "facts": facts | {"skipped": camera.skipped}, "camera": camera.name}
        write_json(out / "run.json", run)
        return write_results(video, run, options, job)


def drawn(frame: Frame, faces: Sequence[DrawnFace], size: tuple[int, int], header: Sequence[str]) -> np.ndarray:
    """Returns the picture of a frame with its faces ``(H, W, 3)``, as in annotated.mp4."""
    picture = frame.reduced(SIDE)
    return draw_faces(picture, faces, picture.shape[1] / size[0], header)
