"""Sweeps: one recipe under all combinations of some values, as rows, a table and a heat map."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from benchmarks.config.ensemble import RowConfig, resolve_row
from benchmarks.rows.schema import Result, shown_split
from benchmarks.table import svg
from registry import UserError
from zoo.files.atomic import write_text

Grid = Mapping[str, Sequence[str]]
"""Key -> values, in the order of the command line."""

# Of the heat map: colours from low to high, matplotlib's cividis at nine places; a cell's size; a letter's width.
_COLOURS = ("#00224e", "#1a386f", "#434e6c", "#61656f", "#7d7c78", "#9b9476", "#bcae6c", "#dec958", "#fee838")
_CELL, _LETTER = (84, 34), 7.2
_STYLE = "\n".join(
    [
        "text { font: 12px sans-serif; fill: #222 } .title { font-weight: bold }",
        ".on-dark { fill: #fff } .on-light { fill: #000 } .unknown { fill: #ddd } rect { stroke: #fff }",
        *(f".s{number} {{ fill: {colour} }}" for number, colour in enumerate(_COLOURS)),
    ]
)

_COMMAS = re.compile(r",(?![^\[(]*[\])])")  # outside brackets


def parse_grid(sweeps: Sequence[str]) -> dict[str, list[str]]:
    """Parse the `KEY=A,B,...` of `--sweep`.

    Raises:
        UserError: the form is wrong, or a key or value is repeated.

    Example:
        >>> parse_grid(["head=lstm,gru", "head.mlp=[8,8],[16,16]"])
        {'head': ['lstm', 'gru'], 'head.mlp': ['[8,8]', '[16,16]']}
    """
    grid: dict[str, list[str]] = {}
    for sweep in sweeps:
        key, equals, text = sweep.partition("=")
        values = [value.strip() for value in _COMMAS.split(text)]
        if not equals or not key or not all(values):
            raise UserError(f"--sweep {sweep}: expected KEY=A,B,..., such as head=lstm,gru or training.lr=1e-3,5e-4")
        if key in grid:
            raise UserError(f"--sweep names {key} twice; give its values in one list")
        if len(set(values)) < len(values):
            raise UserError(f"--sweep {sweep}: a value is repeated")
        grid[key] = values
    return grid


def grid_rows(grid: Grid, recipe: str, dataset: str, **given: Any) -> dict[tuple[str, ...], RowConfig]:
    """Resolve a recipe under every combination of the grid.

    Args:
        grid: keys are `backbone`, `weights`, `head`, and any key of `--set`.
        recipe: name, or path of a file.
        dataset: name, or path of a file.
        given: changes that all rows share, as for `resolve_row`.

    Returns:
        Values, in the order of the grid's keys -> resolved row. A backbone or head that the recipe has already, with
        the same arguments, changes nothing, so that the recipe's own row is not made again under another name.

    Raises:
        UserError: a combination is invalid or equals another, or `given` changes what the grid changes.
    """
    found: dict[tuple[str, ...], RowConfig] = {}
    for values in itertools.product(*grid.values()):
        arguments: dict[str, Any] = {**given, "settings": list(given.get("settings", ()))}
        for key, value in zip(grid, values, strict=True):
            if key in ("backbone", "weights", "head"):
                if arguments.get(key) is not None:
                    raise UserError(f"--sweep {key}=... and --{key} {arguments[key]} exclude each other")
                arguments[key] = value
            else:
                arguments["settings"].append(f"{key}={value}")
        row = _without_own_parts(recipe, dataset, arguments, [key for key in ("backbone", "head") if key in grid])
        same = next((other for other, known in found.items() if known.name == row.name), None)
        if same is not None:
            raise UserError(f"--sweep: {', '.join(values)} and {', '.join(same)} are the same row, {row.name}")
        found[values] = row
    return found


def _without_own_parts(recipe: str, dataset: str, arguments: dict[str, Any], keys: Sequence[str]) -> RowConfig:
    """Resolve a recipe without those replacements of parts that compute what its own part does."""
    row = resolve_row(recipe, dataset, **arguments)
    for key in keys:
        fewer = {**arguments, key: None}
        try:
            own = resolve_row(recipe, dataset, **fewer)
        except UserError:  # a setting may be one of the other part only
            continue
        if _computed(own) == _computed(row):
            row, arguments = own, fewer
    return row


def _computed(row: RowConfig) -> dict[str, Any]:
    """What a row computes: its values without names, and without whom its backbone stands in for."""
    return {key: value for key, value in row.as_dict().items() if key not in ("name", "changes", "stands_in_for")}


def sweep_figures(grid: Grid, rows: Mapping[tuple[str, ...], RowConfig], results: Sequence[Result]) -> pd.DataFrame:
    """Collect the figures of a sweep in one table, one line per row.

    Args:
        grid: of the sweep.
        rows: from `grid_rows`.
        results: one per row, in order.

    Returns:
        One column per key, then `row`, `split`, `mAP`, `std`, `low`, `high`, `seeds`. mAP, its standard deviation over
        the seeds and its interval are fractions, NaN if unknown, as where the split has one class only.
    """
    lines = []
    for values, result in zip(rows, results, strict=True):
        split = shown_split(result)
        assert split is not None  # val always has labels
        metric = result["splits"][split]["metrics"]["mAP"]
        line = dict(zip(grid, values, strict=True), row=result["name"], split=split)
        low, high = metric["interval"] or (None, None)
        figures = {"mAP": metric["mean"], "std": metric["std"], "low": low, "high": high}
        lines.append({**line, **figures, "seeds": len(result["seeds"])})
    return pd.DataFrame(lines).astype(dict.fromkeys(("mAP", "std", "low", "high"), float))


def write_sweep(grid: Grid, table: pd.DataFrame, folder: Path, title: str) -> str:
    """Write `table.csv`, `table.md` and `heatmap.svg`. The first key runs down, the others run across.

    Args:
        grid: of the sweep.
        table: from `sweep_figures`.
        folder: to write to.
        title: of table and picture.

    Returns:
        The table as Markdown, in percent.
    """
    first, *others = grid
    across = [", ".join(values) for values in itertools.product(*(grid[key] for key in others))] if others else ["mAP"]
    corner = f"{first} \\ {', '.join(others)}" if others else first
    cells = [
        "undefined" if np.isnan(mean) else f"{100 * mean:.2f} ± {100 * std:.2f}" if seeds > 1 else f"{100 * mean:.2f}"
        for mean, std, seeds in table[["mAP", "std", "seeds"]].itertuples(index=False)
    ]
    by_line = np.array(cells).reshape(len(grid[first]), -1)
    body = [[value, *line] for value, line in zip(grid[first], by_line, strict=True)]
    text = title + "\n\n" + tabulate(body, [corner, *across], tablefmt="github", disable_numparse=True)
    write_text(folder / "table.md", text + "\n")
    write_text(folder / "table.csv", table.to_csv(index=False))
    values = 100 * table["mAP"].to_numpy().reshape(by_line.shape)
    write_text(folder / "heatmap.svg", _heat_map(values, grid[first], across, f"{title}\n{corner}, mAP in %"))
    return text


def _heat_map(values: np.ndarray, down: Sequence[str], across: Sequence[str], title: str) -> str:
    """Draw values (len(down), len(across)) in percent, as a page's SVG that stands by itself."""
    left, top = 20 + _LETTER * max(map(len, down)), 64
    width = max(_CELL[0], 20 + _LETTER * max(map(len, across)))
    size = left + width * len(across) + 20, top + _CELL[1] * len(down) + 20
    shown = values[np.isfinite(values)]
    low, high = (shown.min(), shown.max()) if len(shown) else (0.0, 0.0)
    parts = []
    for line, words in enumerate(title.splitlines()):
        parts.append(svg.text(20, 22 + 16 * line, words, "start", "title" if line == 0 else ""))
    parts += [svg.text(left + width * (x + 0.5), top - 8, name, "middle") for x, name in enumerate(across)]
    parts += [svg.text(left - 8, top + _CELL[1] * (y + 0.5) + 4, name, "end") for y, name in enumerate(down)]
    for (y, x), value in np.ndenumerate(values):
        share = (value - low) / (high - low) if high > low else 1.0
        known = bool(np.isfinite(value))
        step = f"s{round(share * (len(_COLOURS) - 1))}" if known else "unknown"
        at, above = left + width * x, top + _CELL[1] * y
        parts.append(svg.rect(at, above, width, _CELL[1], step))
        words, kind = (f"{value:.1f}", "on-dark" if share < 0.5 else "on-light") if known else ("-", "")
        parts.append(svg.text(at + width / 2, above + _CELL[1] / 2 + 4, words, "middle", kind))
    return svg.standalone(svg.drawing(*size, parts, title.replace("\n", ", ")), _STYLE)
