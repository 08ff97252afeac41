"""One line per track: how long it was on screen, how long and how often it looked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.video.bouts import Bout
from benchmarks.video.scorer import ScoredFace


class Person(NamedTuple):
    """One track through the whole video. No value is NaN.

    Attributes:
        track: name.
        looking_seconds: sum of the durations of its looks.
        looks: number of them.
        looks_per_minute: looks per minute on screen; 0 if it was on screen for no time.
        seconds_on_screen: sum of the durations of the frames in which it has a score.
        first: seconds, when the first of these frames appears.
        last: seconds, when the last of them disappears.
        mean_width: of its boxes in these frames, pixels.
        mean_height: of the same boxes, pixels.
    """

    track: str
    looking_seconds: float
    looks: int
    looks_per_minute: float
    seconds_on_screen: float
    first: float
    last: float
    mean_width: float
    mean_height: float


@dataclass
class _Seen:
    """What was seen of a track so far."""

    first: float
    last: float
    seconds: float = 0.0
    frames: int = 0
    width: float = 0.0  # sum over the frames
    height: float = 0.0


class People:
    """Adds up the frames of every track while its looks are found, in memory that does not grow with the video."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def noting(self, decided: Iterable[tuple[ScoredFace, float, bool]]) -> Iterator[tuple[ScoredFace, float, bool]]:
        """Passes on what `decide_looks` yields, and notes it."""
        for row, seconds, looks in decided:
            seen = self._seen.setdefault(row.track, _Seen(row.time, row.time))
            left, top, right, bottom = row.box.tolist()
            seen.last = max(seen.last, row.time + seconds)
            seen.seconds += seconds
            seen.frames += 1
            seen.width += right - left
            seen.height += bottom - top
            yield row, seconds, looks

    def of(self, bouts: Sequence[Bout]) -> list[Person]:
        """Returns the noted tracks with their bouts: numbers by value, then names."""
        by_track: dict[str, list[float]] = {track: [] for track in self._seen}
        for bout in bouts:
            by_track[bout.track].append(bout.end - bout.start)
        people = []
        for track, durations in sorted(by_track.items(), key=lambda item: _natural(item[0])):
            seen = self._seen[track]
            rate = 60 * len(durations) / seen.seconds if seen.seconds > 0 else 0.0
            times = (seen.seconds, seen.first, seen.last)
            size = (seen.width / seen.frames, seen.height / seen.frames)
            people.append(Person(track, sum(durations), len(durations), rate, *times, *size))
        return people


def _natural(track: str) -> tuple[int, str]:
    """Sorts numbers by value, before names."""
    return (int(track), "") if track.isdecimal() else (1 << 62, track)
