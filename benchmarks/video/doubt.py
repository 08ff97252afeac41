"""Doubts about tracks: detectors find faces in dark and cluttered pictures that have none.

A track counts as a face if the detector was confident of it at least twice and, unless the detector was sure of it
twice, Face Mesh recognises a face in it at least once.
"""

from __future__ import annotations

import importlib.util
import math

import numpy as np

from backbones.face_mesh import PACKAGE, SHA256
from benchmarks.priors.face_mesh import Estimator
from benchmarks.video.detectors.base import Detector
from benchmarks.video.faces import GivenFaces
from benchmarks.video.journal import Looks
from benchmarks.video.scorer import cut, widened
from benchmarks.video.track import TrackedFrame, Tracker

RATE = 15.0  # looks per second at a track of which the detector is unsure, until a face is recognised in it
# Face Mesh's confidence that a picture has a face. Of 339 boxes on walls, leaves, houses and noise one reaches it; of
# the 49 tracks in a minute of rendered video all but 4 do, whose faces are under 30 pixels.
LEAST = 0.05
MARGIN = (0.25,) * 4  # of the crop around the detector's box, in shares of its sides


def mesh_sha256(detector: Detector | None) -> str | None:
    """Returns the sha256 of Face Mesh's network if it is used: it is installed, and the detector is ever unsure."""
    needed = detector is not None and detector.sure > 0 and importlib.util.find_spec(PACKAGE) is not None
    return SHA256 if needed else None


class Doubts:
    """Looks at tracks, frame by frame, and says which are hardly faces.

    Args:
        detector: found the faces; None if the user gives the boxes, which are not doubted.
        tracker: places the frames.
        looks: those of earlier runs are not repeated; None: no run can resume this one.
    """

    def __init__(self, detector: Detector | None, tracker: Tracker | GivenFaces, looks: Looks | None = None) -> None:
        self._detector, self._looks = detector or Detector(), looks
        self._second = tracker.second if isinstance(tracker, Tracker) else {}
        self._estimator = Estimator() if mesh_sha256(detector) else None
        self._looked: dict[str, float] = {}  # track -> time of the last look at it
        self._recognised: set[str] = set()

    def look(self, tracked: TrackedFrame) -> bool:
        """Looks at the tracks of the next frame that are still in doubt.

        Returns:
            Whether that could be done: False if the frame has no picture and no earlier run has looked at it.
        """
        frame, done = tracked.frame, True
        for track, box in zip(tracked.tracks, tracked.boxes, strict=True):
            recent = frame.time - self._looked.get(track, -math.inf) < 1 / RATE
            if self._estimator is None or recent or not self._unsure(track):
                continue
            self._looked[track] = frame.time
            found = self._looks.made.get((track, frame.number)) if self._looks is not None else None
            if found is None:
                if frame.shown is None:
                    done = False
                    continue
                crop = cut(frame.picture(), widened(box, MARGIN))
                found = bool(crop is not None and self._estimator.mesh(crop, np.full(2, np.nan))[1] >= LEAST)
                if self._looks is not None:
                    self._looks.append(track, frame.number, found)
            if found:
                self._recognised.add(track)
        return done

    def doubted(self, track: str) -> bool:
        """Whether a track is hardly a face, by what has been seen of it so far."""
        second = self._second.get(track, math.inf)
        if second < self._detector.confident:
            return True
        return self._estimator is not None and self._unsure(track)

    def _unsure(self, track: str) -> bool:
        return track not in self._recognised and self._second.get(track, math.inf) < self._detector.sure

    def dropped(self) -> set[str]:
        """Returns all tracks that are hardly faces, after the last frame."""
        return {track for track in self._second if self.doubted(track)}
