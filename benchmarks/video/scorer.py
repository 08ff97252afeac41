"""Faces of frames in a row -> P(looking) of each, smoothed along its track, as soon as what it depends on is known.

A model has a rate: the frames of its windows lie 1 / rate seconds apart. Here they are chosen by time: for each place
of a window the video's frame that is nearest, and the face of the track in it, absent where the track has none there.
So a video of 30 frames a second has every frame scored, by windows that are as long as those of 15; in a slower one, or
where the rate varies, a frame that was shown for long stands in more than one place.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.data.crops import stretched
from benchmarks.features.windows import check_takes_features
from benchmarks.scoring.predict import probabilities
from benchmarks.video.track import TrackedFrame
from heads.base import Window

if TYPE_CHECKING:
    from zoo.models import Model

CROPS = 32  # encoded at once, where nobody waits for the answer
WINDOWS = 16  # judged at once, always: in batches of one size a score does not depend on what else is in them
EARLY = 1e-6  # seconds: frames as near as each other but for rounding are equally near
SLACK = 1e-3  # seconds: times in files are rounded
FURTHEST = 0.3  # of a crop's sides, and of the logarithm of their growth, that a crop is moved


class ScoredFace(NamedTuple):
    """One face of one frame with its score.

    Attributes:
        time: seconds.
        frame: number of the frame, from 0.
        track: name.
        box: ``(4,)`` x1, y1, x2, y2 in pixels.
        score: P(looking at the camera), smoothed where the model says so.
    """

    time: float
    frame: int
    track: str
    box: np.ndarray
    score: float


class _Surroundings(NamedTuple):
    """What lies around a crop, to cut it out anew.

    Attributes:
        picture: ``(h, w, 3)`` uint8, a copy of a part of the frame.
        rect: ``(4,)`` x1, y1, x2, y2 in that part: where the crop lies, perhaps beyond the frame.
    """

    picture: np.ndarray
    rect: np.ndarray


@dataclass
class _Face:
    """A face of a track in a frame, and what is known of it so far."""

    time: float
    number: int
    track: str
    box: np.ndarray
    features: torch.Tensor | None = None  # (views, D); None without a picture
    raw: float | None = None


class Scorer:
    """Frames with tracks -> rows.

    Args:
        model: what judges.
        causal: windows and smoothing see nothing later than the frame; a row is answered with its frame.
        device: where the model is.
    """

    def __init__(self, model: Model, causal: bool = False, device: str = "cpu") -> None:
        head = model.network.head
        check_takes_features(model.name, head)
        self.model = model
        self.causal = causal
        self._head = head
        self._backbone = model.network.backbone
        self._encode = self._backbone.encoder(device)
        self._device = device
        self._radius = head.window // 2
        self._smooth = (model.smoothing["window"] // 2) if model.smoothing else 0
        self._frames: deque[tuple[int, float]] = deque()  # number and time of those that are still needed
        self._faces: deque[_Face] = deque()  # not answered yet, and those before them that are still needed
        self._by_place: dict[tuple[str, int], _Face] = {}
        self._to_encode: list[tuple[_Face, np.ndarray]] = []
        self._surroundings: list[_Surroundings] = []  # of those, where the backbone reframes
        self._judged = 0  # faces of frames before this number have their raw score
        self._answered = 0  # and of frames before this number their row
        self._ended = False
        self._numbers: list[int] = []  # of `_frames`
        self._times: list[float] = []

    @staticmethod
    def reach(model: Model) -> float:
        """Seconds by which the furthest frame that has a say in a score may lie from it."""
        smooth = (model.smoothing["window"] // 2) if model.smoothing else 0
        return (model.network.head.window // 2 + smooth + 2) / model.rate + 2 * SLACK

    def push(self, placed: TrackedFrame) -> list[ScoredFace]:
        """Take in the next frame; returns the rows that are known now, by frame and, in a frame, by track.

        A frame without a picture, which an earlier run has scored, counts as one in which nothing is known of the
        faces.
        """
        frame = placed.frame
        self._frames.append((frame.number, frame.time))
        picture = frame.picture() if frame.shown is not None and len(placed.tracks) else None
        for track, box in zip(placed.tracks, placed.boxes, strict=True):
            face = _Face(frame.time, frame.number, track, box)
            self._faces.append(face)
            self._by_place[track, frame.number] = face
            if picture is None:
                continue
            rect = widened(box, self.model.margin)
            if (pixels := self._pixels(picture, rect)) is not None:
                self._to_encode.append((face, pixels))
                if self._backbone.reframes:
                    self._surroundings.append(_surroundings(picture, rect))
        if self.causal or len(self._to_encode) >= CROPS or len(self._faces) > 8 * CROPS or len(self._frames) > 600:
            return self._answer()
        return []

    def finish(self) -> list[ScoredFace]:
        """The rows that are left when there are no more frames."""
        self._ended = True
        return self._answer()

    @torch.inference_mode()
    def _answer(self) -> list[ScoredFace]:
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
            if self._answered <= face.number < until and face.raw is not None:
                rows.append(ScoredFace(face.time, face.number, face.track, face.box, self._smoothed(face)))
        self._answered = max(self._answered, until)
        self._forget()
        return rows

    def _encode_crops(self) -> None:
        if not self._to_encode:
            return
        crops = [crop for _, crop in self._to_encode]
        pixels = torch.from_numpy(np.stack(self._reframed(crops) if self._backbone.reframes else crops))
        views = [pixels.flip(2) if view == "flipped" else pixels for view in self.model.views]
        features = torch.stack([self._encode(view.to(self._device)).float() for view in views], dim=1)
        for (face, _), vectors in zip(self._to_encode, features, strict=True):
            face.features = vectors
        self._to_encode.clear()
        self._surroundings.clear()

    def _reframed(self, crops: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The crops ``(S, S, 3)``, cut out anew as their backbone would have them."""
        features = self._encode(torch.from_numpy(np.stack(crops)).to(self._device)).float()
        moves = self._backbone.reframe(features).cpu().double().numpy()
        out = []
        for crop, around, move in zip(crops, self._surroundings, moves, strict=True):
            again = self._pixels(around.picture, moved(around.rect, move))
            out.append(crop if again is None else again)
        return out

    def _pixels(self, picture: np.ndarray, rect: np.ndarray) -> np.ndarray | None:
        """What the backbone is to see of a part of a picture; None where the part lies beside it."""
        crop = cut(picture, rect)
        if crop is None:
            return None
        return self._backbone.preprocessing.resize_crop(stretched(crop) if self.model.square else crop)

    def _judge(self, faces: list[_Face]) -> None:
        """Give faces the score of their windows."""
        radius, views = self._radius, len(self.model.views)
        for start in range(0, len(faces), WINDOWS):
            batch = faces[start : start + WINDOWS]
            features = torch.zeros(WINDOWS, views, 2 * radius + 1, self._head.feature_dim, device=self._device)
            present = torch.zeros(WINDOWS, 2 * radius + 1, dtype=torch.bool, device=self._device)
            for row, face in enumerate(batch):
                for place, other in enumerate(self._around(face, radius)):
                    if other is not None and other.features is not None:
                        features[row, :, place] = other.features
                        present[row, place] = True
            scores = [probabilities(self._head(Window(features[:, view], present))) for view in range(views)]
            for face, score in zip(batch, np.mean(scores, axis=0).tolist(), strict=False):
                face.raw = score

    def _smoothed(self, face: _Face) -> float:
        """The median, or the Gaussian mean, of the scores around a face: `smooth_scores` at the model's rate."""
        assert face.raw is not None
        if self._smooth == 0:
            return face.raw
        assert self.model.smoothing is not None
        near = [
            (offset, other.raw)
            for offset, other in enumerate(self._around(face, self._smooth), start=-self._smooth)
            if other is not None and other.raw is not None
        ]
        values = np.array([raw for _, raw in near])
        if self.model.smoothing["filter"] == "median":
            return float(np.median(values))
        offsets = np.array([offset for offset, _ in near])
        return float(np.average(values, weights=np.exp(-0.5 * (offsets / (self.model.smoothing["window"] / 4)) ** 2)))

    def _around(self, face: _Face, radius: int) -> list[_Face | None]:
        """The faces of a track at the times of a window around one, None where there is none."""
        found: list[_Face | None] = []
        for offset in range(-radius, radius + 1):
            number = face.number if offset == 0 else self._nearest(face.time + offset / self.model.rate)
            if number is None or (self.causal and offset > 0):
                found.append(None)
            else:
                found.append(self._by_place.get((face.track, number)))
        return found

    def _nearest(self, time: float) -> int | None:
        """Number of the frame nearest to a time, the earlier of two; None where none is near.

        Near is within half a step of the model; and, for a time between two frames, within a whole one, since what was
        shown then is the one or the other.
        """
        after = bisect_left(self._times, time)
        near = [place for place in (after - 1, after) if 0 <= place < len(self._times)]
        place = min(near, key=lambda place: (round(abs(self._times[place] - time) / EARLY), place))
        near_enough = (1.0 if 0 < after < len(self._times) else 0.5) / self.model.rate + SLACK
        return self._numbers[place] if abs(self._times[place] - time) <= near_enough else None

    def _known_until(self, radius: int, until: int) -> int:
        """The frame from which on windows of a radius are not known yet, where frames before `until` are."""
        if self._ended or self.causal or radius == 0:
            return until
        reach = radius / self.model.rate + 1 / self.model.rate + SLACK
        places = bisect_left(self._numbers, until)
        newest = self._times[places - 1] if places else -math.inf
        known = bisect_left(self._times, newest - reach)
        return min(until, self._numbers[known] if known < len(self._numbers) else until)

    def _forget(self) -> None:
        """Drop what no later score depends on."""
        behind = self._times[-1]
        for number, time in self._frames:
            if number >= self._answered:
                behind = time
                break
        oldest = behind - self.reach(self.model)
        while self._frames and self._frames[0][1] < oldest:
            self._frames.popleft()
        while self._faces and self._faces[0].time < oldest and self._faces[0].number < self._answered:
            face = self._faces.popleft()
            del self._by_place[face.track, face.number]


def widened(box: np.ndarray, margin: Sequence[float]) -> np.ndarray:
    """A box ``(4,)``, x1, y1, x2, y2, with shares of its sides added on the left, above, on the right and below."""
    sides = np.tile(box[2:] - box[:2], 2)
    return box + sides * [-margin[0], -margin[1], margin[2], margin[3]]


def moved(rect: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Where a crop at ``rect (4,)`` lies after a `Backbone.reframe` ``(4,)``: by `FURTHEST` at most, each way."""
    move = np.clip(move, -FURTHEST, FURTHEST)
    sides = rect[2:] - rect[:2]
    middle = (rect[:2] + rect[2:]) / 2 + move[:2] * sides
    half = sides * np.exp(move[2:]) / 2
    return np.concatenate([middle - half, middle + half])


def _surroundings(picture: np.ndarray, rect: np.ndarray) -> _Surroundings:
    """All of a picture that `moved` can reach from a crop at ``rect (4,)``."""
    reach = widened(rect, [0.5] * 4)
    left, top = np.maximum(np.floor(reach[:2]), 0).astype(int)
    right, bottom = np.maximum(np.ceil(reach[2:]), 0).astype(int)
    return _Surroundings(picture[top:bottom, left:right].copy(), rect - [left, top, left, top])


def cut(picture: np.ndarray, rect: np.ndarray) -> Image.Image | None:
    """Cut a face out as the data sets' crops are: edges rounded down, as far as it lies in the picture.

    Args:
        picture: ``(H, W, 3)``.
        rect: ``(4,)`` x1, y1, x2, y2.

    Returns:
        The crop, or None where nothing of it lies in the picture.
    """
    left, top = np.maximum(np.floor(rect[:2]), 0).astype(int)
    right, bottom = np.minimum(np.floor(rect[2:]), picture.shape[1::-1]).astype(int)
    return Image.fromarray(picture[top:bottom, left:right]) if right > left and bottom > top else None
