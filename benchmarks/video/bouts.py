"""Scores of frames -> bouts: stretches of time through which a face looks at the camera."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from benchmarks.scoring.looks import GAP, Decoder, log_odds
from benchmarks.video.scorer import ScoredFace

SLACK = 1e-6  # seconds: the times in the file have so many digits


class Bout(NamedTuple):
    """One look.

    Attributes:
        track: name.
        start: seconds, when its first frame is shown.
        end: seconds, when its last frame is no longer shown.
        score: mean over its frames.
    """

    track: str
    start: float
    end: float
    score: float


@dataclass
class _Open:
    """A bout that may go on."""

    start: float
    end: float
    total: float = 0.0  # of the scores from the start to the last frame that looks
    count: int = 0
    later: float = 0.0  # of those since then
    later_count: int = 0


@dataclass
class _Track:
    """A track whose newest frames may look or not."""

    decoder: Decoder
    rows: deque[ScoredFace] = field(default_factory=deque)  # of which that is not known
    newest: float = math.inf  # time

    def told(self, looks: Iterable[bool]) -> Iterator[tuple[ScoredFace, bool]]:
        for look in looks:
            yield self.rows.popleft(), look


def looking(
    rows: Iterable[ScoredFace], *, frame_time: float, threshold: float, cost: float
) -> Iterator[tuple[ScoredFace, bool]]:
    """Tell of each row whether its frame looks: those of a track in their order, but not at once.

    Args:
        rows: by frame.
        frame_time: seconds from one frame to the next, on average.
        threshold: score from which on a frame looks, by itself.
        cost: of a change, see `benchmarks.scoring.looks`.
    """
    tracks: dict[str, _Track] = {}
    level = log_odds(threshold)
    for row in rows:
        track = tracks.setdefault(row.track, _Track(Decoder(cost)))
        if row.time - track.newest > GAP:
            yield from track.told(track.decoder.finish())
        track.newest = row.time
        track.rows.append(row)
        evidence = (log_odds(row.score) - level) * frame_time if cost else row.score - threshold
        yield from track.told(track.decoder.push(evidence))
    for track in tracks.values():
        yield from track.told(track.decoder.finish())


def bouts_of(
    rows: Iterable[ScoredFace],
    *,
    frame_time: float,
    threshold: float = 0.5,
    least: float = 0.2,
    merge: float = 0.2,
    cost: float = 0.0,
) -> list[Bout]:
    """Find the bouts of every track; what is kept meanwhile does not grow with the video.

    A frame looks if its score is the threshold or more and, where changes cost something, if its neighbours' scores do
    not speak against it. It lasts until the track's next frame where that is the video's next one too, else
    `frame_time`. Frames that look and follow upon each other are one bout, also where what lies between them is `merge`
    seconds or less. Bouts of less than `least` seconds are dropped then.

    Args:
        rows: by frame.
        frame_time: seconds from one frame to the next, on average.
        threshold: score from which on a frame looks.
        least: seconds that a bout lasts.
        merge: seconds between two that are one.
        cost: of a change between looking and not looking, in log odds x seconds: see `benchmarks.scoring.looks`.

    Returns:
        Bouts by start and track.
    """
    found: list[Bout] = []
    open_bouts: dict[str, _Open] = {}
    last: dict[str, tuple[int, bool]] = {}  # number of the track's last frame, and whether it looks

    def close(track: str) -> None:
        bout = open_bouts.pop(track)
        if bout.end - bout.start >= least - SLACK:
            found.append(Bout(track, bout.start, bout.end, bout.total / bout.count))

    for row, looks in looking(rows, frame_time=frame_time, threshold=threshold, cost=cost):
        number, looked = last.get(row.track, (-1, False))
        last[row.track] = row.frame, looks
        bout = open_bouts.get(row.track)
        if bout is not None and looked and row.frame == number + 1:
            bout.end = row.time
        if bout is not None and row.time - bout.end > merge + SLACK:
            close(row.track)
            bout = None
        if looks:
            if bout is None:
                bout = open_bouts[row.track] = _Open(row.time, row.time)
            bout.total += bout.later + row.score
            bout.count += bout.later_count + 1
            bout.later, bout.later_count = 0.0, 0
            bout.end = row.time + frame_time
        elif bout is not None:
            bout.later += row.score
            bout.later_count += 1
    for track in list(open_bouts):
        close(track)
    return sorted(found, key=lambda bout: (bout.start, bout.track))


def overlaps(truth: Sequence[Bout], found: Sequence[Bout]) -> np.ndarray:
    """Intersection over union in time, ``(N, M)``; 0 between bouts of different tracks."""
    out = np.zeros((len(truth), len(found)))
    for i, one in enumerate(truth):
        for j, other in enumerate(found):
            both = min(one.end, other.end) - max(one.start, other.start)
            if one.track == other.track and both > 0:
                out[i, j] = both / (max(one.end, other.end) - min(one.start, other.start))
    return out


def bout_f1(truth: Sequence[Bout], found: Sequence[Bout], overlap: float) -> float:
    """F1 of bouts, the segmental F1@k of Lea et al., "Temporal Convolutional Networks for Action Segmentation", 2017.

    A bout that was found is right if it is paired with a true one of the same track whose intersection over union with
    it is `overlap` or more; each is paired once, so that as many as can be are right. F1 is twice the right ones over
    the number of true ones plus the number of found ones; 1 where there are none of either.
    """
    if not truth and not found:
        return 1.0
    enough = overlaps(truth, found) >= overlap
    right = int(enough[linear_sum_assignment(~enough)].sum())
    return 2 * right / (len(truth) + len(found))
