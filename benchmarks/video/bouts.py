"""From scores of frames to bouts: periods during which a face looks at the camera."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import median
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from benchmarks.evaluation.calibration import log_odds
from benchmarks.scoring.looks import GAP, LOOK_CUT, Decoder
from benchmarks.video.container import PAUSE
from benchmarks.video.defaults import LEAST, MERGE
from benchmarks.video.scorer import ScoredFace

SLACK = 1e-6  # seconds: the resolution of the times in frames.csv
RECENT = 9  # frames, of which the median duration is typical


class Bout(NamedTuple):
    """One look.

    Attributes:
        track: name.
        start: seconds, when its first frame appears.
        end: seconds, when its last frame disappears.
        score: mean over its frames.
    """

    track: str
    start: float
    end: float
    score: float


@dataclass(frozen=True)
class BoutOptions:
    """What counts as a bout.

    Attributes:
        threshold: score from which a frame looks.
        least: seconds; shorter bouts are dropped.
        merge: seconds; bouts this close together become one.
        cost: of a change between looking and not looking, in log odds x seconds; see `benchmarks.scoring.looks`.
    """

    threshold: float = 0.5
    least: float = LEAST
    merge: float = MERGE
    cost: float = 0.0


@dataclass
class _OpenBout:
    """A bout that may still continue."""

    start: float
    end: float
    total: float = 0.0  # sum of the scores from the start to the last frame that looks
    count: int = 0
    later: float = 0.0  # sum of the scores after it
    later_count: int = 0


@dataclass
class _OpenTrack:
    """A track with its undecided frames."""

    decoder: Decoder
    undecided: deque[tuple[ScoredFace, float]] = field(default_factory=deque)
    newest: float = math.inf  # time

    def decide(self, looks: Iterable[bool]) -> Iterator[tuple[ScoredFace, float, bool]]:
        for look in looks:
            yield *self.undecided.popleft(), look


def with_durations(rows: Iterable[ScoredFace], frame_time: float) -> Iterator[tuple[ScoredFace, float]]:
    """Yields each row with the seconds that its frame lasts.

    A frame lasts until the next one, but before a pause only as long as a typical frame. So does a frame whose
    successor has no face.

    Example:
        >>> rows = [ScoredFace(time, n, "1", np.zeros(4), 0.9) for n, time in enumerate([0.0, 0.1, 0.2, 30.0])]
        >>> [round(seconds, 3) for _, seconds in with_durations(rows, 0.1)]
        [0.1, 0.1, 0.1, 0.1]

    Args:
        rows: by frame.
        frame_time: seconds that a frame of the video lasts as a rule. A typical frame lasts the median of the last
            `RECENT` intervals, of which this stands for the unknown ones, because a camera is slower in the dark.
    """
    recent = deque([frame_time] * RECENT, maxlen=RECENT)
    before: list[ScoredFace] = []
    for number, group in groupby(rows, key=lambda row: row.frame):
        here = list(group)
        if before:
            interval = here[0].time - before[0].time
            typical = median(recent)
            if number == before[0].frame + 1:
                recent.append(interval)
                lasts = interval if interval <= PAUSE * typical else typical
            else:
                lasts = min(interval, typical)
            yield from ((row, lasts) for row in before)
        before = here
    yield from ((row, median(recent)) for row in before)


def decide_looks(
    rows: Iterable[ScoredFace], frame_time: float, options: BoutOptions
) -> Iterator[tuple[ScoredFace, float, bool]]:
    """Yields each row with its seconds and whether its frame looks: in order within a track, some frames late.

    Args:
        rows: by frame.
        frame_time: seconds that a frame of the video lasts as a rule.
        options: threshold and cost.
    """
    tracks: dict[str, _OpenTrack] = {}
    level = log_odds(options.threshold, LOOK_CUT)
    for row, seconds in with_durations(rows, frame_time):
        track = tracks.setdefault(row.track, _OpenTrack(Decoder(options.cost)))
        if row.time - track.newest > GAP:
            yield from track.decide(track.decoder.finish())
        track.newest = row.time
        track.undecided.append((row, seconds))
        if options.cost:
            evidence = float(log_odds(row.score, LOOK_CUT) - level) * seconds
        else:
            evidence = row.score - options.threshold
        yield from track.decide(track.decoder.push(evidence))
    for track in tracks.values():
        yield from track.decide(track.decoder.finish())


def bouts_of(rows: Iterable[ScoredFace], frame_time: float, options: BoutOptions) -> list[Bout]:
    """Finds the bouts of every track, in memory that does not grow with the video.

    A frame looks if its score reaches the threshold and, where changes have a cost, the scores around it do not
    outweigh it. It lasts as long as `with_durations` says. Consecutive frames that look form a bout; bouts at most
    `merge` seconds apart are merged; then bouts shorter than `least` seconds are dropped.

    Example:
        >>> scores = [0.1, 0.9, 0.8, 0.1]
        >>> rows = [ScoredFace(n / 10, n, "1", np.zeros(4), score) for n, score in enumerate(scores)]
        >>> [(bout.start, round(bout.end, 3)) for bout in bouts_of(rows, 0.1, BoutOptions(threshold=0.5))]
        [(0.1, 0.3)]

    Args:
        rows: by frame.
        frame_time: seconds that a frame of the video lasts as a rule.
        options: what counts as a bout.

    Returns:
        Bouts by start and track.
    """
    return join_looks(decide_looks(rows, frame_time, options), options)


def join_looks(decided: Iterable[tuple[ScoredFace, float, bool]], options: BoutOptions) -> list[Bout]:
    """Joins frames that look to bouts; the second half of `bouts_of`.

    Args:
        decided: from `decide_looks`.
        options: least and merge.
    """
    found: list[Bout] = []
    open_bouts: dict[str, _OpenBout] = {}

    def close(track: str) -> None:
        bout = open_bouts.pop(track)
        if bout.end - bout.start >= options.least - SLACK:
            found.append(Bout(track, bout.start, bout.end, bout.total / bout.count))

    for row, seconds, looks in decided:
        bout = open_bouts.get(row.track)
        if bout is not None and row.time - bout.end > options.merge + SLACK:
            close(row.track)
            bout = None
        if looks:
            if bout is None:
                bout = open_bouts[row.track] = _OpenBout(row.time, row.time)
            bout.total += bout.later + row.score
            bout.count += bout.later_count + 1
            bout.later, bout.later_count = 0.0, 0
            bout.end = row.time + seconds
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
    """F1 of bouts: the segmental F1@k of Lea et al., "Temporal Convolutional Networks for Action Segmentation", 2017.

    A found bout is a hit if it is matched to a true one of the same track and their intersection over union is at least
    `overlap`. The matching is one to one and has as many hits as possible. F1 is twice the hits over the number of true
    plus found bouts; 1 if there are neither.
    """
    if not truth and not found:
        return 1.0
    enough = overlaps(truth, found) >= overlap
    hits = int(enough[linear_sum_assignment(~enough)].sum())
    return 2 * hits / (len(truth) + len(found))
