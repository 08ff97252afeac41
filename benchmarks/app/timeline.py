"""The looks of a video as a drawing over time: one line per track."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

ROW = 40  # pixels of a track
AXIS = 26  # pixels of the axis
TICKS = 5  # at most, besides 0

_STEPS = np.array([0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600])  # seconds between ticks


def look_timeline(people: Sequence[Mapping[str, str]], looks: Sequence[Mapping[str, str]], seconds: float) -> Markup:
    """Draw when each track was on screen, as a thin line, and when it looked, as thick bars on it.

    Places along the time axis are in per cent, so that the drawing is as wide as the page and its text as large.

    Args:
        people: rows of people.csv.
        looks: rows of bouts.csv.
        seconds: of video.
    """
    whole = max([seconds, *(float(one["last"]) for one in people)])
    height = ROW * len(people) + AXIS
    parts = []
    for tick in ticks(whole):
        x = 100 * tick / whole
        anchor = "start" if tick == 0 else "middle" if x < 94 else "end"
        parts.append(
            Markup('<line x1="{0:.3f}%" x2="{0:.3f}%" y1="0" y2="{1}" class="grid"/>').format(x, height - AXIS + 4)
        )
        parts.append(
            Markup('<text x="{:.3f}%" y="{}" text-anchor="{}" class="small">{}</text>').format(
                x, height - 6, anchor, clock(tick, whole)
            )
        )
    for number, one in enumerate(people):
        top = ROW * number
        own = [look for look in looks if look["track"] == one["track"]]
        many = f"{len(own)} look{'s' * (len(own) != 1)}, {float(one['looking_seconds']):.1f} s"
        parts.append(Markup('<text x="0" y="{}">{}: {}</text>').format(top + 14, one["track"], many))
        parts.append(_bar(float(one["first"]), float(one["last"]), whole, (top + 26, 4), "seen"))
        parts += [_bar(float(look["start"]), float(look["end"]), whole, (top + 21, 14), "look") for look in own]
    words = f"{len(looks)} looks of {len(people)} tracks over {whole:.1f} seconds; the table below lists them"
    return Markup('<svg class="looks" width="100%" height="{}" role="img" aria-label="{}">{}</svg>').format(
        height, words, Markup("").join(parts)
    )


def _bar(start: float, end: float, whole: float, edges: tuple[float, float], kind: str) -> Markup:
    """A bar over a time, with the time as its tooltip; `edges` are its top and height."""
    return Markup(
        '<rect x="{:.3f}%" width="{:.3f}%" y="{}" height="{}" rx="2" class="{}"><title>{}</title></rect>'
    ).format(
        100 * start / whole,
        100 * (end - start) / whole,
        *edges,
        kind,
        f"{clock(start, 0)} to {clock(end, 0)}",
    )


def ticks(whole: float) -> list[float]:
    """Round times from 0 to the end of a video.

    Example:
        >>> ticks(10.0), ticks(200.0)
        ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [0.0, 60.0, 120.0, 180.0])
    """
    steps = np.append(_STEPS, 3600 * np.ceil(whole / 3600 / TICKS))
    step = float(steps[steps * TICKS >= whole - 1e-9][0])
    return [float(step * number) for number in range(int(whole / step + 1e-9) + 1)]


def clock(seconds: float, whole: float) -> str:
    """A time as minutes and seconds; in tenths where the whole has few seconds.

    Example:
        >>> clock(75.25, 0), clock(75.25, 200), clock(4000, 5000)
        ('1:15.2', '1:15', '1:06:40')
    """
    tenths = whole < TICKS
    minutes, rest = divmod(round(seconds, 1) if tenths else round(seconds), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:04.1f}" if tenths else f"{int(rest):02d}"
    return f"{hours}:{minutes:02d}:{text}" if hours else f"{minutes}:{text}"
