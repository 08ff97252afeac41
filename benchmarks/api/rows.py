"""The benchmark from Python: run a row, read finished rows, compare two.

`from benchmarks import run, results, compare` imports these. The command line does the same through the same rooms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import pandas as pd
from typing_extensions import Unpack  # in typing from Python 3.11

from benchmarks.config.ensemble import resolve_row
from benchmarks.pipeline.run import run as run_rows
from benchmarks.pipeline.session import Session, open_dataset
from benchmarks.rows.folder import folder_name
from benchmarks.rows.predictions import read_table
from benchmarks.rows.schema import Result, shown_split
from benchmarks.system.device import take_device
from benchmarks.table.comparison import compare_rows
from benchmarks.table.table import THIS_MACHINE, TableRow, collect, rows
from registry import UserError, load_plugins


class RunOptions(TypedDict, total=False):
    """What `run` may change; each key is the option of `bench.py run` with this name."""

    dataset: str
    root: str | Path
    backbone: str
    head: str
    weights: str
    checkpoint: str
    settings: Sequence[str]
    limit: int
    device: str
    plugins: Sequence[str]


@dataclass(frozen=True)
class FinishedRow:
    """A finished row.

    Attributes:
        record: its record, as `result.json` holds it; schema in `benchmarks.rows.schema`.
        folder: with `result.json` and `predictions.csv`; None for a committed record.
    """

    record: Result
    folder: Path | None

    @property
    def name(self) -> str:
        """Recipe and changes: `internlstm_flip_tta+head=gru`."""
        return self.record["name"]

    @property
    def split(self) -> str:
        """Split that `metrics` are of: test if it is labelled, else val."""
        split = shown_split(self.record)
        if split is None:
            raise UserError(f"{self.name}: no split has labels, so there are no figures")
        return split

    @property
    def metrics(self) -> dict[str, float | None]:
        """Means over the seeds as fractions, and `mAP_std`, `mAP_low`, `mAP_high` (95 % interval); None if undefined.

        Keys: `mAP`, `AP.looking`, `AP.not_looking`, `accuracy`, and these three.
        """
        figures: dict[str, Any] = dict(self.record["splits"][self.split]["metrics"])
        found = {name: figure["mean"] for name, figure in figures.items()}
        low, high = figures["mAP"]["interval"] or (None, None)
        return {**found, "mAP_std": figures["mAP"]["std"], "mAP_low": low, "mAP_high": high}

    def predictions(self) -> pd.DataFrame:
        """Scores of all seeds: split, seed, clip, track, frame, label (1 looking, 0 not, -1 unknown), score in [0, 1].

        Raises:
            UserError: a committed record has no scores, or the file is damaged.
        """
        if self.folder is None:
            raise UserError(f"{self.name}: a committed record has no scores; run the row")
        return read_table(self.folder / "predictions.csv", "run the row again")


@dataclass(frozen=True)
class Results(Sequence[FinishedRow]):
    """Finished rows and committed records, as `bench.py table` shows them.

    Attributes:
        rows: in no particular order.
        origins: of each row: `this machine` or `record of DATE`.
    """

    rows: tuple[FinishedRow, ...]
    origins: tuple[str, ...]

    def __getitem__(self, place: Any) -> Any:
        """A row by its name or number."""
        if not isinstance(place, str):
            return self.rows[place]
        found = next((row for row in self.rows if row.name == place), None)
        if found is None:
            raise KeyError(f"no row {place}; there are {', '.join(row.name for row in self.rows)}")
        return found

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[FinishedRow]:
        return iter(self.rows)

    def to_frame(self) -> pd.DataFrame:
        """One line per row in the order of the table; columns as `TableRow` describes them, figures as fractions."""
        named = [(row.record, origin) for row, origin in zip(self.rows, self.origins, strict=True)]
        lines = [vars(row) for row in rows(named) if row.recipe]
        return pd.DataFrame(lines, columns=[*TableRow.__dataclass_fields__])


@dataclass(frozen=True)
class Comparison:
    """The difference between two rows on the frames that both have.

    Attributes:
        difference: mean mAP of the first minus that of the second, a fraction.
        interval: 95 % interval of the difference over clips and seeds, fractions; None with too few clips.
        p: None if a row has no scores, as committed records.
        better: name of the better row; None if the interval includes 0 or there is none.
        text: all of it in sentences.
    """

    difference: float
    interval: tuple[float, float] | None
    p: float | None
    better: str | None
    text: str

    def __str__(self) -> str:
        return self.text


def run(
    recipe: str, seeds: int | Literal["table"] = 1, out: str | Path = "runs", **changes: Unpack[RunOptions]
) -> FinishedRow:
    """Train and score a recipe, like `python bench.py --recipe`; finished work is reused.

    Seeds are trained one after the other: side by side they would import the calling program again.

    Args:
        recipe: name, or path of a recipe file.
        seeds: number of seeds, or `table` for that of the comparison table.
        out: folder of the runs.
        changes: see `RunOptions`.

    Raises:
        UserError: anything that the caller can correct, in one line.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as out:
        ...     row = run("probe", out=out, limit=4)
        ...     scores = row.predictions()
        >>> row.name, row.split, sorted(row.metrics)[:4]
        ('probe+limit=4', 'test', ['AP.looking', 'AP.not_looking', 'accuracy', 'mAP'])
        >>> scores.columns.tolist()
        ['split', 'seed', 'clip', 'track', 'frame', 'label', 'score']
    """
    given: dict[str, Any] = {**changes}
    dataset = given.pop("dataset", "synthlam")
    root, device, plugins = given.pop("root", None), given.pop("device", None), given.pop("plugins", ())
    load_plugins(plugins)
    config = resolve_row(recipe, dataset, **given)
    reader = open_dataset(dataset, None if root is None else Path(root))
    session = Session(reader, Path(out), seeds, take_device(device), plugins=plugins)
    (record,) = run_rows([config], session)
    return FinishedRow(record, Path(out) / "results" / config.dataset / folder_name(record["name"]))


def results(out: str | Path = "runs", dataset: str | None = None) -> Results:
    """Read all finished rows and committed records; an own run takes the place of the record of the same name.

    Args:
        out: folder of the runs.
        dataset: of the rows; None for all.

    Example:
        >>> frame = results().to_frame()
        >>> "internlstm_flip_tta" in set(frame["recipe"])
        True
        >>> results()["truth"].metrics["mAP"] > 0.9
        True
    """
    found = [each for each in collect(Path(out)) if dataset is None or each[0]["dataset"]["name"] == dataset]
    places = [Path(out) / "results" / record["dataset"]["name"] / folder_name(record["name"]) for record, _ in found]
    return Results(
        tuple(
            FinishedRow(record, place if origin == THIS_MACHINE else None)
            for (record, origin), place in zip(found, places, strict=True)
        ),
        tuple(origin for _, origin in found),
    )


def compare(
    a: str, b: str, out: str | Path = "runs", split: Literal["test", "val"] = "test", dataset: str = "synthlam"
) -> Comparison:
    """Compare two rows, like `python bench.py compare`.

    Args:
        a: name or folder of a finished row, or a committed record.
        b: another.
        out: folder of the runs.
        split: on which.
        dataset: of the rows.

    Raises:
        UserError: no such row, or no frames in common.

    Example:
        >>> found = compare("internlstm_flip", "internlstm")
        >>> found.better
        'internlstm_flip'
    """
    compared = compare_rows(a, b, Path(out), split, dataset)
    found = compared.found
    sure = not (found.too_few or found.includes_zero)
    return Comparison(
        difference=float(found.value),
        interval=None if found.too_few else (float(found.low), float(found.high)),
        p=compared.p,
        better=compared.names[0 if found.value > 0 else 1] if sure else None,
        text=" ".join(compared.lines),
    )
