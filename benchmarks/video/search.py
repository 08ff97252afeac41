"""The faces of every frame: detected in it, given by the user, or known from the journal of an earlier run."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd

from backbones.checksums import file_sha256
from benchmarks.system.ahead import made_ahead
from benchmarks.video.decode import Frame, FrameStream
from benchmarks.video.detectors.base import Detector, Faces, best, iou
from benchmarks.video.faces import GivenFaces, read_faces
from benchmarks.video.journal import Journal
from benchmarks.video.track import LEAST, Tracker
from registry import DETECTORS, UserError

LOOKS = 10.0  # searches per second near the expected faces
BACK = 0.5  # seconds before a whole-frame search in which its new faces are searched for too
AROUND = 1.5  # half the side of the region searched around an expected box, in longer sides of the box
FACE = 48  # pixels of the box's longer side in the resized region
AHEAD = 8  # frames that are decoded and searched before the ones before them are scored

_one_search = Lock()  # detectors need not bear two threads at once


@dataclass(frozen=True)
class FaceSource:
    """Where faces come from.

    Attributes:
        detector: None if the user gives the boxes.
        rate: whole frames per second that the detector searches. In between it searches only near expected faces and,
            unless causal, where the next whole frame has new ones.
        given: boxes from `read_faces`, or None.
        given_sha256: of their file.
        causal: use no frame later than the one that is scored.
    """

    detector: Detector | None
    rate: float
    given: pd.DataFrame | None = None
    given_sha256: str | None = None
    causal: bool = False

    def tracker(self, video: FrameStream) -> Tracker | GivenFaces:
        """Returns a new tracker for the video, or the given boxes in place of one."""
        return Tracker(self.causal) if self.given is None else GivenFaces(self.given, video.frame_time)


def face_source(faces: Mapping[str, Any] | Path, rate: float, causal: bool = False) -> FaceSource:
    """Builds a detector, or reads boxes.

    Args:
        faces: ``dict(type=NAME, **arguments)`` of a detector, or the path of a CSV for `read_faces`.
        rate: whole frames per second that the detector searches.
        causal: use no frame later than the one that is scored.

    Raises:
        UserError: no such detector, its package is missing, or the file cannot be read.
    """
    if isinstance(faces, Path):
        return FaceSource(None, rate, read_faces(faces), file_sha256(faces), causal)
    return FaceSource(DETECTORS.build(dict(faces)), rate, causal=causal)


def frames_with_faces(
    video: FrameStream, source: FaceSource, journal: Journal, tracker: Tracker | GivenFaces, needed: float
) -> Iterator[tuple[Frame, Faces | None]]:
    """Yields every frame with its faces; None where none were searched for.

    Faces come from the journal as far as it reaches. Frames before `needed` are then not decoded and have no picture.

    Args:
        video: source of the frames.
        source: detector and rates.
        journal: read, then continued.
        tracker: has placed every frame yielded before the next one is requested.
        needed: seconds from which frames must have pictures.
    """
    after, recorded = None, iter(journal.read())
    pending = next(recorded, None)
    while pending is not None and pending[0].time < needed:
        after = pending[0]
        yield pending
        pending = next(recorded, None)
    waiting: deque[tuple[Frame, bool]] = deque()  # frames, and whether a search near expected faces is due in them
    delay = 0.0 if source.causal or source.detector is None else BACK

    def settle(newest: Frame | None = None, found: np.ndarray | None = None) -> Iterator[tuple[Frame, Faces | None]]:
        """Searches waiting frames: all, or those `delay` before `newest`, or all with the boxes found in `newest`."""
        while waiting and (newest is None or found is not None or newest.time - waiting[0][0].time >= delay):
            frame, due = waiting.popleft()
            faces = None
            if due:
                assert source.detector is not None and isinstance(tracker, Tracker)
                expected = tracker.expected(frame.time)
                if newest is not None and found is not None:
                    known = iou(found, tracker.expected(newest.time)).max(axis=1, initial=0) >= LEAST
                    expected = np.concatenate([expected, found[~known]])
                faces = search_around(source.detector, frame, expected) if len(expected) else None
            journal.append(frame, faces)
            yield frame, faces

    last = None if pending is None else journal.last()
    decoded = _decoded(video, source, after, last)
    if not video.live:  # a camera's frames are shown at once
        decoded = made_ahead(decoded, AHEAD)
    for frame, faces, due in decoded:
        if pending is not None:
            if pending[0] != frame:
                raise UserError(
                    f"video {video.name} has changed: frame {frame.number} is at {frame.time:.6f} s, before it was at "
                    f"{pending[0].time:.6f} s; use another folder: -o DIR"
                )
            yield frame, pending[1]
            pending = next(recorded, None)
        elif faces is not None:
            yield from settle(frame)
            yield from settle(frame, faces.boxes)
            journal.append(frame, faces)
            yield frame, faces
        else:
            waiting.append((frame, due))
            yield from settle(frame)
    yield from settle()


def _decoded(
    video: FrameStream, source: FaceSource, after: Frame | None, last: int | None
) -> Iterator[tuple[Frame, Faces | None, bool]]:
    """Decodes the frames after one and searches whole ones; needs no tracker, so it runs ahead in a thread.

    Args:
        video: source of the frames.
        source: detector and rates.
        after: frame before the first one.
        last: number of the last frame that need not be searched; None: all are.

    Yields:
        Each frame, its faces or None if the whole frame was not searched, and whether a search near expected faces is
        due in it.
    """
    before = after
    for frame in video.frames(after):
        faces, due = None, False
        if source.detector is not None and (last is None or frame.number > last):
            if _due(before, frame, source.rate):
                faces = search_whole(source.detector, frame, video.size)
            else:
                due = _due(before, frame, LOOKS)
        yield frame, faces, due
        before = frame


def _due(before: Frame | None, frame: Frame, rate: float) -> bool:
    """Whether work done `rate` times per second is due in a frame; depends on times alone, so resumed runs agree."""
    return before is None or math.floor(before.time * rate + 1e-6) < math.floor(frame.time * rate + 1e-6)


class LiveSearch:
    """Searches single frames as they come, as often as `frames_with_faces` does for a causal source.

    Args:
        detector: of the source.
        rate: of the source.
    """

    def __init__(self, detector: Detector, rate: float) -> None:
        self._detector, self._rate = detector, rate
        self._before: Frame | None = None

    def faces(self, frame: Frame, tracker: Tracker) -> Faces | None:
        """Returns the faces of the next frame; None if no search is due in it.

        Args:
            frame: with its picture.
            tracker: has placed the frames before.
        """
        before, self._before = self._before, frame
        if _due(before, frame, self._rate):
            height, width = frame.picture().shape[:2]
            return search_whole(self._detector, frame, (width, height))
        expected = tracker.expected(frame.time) if _due(before, frame, LOOKS) else ()
        return search_around(self._detector, frame, np.asarray(expected)) if len(expected) else None


def search_whole(detector: Detector, frame: Frame, of: tuple[int, int]) -> Faces:
    """Searches a whole frame; boxes in pixels of a frame of this width and height."""
    picture = frame.reduced(detector.side)
    with _one_search:
        boxes, scores = detector.detect(picture)
    scale = np.array(of) / picture.shape[1::-1]
    return Faces(boxes * np.tile(scale, 2), scores)


def search_around(detector: Detector, frame: Frame, expected: np.ndarray) -> Faces:
    """Searches a frame around each of the expected boxes ``(N, 4)``, in a resized region per box."""
    import cv2

    picture = frame.picture()
    size = np.array(picture.shape[1::-1])
    boxes, scores = [np.empty((0, 4))], [np.empty(0)]
    for box in expected:
        side = max(box[2:] - box[:2])
        middle = (box[:2] + box[2:]) / 2
        left, top = np.clip(np.floor(middle - AROUND * side), 0, size).astype(int)
        right, bottom = np.clip(np.ceil(middle + AROUND * side), 0, size).astype(int)
        if right - left < 2 or bottom - top < 2:
            continue
        scale = min(FACE / side, 2.0)
        shape = (max(1, round(scale * (right - left))), max(1, round(scale * (bottom - top))))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        region = cv2.resize(picture[top:bottom, left:right], shape, interpolation=how)
        with _one_search:
            found = detector.detect(region)
        stretch = np.array([right - left, bottom - top]) / shape
        boxes.append(found.boxes * np.tile(stretch, 2) + [left, top, left, top])
        scores.append(found.scores)
    return best(np.concatenate(boxes), np.concatenate(scores))
