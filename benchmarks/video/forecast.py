"""How long a video will take, said once, a few seconds after the work on it began."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.system.progress import plural

WATCHED = 3.0  # seconds of work from which the rest is extrapolated
LEAST = 30  # frames in them; else longer
TAKES = "will take about"  # the words by which others know the line


class Forecast:
    """Extrapolates from the first frames of a run to its end.

    Args:
        frames: of the video, as declared; 0: unknown, and nothing is said.
        copying: returns seconds per frame that the annotated copy will take, None if there is none; asked once.
        clock: seconds.
    """

    def __init__(
        self, frames: int, copying: Callable[[], float | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._frames, self._copying, self._clock = frames, copying, clock
        self._first: tuple[int, float] | None = None  # a frame, and when it was done
        self._said = frames == 0

    def after(self, number: int) -> str | None:
        """Notes that the frame of this number is done; returns the line to say, once, or None.

        The time until the first frame is done does not count: it includes what happens once in a run.
        """
        if self._said:
            return None
        if self._first is None:
            self._first = number, self._clock()
            return None
        done, seconds = number - self._first[0], self._clock() - self._first[1]
        if done < LEAST or seconds < WATCHED:
            return None
        self._said = True
        copying = self._copying()
        rest = max(0, self._frames - number - 1) * seconds / done + self._frames * (copying or 0.0)
        now = f"{done / seconds:.0f} per second now" + (", then the annotated copy" if copying is not None else "")
        return f"{plural(self._frames, 'frame')} {TAKES} {duration(rest)} ({now})"


def duration(seconds: float) -> str:
    """Words for a duration.

    Example:
        >>> duration(44), duration(200), duration(9000)
        ('44 seconds', '3 minutes', '2.5 hours')
    """
    if seconds < 100:
        return plural(round(seconds), "second")
    return f"{seconds / 60:.0f} minutes" if seconds < 100 * 60 else f"{seconds / 3600:.1f} hours"
