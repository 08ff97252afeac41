"""The report's charts as inline SVG; all values are shares from 0 to 1.

Colours come from classes of the style sheet, which has other ones for dark mode and print. A chart is as wide as a
phone, so that its text is as large as the page's; a timeline is twice as wide and scrolls.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from benchmarks.evaluation.diagnosis import BINS, Groups, Reliability
from benchmarks.evaluation.metrics import THRESHOLD
from benchmarks.table import svg

COLOURS = 6  # distinguishable lines per chart, as in the style sheet
SLOTS = 13  # crops below a timeline

_WIDTH, _TIMELINE = 360, 720
_LEFT, _RIGHT = 42, 10  # margins
_CROP = 48
_SAMPLES = 200  # points per curve; more would be less than a pixel apart


def axis_start(values: Iterable[float]) -> float:
    """The start of an axis that ends at 1, below all values, with round numbers at its five steps."""
    lowest = min(values)
    return max(start for start in (0.0, 0.5, 0.8, 0.9) if start <= max(lowest, 0))


def as_file(chart: Markup) -> str:
    """Returns a chart as an SVG of its own, on white, for a file or a notebook."""
    sheet = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"(--[\w-]+): ([^;]+);", sheet[: sheet.index("@media")]))  # those of light mode
    rules = re.findall(r"(?m)(?:^|(?<=} ))(svg text\S*|\.[\w.-]+) {([^}]*)}", sheet)
    drawn = [(name, rule) for name, rule in rules if "fill" in rule or "stroke" in rule]
    lines = [f"{name if name.startswith('svg') else f'svg {name}'} {{{rule}}}" for name, rule in drawn]
    style = re.sub(r"var\((--[\w-]+)\)", lambda name: colours[name[1]], "\n".join(lines))
    return svg.standalone(chart, f"svg {{ color: {colours['--ink']}; font-family: sans-serif }}\n{style}")


def interval(mean: float, bounds: Sequence[float] | None, per_seed: Sequence[float], start: float) -> Markup:
    """Draw a table cell from `start` to 1: the mean as a dot, its interval as a bar, each seed as a tick."""
    width, height = 150, 18
    x = svg.scale(start, 1, 4, width - 4)
    parts = [svg.line(4, 9, width - 4, 9, "grid")]
    words = f"mAP {_percent(mean)}"
    if bounds is not None:
        parts.append(svg.rect(x(bounds[0]), 6, x(bounds[1]) - x(bounds[0]), 6, "bar"))
        words += f", interval {_percent(bounds[0])} to {_percent(bounds[1])}"
    parts += [svg.line(x(each), 3, x(each), height - 3, "tick") for each in per_seed]
    parts.append(svg.circle(x(mean), 9, 4, "dot"))
    return svg.drawing(width, height, parts, words, "cell")


def precision_recall(curves: Sequence[np.ndarray], share: float, words: str) -> Markup:
    """Draw precision over recall of one class.

    Args:
        curves: (P,) each, precision at recall 1 / P, 2 / P, ..., 1. The first `COLOURS` have colours, the others are
            grey and lie behind.
        share: of the class among the frames, which is the precision of a random ranking.
        words: the alternative text.
    """
    height = 290
    start = axis_start([share, *(float(curve[-1]) for curve in curves)])
    x, y = svg.scale(0, 1, _LEFT, _WIDTH - _RIGHT), svg.scale(start, 1, height - 36, 8)
    parts = [*_axes(x, y, start), svg.line(x(0), y(share), x(1), y(share), "chance")]
    for number, curve in reversed(list(enumerate(curves))):
        at = np.unique(np.linspace(0, len(curve) - 1, _SAMPLES).round().astype(int))
        recall, precision = np.append(0, (at + 1) / len(curve)), np.append(curve[0], curve[at])
        parts.append(svg.polyline(x(recall), y(precision), f"line c{number}" if number < COLOURS else "line rest"))
    parts.append(svg.text((x(0) + x(1)) / 2, height - 4, "recall", "middle"))
    return svg.drawing(_WIDTH, height, parts, words)


def reliability_diagram(diagrams: Mapping[str, Reliability]) -> Markup:
    """Draw the share looking over the mean score of each bin and, below, the number of raw scores in it."""
    floor, height = 298, 330
    x, y = svg.scale(0, 1, _LEFT, _WIDTH - _RIGHT), svg.scale(0, 1, 248, 8)
    parts = [*_axes(x, y, 0, floor + 14), svg.line(x(0), y(0), x(1), y(1), "chance")]
    for number, of_scores in enumerate(diagrams.values()):
        pairs = zip(of_scores["score"], of_scores["looking"], strict=True)
        known = [(x(score), y(looking)) for score, looking in pairs if score is not None and looking is not None]
        parts.append(svg.polyline([at for at, _ in known], [at for _, at in known], f"line c{number}"))
        parts += [svg.circle(*point, 3, f"point c{number}") for point in known]
    tallest = max(diagrams["raw"]["count"]) / (floor - 262)
    for index, count in enumerate(diagrams["raw"]["count"]):
        parts.append(
            svg.rect(x(index / BINS) + 1, floor - count / tallest, x(1 / BINS) - x(0) - 2, count / tallest, "bar")
        )
    parts.append(svg.text((x(0) + x(1)) / 2, height - 4, "score (bars: number of raw scores)", "middle"))
    return svg.drawing(_WIDTH, height, parts, "reliability diagram")


def groups(of: Groups, whole: float | None, words: str) -> Markup:
    """Draw the mAP of each group with its interval; the dashed line is `whole`, the mAP of the row."""
    step, left = 36, 108
    foot = step * len(of["groups"]) + 6
    known = [each for each in (whole, *of["mAP"], *of["low"]) if each is not None]
    start = axis_start(known or [0.0])
    x = svg.scale(start, 1, left, _WIDTH - _RIGHT)
    parts = []
    for tick in np.linspace(start, 1, 6):
        parts += [
            svg.line(x(tick), 4, x(tick), foot, "grid"),
            svg.text(x(tick), foot + 14, f"{100 * tick:.0f}", "middle"),
        ]
    if whole is not None:
        parts.append(svg.line(x(whole), 4, x(whole), foot, "chance"))
    bounds = zip(of["mAP"], of["low"], of["high"], strict=True)
    for index, (name, windows, (mean, low, high)) in enumerate(zip(of["groups"], of["windows"], bounds, strict=True)):
        at = step * (index + 0.5) + 6
        share = of["positives"][index] / max(windows, 1)
        parts.append(svg.text(left - 8, at - 1, name, "end"))
        parts.append(svg.text(left - 8, at + 11, f"{windows:,}, {_percent(share, 0)} % look", "end", "small"))
        if low is not None and high is not None:
            parts.append(svg.line(x(low), at, x(high), at, "whisker"))
        if mean is None:
            parts.append(svg.text(left + 4, at + 4, "one class only", "start", "small"))
        else:
            parts += [
                svg.circle(x(mean), at, 4.5, "dot"),
                svg.text(x(mean), at - 8, _percent(mean), "middle", "small halo"),
            ]
    return svg.drawing(_WIDTH, foot + 18, parts, words)


def slots(frames: np.ndarray) -> list[int | None]:
    """Choose the crops below a timeline: the frame nearest to the middle of each of `SLOTS` equal parts.

    Args:
        frames: (N,) frame numbers, ascending.

    Returns:
        `SLOTS` indices into `frames`, None for a part without frames.
    """
    edges = np.linspace(frames[0] - 0.5, frames[-1] + 0.5, SLOTS + 1)
    part = np.searchsorted(edges, frames, side="right") - 1
    away = np.abs(frames - (edges[part] + edges[part + 1]) / 2)
    members = [np.flatnonzero(part == number) for number in range(SLOTS)]
    return [int(own[np.argmin(away[own])]) if len(own) else None for own in members]


def timeline(
    frames: np.ndarray, labels: np.ndarray, scores: np.ndarray, stride: int, crops: Mapping[int, str | None]
) -> Markup:
    """Draw the scores of a track over its frames, with the labels behind and crops below.

    Args:
        frames: (N,) frame numbers, ascending.
        labels: (N,) 0 or 1.
        scores: (S, N) of S seeds: the line is their mean, the band spans the lowest to the highest.
        stride: of the key frames; the line has a gap where key frames are missing.
        crops: data URI by index from `slots`; None for a missing picture.
    """
    top, bottom = 8, 118
    height = bottom + 22 + _CROP + 28
    x = svg.scale(frames[0] - stride / 2, frames[-1] + stride / 2, _LEFT, _TIMELINE - _RIGHT)
    y = svg.scale(0, 1, bottom, top)
    gap = np.diff(frames) > stride
    parts = []
    for run in _runs(gap | (np.diff(labels) != 0)):
        if labels[run[0]] == 1:
            left, right = x(frames[run[0]] - stride / 2), x(frames[run[-1]] + stride / 2)
            parts.append(svg.rect(left, top, right - left, bottom - top, "truth"))
    for tick in (0, THRESHOLD, 1):
        kind = "chance" if tick == THRESHOLD else "grid"
        parts.append(svg.line(_LEFT, y(tick), _TIMELINE - _RIGHT, y(tick), kind))
        parts.append(svg.text(_LEFT - 6, y(tick) + 4, f"{100 * tick:.0f}", "end"))
    mean, low, high = y(scores.mean(axis=0)), y(scores.min(axis=0)), y(scores.max(axis=0))
    for run in _runs(gap):
        xs = x(frames[run])
        parts.append(svg.polyline(np.append(xs, xs[::-1]), np.append(high[run], low[run][::-1]), "band"))
        parts.append(
            svg.polyline(xs, mean[run], "line c0") if len(run) > 1 else svg.circle(xs[0], mean[run[0]], 2.5, "dot")
        )
    pitch = (_TIMELINE - _RIGHT - _LEFT) / SLOTS
    for slot, index in enumerate(slots(frames)):
        if index is None:
            continue
        left, above = _LEFT + slot * pitch + (pitch - _CROP) / 2, bottom + 20
        middle, picture = left + _CROP / 2, crops[index]
        score = float(scores[:, index].mean())
        wrong = (score >= THRESHOLD) != (labels[index] == 1)
        parts.append(svg.polyline([x(frames[index])] * 2 + [middle], [bottom, bottom + 6, above - 2], "lead-line"))
        if picture is not None:
            parts.append(
                Markup('<image x="{:.1f}" y="{}" width="{}" height="{}" href="{}"/>').format(
                    left, above, _CROP, _CROP, picture
                )
            )
        parts.append(svg.rect(left, above, _CROP, _CROP, "crop looking" if labels[index] == 1 else "crop"))
        parts.append(svg.text(middle, above + _CROP + 13, f"{100 * score:.0f}", "middle", "wrong" if wrong else ""))
        parts.append(svg.text(middle, above + _CROP + 26, str(frames[index]), "middle", "small"))
    return svg.drawing(_TIMELINE, height, parts, f"scores of frames {frames[0]} to {frames[-1]}", "timeline")


def _axes(x: svg.Scale, y: svg.Scale, start: float, below: float | None = None) -> list[Markup]:
    """Draw the grid with numbers in per cent: 0 to 1 along x, `start` to 1 along y."""
    parts = []
    for tick in np.linspace(0, 1, 6):
        parts.append(svg.line(x(tick), y(start), x(tick), y(1), "grid"))
        parts.append(svg.text(x(tick), below or y(start) + 15, f"{100 * tick:.0f}", "middle"))
    for tick in np.linspace(start, 1, 6):
        parts.append(svg.line(x(0), y(tick), x(1), y(tick), "grid"))
        parts.append(svg.text(x(0) - 6, y(tick) + 4, f"{100 * tick:.0f}", "end"))
    return parts


def _runs(broken: np.ndarray) -> list[np.ndarray]:
    """Split the indices 0..N-1 where `broken` (N - 1,) is true."""
    return np.split(np.arange(len(broken) + 1), np.flatnonzero(broken) + 1)


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}"
