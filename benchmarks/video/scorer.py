"""P(looking) of every face of every frame, smoothed along its track, as soon as the frames it depends on are known.

A model has a rate: the frames of its windows are 1 / rate seconds apart. Windows of a video are chosen by time: each
position takes the nearest frame and the track's face in it, and is absent if the track has no face there. So every
frame of a 30 fps video is scored, with windows as long as those of a 15 fps model; in a slower video, or at a variable
rate, a frame that was shown for long fills several positions.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from backbones.encoding import in_passes
from benchmarks.data.crops import stretched
from benchmarks.evaluation.calibration import recalibrate
from benchmarks.features.windows import check_takes_features
from benchmarks.scoring.predict import probabilities
from benchmarks.scoring.smooth import filter_windows
from benchmarks.video.track import TrackedFrame
from heads.base import Window
from zoo.models import Model

CROPS = 32  # crops per batch, unless causal
CAUSAL_CROPS = 4  # crops per pass on a GPU if causal, when a batch has the faces of one frame
WINDOWS = 16  # windows per batch; the size is fixed so that a score does not depend on the rest of its batch
EARLY = 1e-6  # seconds; differences below this are rounding when two frames are equally near
SLACK = 1e-3  # seconds; times in files are rounded
FURTHEST = 0.3  # limit of a crop's move in its sides, and of its growth in natural logarithms


class ScoredFace(NamedTuple):
    """One face of one frame with its score.

    Attributes:
        time: seconds.
        frame: number of the frame, from 0.
        track: name.
        box: ``(4,)`` x1, y1, x2, y2 in pixels.
        score: P(looking at the camera), smoothed if the model smooths, and calibrated if it is calibrated.
        features: ``(D,)`` of the backbone, in the model's first view; None where they were not asked for.
    """

    time: float
    frame: int
    track: str
    box: np.ndarray
    score: float
    features: np.ndarray | None = None


class _Surroundings(NamedTuple):
    """The part of a frame around a crop, from which it can be cut again.

    Attributes:
        picture: ``(h, w, 3)`` uint8, a copy.
        rect: ``(4,)`` x1, y1, x2, y2 of the crop in that part; it may extend beyond it.
    """

    picture: np.ndarray
    rect: np.ndarray


@dataclass
class _Face:
    """A face of a track in one frame, with its features and raw score once they are known."""

    time: float
    number: int
    track: str
    box: np.ndarray
    features: torch.Tensor | None = None  # (views, D); None without a picture
    raw: float | None = None


class Scorer:
    """Scores the faces of tracked frames.

    Attributes:
        reach: seconds; a score depends on no frame further away than this.

    Args:
        model: computes on the device where its weights are.
        causal: windows and smoothing use no later frame, and `push` returns the rows of its own frame.
        keep_features: rows have their features.
        crops: boxes are those of training crops: no margin is added, and the backbone does not frame them again.
    """

    def __init__(self, model: Model, causal: bool = False, keep_features: bool = False, crops: bool = False) -> None:
        head = model.network.head
        check_takes_features(model.name, head)
        self.model = model
        self.causal = causal
        self._keep_features = keep_features
        self._margin = (0.0,) * 4 if crops else model.margin
        self._head = head
        self._backbone = model.network.backbone
        self._reframes = self._backbone.reframes and not crops
        self._device = next(chain(model.network.parameters(), model.network.buffers())).device
        self._encode: Callable[[torch.Tensor], torch.Tensor] = self._backbone.encoder(self._device)
        if self._device.type == "cuda":  # kernels are recorded once, and a face has the same features in any batch
            self._encode = in_passes(self._encode, CAUSAL_CROPS if causal else CROPS)
        self._radius = head.window // 2
        self._smooth = (model.smoothing["window"] // 2) if model.smoothing else 0
        self.reach = (self._radius + self._smooth + 2) / model.rate + 2 * SLACK
        self._frames: deque[tuple[int, float]] = deque()  # number and time, as long as a score may depend on them
        self._faces: deque[_Face] = deque()  # of the same frames
        self._by_track: dict[tuple[str, int], _Face] = {}  # the same faces by track and frame
        self._to_encode: list[tuple[_Face, np.ndarray]] = []
        self._surroundings: list[_Surroundings] = []  # of those crops, if the backbone reframes
        self._judged = 0  # faces in frames before this number have their raw score
        self._returned = 0  # and in frames before this number their row
        self._ended = False
        self._numbers: list[int] = []  # of `_frames`
        self._times: list[float] = []

    def push(self, tracked: TrackedFrame) -> list[ScoredFace]:
        """Adds the next frame and returns the rows that are now known, by frame and then by track.

        The faces of a frame without a picture get no score and are absent from windows: an earlier run has scored them.
        """
        frame = tracked.frame
        self._frames.append((frame.number, frame.time))
        picture = frame.picture() if frame.shown is not None and len(tracked.tracks) else None
        for track, box in zip(tracked.tracks, tracked.boxes, strict=True):
            face = _Face(frame.time, frame.number, track, box)
            self._faces.append(face)
            self._by_track[track, frame.number] = face
            if picture is None:
                continue
            rect = widened(box, self._margin)
            if (pixels := self._pixels(picture, rect)) is not None:
                self._to_encode.append((face, pixels))
                if self._reframes:
                    self._surroundings.append(_surroundings(picture, rect))
        if self.causal or len(self._to_encode) >= CROPS or len(self._faces) > 8 * CROPS or len(self._frames) > 600:
            return self._known_rows()
        return []

    def finish(self) -> list[ScoredFace]:
        """Returns the remaining rows after the last frame."""
        self._ended = True
        return self._known_rows()

    @torch.inference_mode()
    def _known_rows(self) -> list[ScoredFace]:
        self._encode_crops()
        self._numbers = [number for number, _ in self._frames]
        self._times = [time for _, time in self._frames]
        if not self._frames:
            return []
        until = self._known_until(self._radius, self._numbers[-1] + 1)
        self._judge([f for f in self._faces if self._judged <= f.number < until and f.features is not None])
        self._judged = max(self._judged, until)
        until = self._known_until(self._smooth, self._judged)
        rows = []
        for face in self._faces:
            if self._returned <= face.number < until and face.raw is not None:
                rows.append(self._row(face))
        self._returned = max(self._returned, until)
        self._forget()
        return rows

    def _encode_crops(self) -> None:
        if not self._to_encode:
            return
        crops = [crop for _, crop in self._to_encode]
        pixels = torch.from_numpy(np.stack(self._reframed(crops) if self._reframes else crops))
        views = [pixels.flip(2) if view == "flipped" else pixels for view in self.model.views]
        features = torch.stack([self._encode(view.to(self._device)).float() for view in views], dim=1)
        for (face, _), vectors in zip(self._to_encode, features, strict=True):
            face.features = vectors
        self._to_encode.clear()
        self._surroundings.clear()

    def _reframed(self, crops: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Cuts the crops ``(S, S, 3)`` again where the backbone would frame them."""
        features = self._encode(torch.from_numpy(np.stack(crops)).to(self._device)).float()
        moves = self._backbone.reframe(features).cpu().double().numpy()
        out = []
        for crop, around, move in zip(crops, self._surroundings, moves, strict=True):
            again = self._pixels(around.picture, reframed(around.rect, move))
            out.append(crop if again is None else again)
        return out

    def _pixels(self, picture: np.ndarray, rect: np.ndarray) -> np.ndarray | None:
        """Cuts and resizes a crop for the backbone; None if it lies outside the picture."""
        crop = cut(picture, rect)
        if crop is None:
            return None
        return self._backbone.preprocessing.resize_crop(stretched(crop) if self.model.square else crop)

    def _judge(self, faces: list[_Face]) -> None:
        """Sets the raw scores of faces from their windows."""
        radius, views = self._radius, len(self.model.views)
        for start in range(0, len(faces), WINDOWS):
            batch = faces[start : start + WINDOWS]
            features = torch.zeros(WINDOWS, views, 2 * radius + 1, self._head.feature_dim, device=self._device)
            present = torch.zeros(WINDOWS, 2 * radius + 1, dtype=torch.bool, device=self._device)
            for row, face in enumerate(batch):
                for position, other in enumerate(self._around(face, radius)):
                    if other is not None and other.features is not None:
                        features[row, :, position] = other.features
                        present[row, position] = True
            scores = [probabilities(self._head(Window(features[:, view], present))) for view in range(views)]
            for face, score in zip(batch, np.mean(scores, axis=0).tolist(), strict=False):
                face.raw = score

    def _row(self, face: _Face) -> ScoredFace:
        """Returns the row of a face whose score is known."""
        score, calibration = self._smoothed(face), self.model.calibration
        assert face.features is not None
        features = face.features[0].cpu().double().numpy() if self._keep_features or calibration else None
        if calibration is not None and calibration.changes_scores:
            weighted = float(features @ np.array(calibration.weights)) if calibration.weights else 0.0
            score = float(recalibrate(np.array([score]), calibration.slope, calibration.bias + weighted)[0])
        kept = features if self._keep_features else None
        return ScoredFace(face.time, face.number, face.track, face.box, score, kept)

    def _smoothed(self, face: _Face) -> float:
        """Smooths the raw scores around a face, taken at the model's rate."""
        assert face.raw is not None
        if self.model.smoothing is None:
            return face.raw
        near = [
            math.nan if other is None or other.raw is None else other.raw for other in self._around(face, self._smooth)
        ]
        return float(filter_windows(np.array([near]), self.model.smoothing["filter"])[0])

    def _around(self, face: _Face, radius: int) -> list[_Face | None]:
        """Returns the 2 x radius + 1 faces of a track at the times of the window around one; None if absent."""
        found: list[_Face | None] = []
        for offset in range(-radius, radius + 1):
            number = face.number if offset == 0 else self._nearest(face.time + offset / self.model.rate)
            if number is None or (self.causal and offset > 0):
                found.append(None)
            else:
                found.append(self._by_track.get((face.track, number)))
        return found

    def _nearest(self, time: float) -> int | None:
        """Returns the number of the frame nearest to a time, the earlier one of two; None if none is near.

        Near means within half a step of the model, or within a whole step if the time lies between two frames, since
        one of them was on screen then.
        """
        after = bisect_left(self._times, time)
        near = [index for index in (after - 1, after) if 0 <= index < len(self._times)]
        index = min(near, key=lambda index: (round(abs(self._times[index] - time) / EARLY), index))
        near_enough = (1.0 if 0 < after < len(self._times) else 0.5) / self.model.rate + SLACK
        return self._numbers[index] if abs(self._times[index] - time) <= near_enough else None

    def _known_until(self, radius: int, until: int) -> int:
        """Returns the first frame whose window of this radius needs frames from number `until` on."""
        if self._ended or self.causal or radius == 0:
            return until
        reach = radius / self.model.rate + 1 / self.model.rate + SLACK
        count = bisect_left(self._numbers, until)
        newest = self._times[count - 1] if count else -math.inf
        known = bisect_left(self._times, newest - reach)
        return min(until, self._numbers[known] if known < len(self._numbers) else until)

    def _forget(self) -> None:
        """Drops frames and faces that no later score depends on."""
        behind = self._times[-1]
        for number, time in self._frames:
            if number >= self._returned:
                behind = time
                break
        oldest = behind - self.reach
        while self._frames and self._frames[0][1] < oldest:
            self._frames.popleft()
        while self._faces and self._faces[0].time < oldest and self._faces[0].number < self._returned:
            face = self._faces.popleft()
            del self._by_track[face.track, face.number]


def widened(box: np.ndarray, margin: Sequence[float]) -> np.ndarray:
    """Widens a box ``(4,)`` x1, y1, x2, y2 on the left, top, right and bottom by shares of its sides."""
    sides = np.tile(box[2:] - box[:2], 2)
    return box + sides * [-margin[0], -margin[1], margin[2], margin[3]]


def reframed(rect: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Applies the output of `Backbone.reframe` ``(4,)``, clipped to `FURTHEST`, to the crop at ``rect (4,)``."""
    move = np.clip(move, -FURTHEST, FURTHEST)
    sides = rect[2:] - rect[:2]
    middle = (rect[:2] + rect[2:]) / 2 + move[:2] * sides
    half = sides * np.exp(move[2:]) / 2
    return np.concatenate([middle - half, middle + half])


def _surroundings(picture: np.ndarray, rect: np.ndarray) -> _Surroundings:
    """Copies the part of a picture that `reframed` can reach from a crop at ``rect (4,)``."""
    reach = widened(rect, [0.5] * 4)
    left, top = np.maximum(np.floor(reach[:2]), 0).astype(int)
    right, bottom = np.maximum(np.ceil(reach[2:]), 0).astype(int)
    return _Surroundings(picture[top:bottom, left:right].copy(), rect - [left, top, left, top])


def cut(picture: np.ndarray, rect: np.ndarray) -> Image.Image | None:
    """Cuts a face like the data sets' crops: edges rounded down and clipped to the picture.

    Args:
        picture: ``(H, W, 3)``.
        rect: ``(4,)`` x1, y1, x2, y2.

    Returns:
        The crop, or None if it lies outside the picture.
    """
    left, top = np.maximum(np.floor(rect[:2]), 0).astype(int)
    right, bottom = np.minimum(np.floor(rect[2:]), picture.shape[1::-1]).astype(int)
    return Image.fromarray(picture[top:bottom, left:right]) if right > left and bottom > top else None
