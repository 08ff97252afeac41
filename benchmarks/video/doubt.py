"""Doubts about tracks: detectors find faces in dark and cluttered pictures that have none.

A track counts as a face if the detector was confident of it at least twice and, unless the detector was sure of it
twice, Face Mesh recognises a face in it at least once.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np

from benchmarks.priors.face_mesh import PACKAGE, SHA256, Estimator
from benchmarks.video.detectors.base import Detector
from benchmarks.video.journal import Recognised
from benchmarks.video.scorer import cut, widened
from benchmarks.video.track import TrackedFrame, Tracker

RATE = 5.0  # looks at a track per second until a face is recognised in it
LEAST = 0.05  # Face Mesh's confidence that a picture has a face; SynthLAM's faces of 40 pixels reach it in any track
MARGIN = (0.25,) * 4  # of the crop around the detector's box, in shares of its sides


def mesh_sha256(detector: Detector | None) -> str | None:
    """Returns the sha256 of Face Mesh's network if it is used: it is installed, and the detector is ever unsure."""
    needed = detector is not None and detector.sure > 0 and importlib.util.find_spec(PACKAGE) is not None
    return SHA256 if needed else None


class Doubts:
    """Looks at tracks and says which are hardly faces.

    Args:
        detector: found the faces.
        tracker: made the tracks.
        path: of the journal of recognised faces; it is continued.
    """

    def __init__(self, detector: Detector, tracker: Tracker, path: Path) -> None:
        self._detector, self._tracker = detector, tracker
        self._recognised = Recognised(path)
        self._estimator = Estimator() if mesh_sha256(detector) else None
        self._looked: dict[str, float] = {}  # track -> time of the last look at it

    def look(self, tracked: TrackedFrame) -> None:
        """Looks at the tracks of the next frame in which no face has been recognised yet."""
        if self._estimator is None:
            return
        frame = tracked.frame
        for track, box in zip(tracked.tracks, tracked.boxes, strict=True):
            since = self._recognised.since.get(track)
            recognised = since is not None and since <= frame.number
            if recognised or frame.time - self._looked.get(track, -math.inf) < 1 / RATE:
                continue
            self._looked[track] = frame.time
            if frame.shown is None:  # an earlier run has looked
                continue
            crop = cut(frame.picture(), widened(box, MARGIN))
            if crop is not None and self._estimator.mesh(crop, np.full(2, np.nan))[1] >= LEAST:
                self._recognised.append(track, frame.number)

    def doubted(self, track: str, frame: float = math.inf) -> bool:
        """Whether a track is hardly a face, by its frames up to one; the tracker has placed no later frame."""
        second = self._tracker.second.get(track, 0.0)
        if second < self._detector.confident:
            return True
        if self._estimator is None or second >= self._detector.sure:
            return False
        since = self._recognised.since.get(track)
        return since is None or since > frame

    def dropped(self) -> set[str]:
        """Returns all tracks that are hardly faces, after the last frame."""
        return {track for track in self._tracker.second if self.doubted(track)}

    def close(self) -> None:
        """Closes the journal."""
        self._recognised.close()
