"""Links the detections of single frames to tracks, with boxes for the frames in between.

Each track has a Kalman filter that assumes a constant velocity of its box. The Hungarian method assigns detections to
tracks so that their total overlap is largest. As in C-BIoU (Yang et al., 2023) boxes are widened for this comparison,
because a head-worn camera moves faces by more than their size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from benchmarks.video.decode import Frame
from benchmarks.video.detectors.base import Faces, iou

GAP = 0.5  # seconds a face may be lost before its track ends; boxes in between are interpolated
CONFIRMED = 3  # detections that confirm a track
WIDENED = 0.5  # widening of a box on each edge, in its sides, before boxes are compared
LEAST = 0.1  # minimum intersection over union of widened boxes of one face
PLACE = 0.05  # standard deviation of a detection's edges, in sides of the box
PUSH = 8.0  # standard deviation of the acceleration, in sides of the box per second squared
SPEED = 2.0  # standard deviation of a new track's velocity, in sides of the box per second


class TrackedFrame(NamedTuple):
    """A frame with its final faces; later frames do not change them.

    Attributes:
        frame: of the video.
        tracks: N names, in the order in which the tracks began.
        boxes: ``(N, 4)`` float64 x1, y1, x2, y2 in pixels.
    """

    frame: Frame
    tracks: Sequence[str]
    boxes: np.ndarray


class Motion:
    """Kalman filter of the four edges of a box and their velocities, for uneven time steps.

    Args:
        box: ``(4,)`` first detection.
        time: its time in seconds.
    """

    def __init__(self, box: np.ndarray, time: float) -> None:
        side = _side(box)
        self.state = np.stack([box, np.zeros(4)])  # value and velocity of each edge
        self.spread = np.diag([(PLACE * side) ** 2, (SPEED * side) ** 2])  # covariance, the same for all edges
        self.time = time

    def predicted(self, time: float) -> np.ndarray:
        """Predicts the box ``(4,)`` at a time not before the last detection."""
        return self.state[0] + (time - self.time) * self.state[1]

    def update(self, box: np.ndarray, time: float) -> None:
        """Adds a detection."""
        step, side = time - self.time, _side(box)
        ahead = np.array([[1.0, step], [0.0, 1.0]])
        # White noise of the acceleration, constant over the step.
        pushed = np.array([step**2 / 2, step])
        self.state = ahead @ self.state
        self.spread = ahead @ self.spread @ ahead.T + (PUSH * side) ** 2 * np.outer(pushed, pushed)
        gain = self.spread[:, 0] / (self.spread[0, 0] + (PLACE * side) ** 2)
        self.state = self.state + np.outer(gain, box - self.state[0])
        self.spread = self.spread - np.outer(gain, self.spread[0])
        self.time = time


def _side(box: np.ndarray) -> float:
    return float(max(np.sqrt(max(box[2] - box[0], 1.0) * max(box[3] - box[1], 1.0)), 1.0))


@dataclass
class _Track:
    motion: Motion
    number: int  # of the frame of the last detection
    box: np.ndarray  # the last detection
    scores: tuple[float, float]  # the highest two of its detections
    count: int = 1
    name: str | None = None  # once it is confirmed
    waiting: list[tuple[int, np.ndarray]] = field(default_factory=list)  # boxes by frame until then


class Tracker:
    """Links faces to tracks, frame by frame, with a delay of at most `GAP`.

    Frames that were not searched, or in which a face was not found for up to `GAP` seconds, get interpolated boxes.
    A track is confirmed by its third detection and then includes the first two.

    Args:
        causal: return each frame at once, from the past alone. A track then lacks its first two detections; frames that
            were not searched get predicted boxes; frames in which a face was not found do not have it.
    """

    def __init__(self, causal: bool = False) -> None:
        self.causal = causal
        self._tracks: list[_Track] = []
        self._named = 0
        self.second: dict[str, float] = {}  # track -> the second highest score of its detections so far
        self._searched = -1  # number of the last frame that was searched
        self._held: deque[tuple[Frame, dict[int, np.ndarray]]] = deque()  # frames not yet returned, with boxes by track

    def place(self, frame: Frame, faces: Faces | None) -> list[TrackedFrame]:
        """Adds the next frame.

        Args:
            frame: later than all frames before.
            faces: detections; None if the frame was not searched.

        Returns:
            The frames whose faces are now final, in order; in causal mode this frame.
        """
        self._held.append((frame, {}))
        if faces is not None:
            self._associate(frame, faces)
        elif self.causal:
            for track in self._tracks:
                if track.name is not None and track.number == self._searched:
                    self._put(track, frame.number, track.motion.predicted(frame.time))
        if self.causal:
            return self._settled(frame.number)
        self._tracks = [track for track in self._tracks if frame.time - track.motion.time <= GAP]
        # Frames up to the last detection of a confirmed track are final; an unconfirmed track holds all its frames.
        open_from = [t.number + 1 if t.name is not None else t.waiting[0][0] for t in self._tracks]
        return self._settled(min([*(number - 1 for number in open_from), frame.number]))

    def expected(self, time: float) -> np.ndarray:
        """Predicts the boxes ``(N, 4)`` of all tracks at a time after the last frame."""
        tracks = [track for track in self._tracks if time - track.motion.time <= GAP]
        return np.array([track.motion.predicted(time) for track in tracks]).reshape(-1, 4)

    def finish(self) -> list[TrackedFrame]:
        """Returns the remaining frames after the last one."""
        return self._settled(self._held[-1][0].number) if self._held else []

    def _settled(self, until: int) -> list[TrackedFrame]:
        out = []
        while self._held and self._held[0][0].number <= until:
            frame, boxes = self._held.popleft()
            names = sorted(boxes)
            out.append(TrackedFrame(frame, [str(n) for n in names], np.array([boxes[n] for n in names]).reshape(-1, 4)))
        return out

    def _associate(self, frame: Frame, faces: Faces) -> None:
        self._searched = frame.number
        self._tracks = [track for track in self._tracks if frame.time - track.motion.time <= GAP]
        expected = np.array([track.motion.predicted(frame.time) for track in self._tracks]).reshape(-1, 4)
        overlap = iou(_widened(expected), _widened(faces.boxes))
        free = set(range(len(faces.boxes)))
        for place, found in zip(*linear_sum_assignment(-overlap), strict=True):
            if overlap[place, found] >= LEAST:
                track = self._tracks[place]
                _, second, best = sorted((*track.scores, float(faces.scores[found])))
                track.scores = best, second
                self._extend(track, frame, faces.boxes[found])
                free.discard(int(found))
        for found in sorted(free):
            box = faces.boxes[found]
            waiting = [(frame.number, box)]
            scores = (float(faces.scores[found]), 0.0)
            self._tracks.append(_Track(Motion(box, frame.time), frame.number, box, scores, waiting=waiting))

    def _extend(self, track: _Track, frame: Frame, box: np.ndarray) -> None:
        """Adds a detection to a track, and interpolated boxes since the last one."""
        boxes = [(frame.number, box)]
        if not self.causal:
            between = [other for other, _ in self._held if track.number < other.number < frame.number]
            for other in between:
                share = (other.time - track.motion.time) / (frame.time - track.motion.time)
                boxes.append((other.number, (1 - share) * track.box + share * box))
        track.motion.update(box, frame.time)
        track.number, track.box, track.count = frame.number, box, track.count + 1
        if track.name is None:
            track.waiting += boxes
            if track.count < CONFIRMED:
                return
            self._named += 1
            track.name = str(self._named)
            boxes, track.waiting = track.waiting, []
        self.second[track.name] = track.scores[1]
        for number, each in boxes:
            self._put(track, number, each)

    def _put(self, track: _Track, number: int, box: np.ndarray) -> None:
        place = number - self._held[0][0].number  # frames are held without a gap
        if place >= 0:  # in causal mode earlier frames have been returned
            assert track.name is not None
            self._held[place][1][int(track.name)] = box


def _widened(boxes: np.ndarray) -> np.ndarray:
    more = WIDENED * (boxes[:, 2:] - boxes[:, :2])
    return np.concatenate([boxes[:, :2] - more, boxes[:, 2:] + more], axis=1)
