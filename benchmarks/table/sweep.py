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
from registry import UserError
from zoo.files.atomic import replacing, write_text

Grid = Mapping[str, Sequence[str]]
"""Key -> values, in the order of the command line."""

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
        recipe: name, or path ending in `.py`.
        dataset: name, or path ending in `.py`.
        given: changes that all rows share, as for `resolve_row`.

    Returns:
        Values, in the order of the grid's keys -> resolved row.

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
        row = resolve_row(recipe, dataset, **arguments)
        same = next((other for other, known in found.items() if known.name == row.name), None)
        if same is not None:
            raise UserError(f"--sweep: {', '.join(values)} and {', '.join(same)} are the same row, {row.name}")
        found[values] = row
    return found


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
    """Write `table.csv`, `table.md` and `heatmap.png`. The first key runs down, the others run across.

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
    _heat_map(values, grid[first], across, f"{title}\n{corner}", folder / "heatmap.png")
    return text


def _heat_map(values: np.ndarray, down: Sequence[str], across: Sequence[str], title: str, path: Path) -> None:
    """Draw values (len(down), len(across)) in percent."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    size = max(4.5, 2.2 + 1.1 * len(across)), max(2.2, 1.5 + 0.5 * len(down))
    figure, axes = pyplot.subplots(figsize=size, layout="constrained")
    image = axes.imshow(values, cmap="cividis", aspect="auto")
    shown = values[np.isfinite(values)]
    middle = (shown.min() + shown.max()) / 2 if len(shown) else 0.0
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value):
            axes.text(x, y, f"{value:.1f}", ha="center", va="center", color="white" if value < middle else "black")
    axes.set_xticks(range(len(across)), across, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(down)), down)
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, label="mAP, %")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    pyplot.close(figure)
