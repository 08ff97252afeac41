"""Elements of SVG drawings. Numbers are drawing units; colours come from classes of a style sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

Scale = Callable[[Any], Any]


def scale(low: float, high: float, begin: float, end: float) -> Scale:
    """The linear map from numbers or arrays to drawing units.

    Example:
        >>> scale(0, 1, 40, 240)(0.25)
        90.0
    """
    return lambda value: begin + (value - low) / (high - low) * (end - begin)


def drawing(width: float, height: float, parts: Sequence[Markup], words: str, kind: str = "chart") -> Markup:
    """A drawing of elements, for a page of HTML; `words` describe it to those who cannot see it."""
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        kind, width, height, words, Markup("").join(parts)
    )


def standalone(of_page: Markup, style: str) -> str:
    """A drawing as a file of its own: with the name space and its style sheet, on white."""
    start, rest = str(of_page).split(">", 1)
    size = start.split('viewBox="0 0 ')[1].split('"')[0].split()
    opened = start.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" ', 1)
    return f'{opened} style="background: #fff">\n<style>\n{style}\n</style>\n{rest}\n'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A line."""
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(x1, y1, x2, y2, kind)


def rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    """A rectangle from its upper left corner."""
    return Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}"/>').format(
        x, y, width, height, kind
    )


def circle(x: float, y: float, radius: float, kind: str) -> Markup:
    """A circle around its centre."""
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}" class="{}"/>').format(x, y, radius, kind)


def polyline(xs: Sequence[float] | np.ndarray, ys: Sequence[float] | np.ndarray, kind: str) -> Markup:
    """Straight lines from point to point."""
    points = " ".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
    return Markup('<path d="M{}" class="{}"/>').format(points, kind)


def text(x: float, y: float, words: str, anchor: str, kind: str = "") -> Markup:
    """One line of text; `anchor` is `start`, `middle` or `end`."""
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" class="{}">{}</text>').format(x, y, anchor, kind, words)
