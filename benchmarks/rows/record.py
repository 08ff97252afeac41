"""From the scores of a row to its figures, its record and its folder; whatever the scores come from."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.data.frames import BOX
from benchmarks.data.windows import KeyFrames
from benchmarks.evaluation.bootstrap import bootstrap_interval
from benchmarks.evaluation.compare import without_each_clip
from benchmarks.evaluation.diagnosis import diagnose
from benchmarks.evaluation.metrics import NAMES, lam_map
from benchmarks.rows import provenance, schema
from benchmarks.rows.folder import write_row_sums
from benchmarks.scoring.files import write_groundtruth, write_predictions
from zoo.files.atomic import replacing, write_text

if TYPE_CHECKING:
    from benchmarks.config.ensemble import Ensemble
    from benchmarks.config.recipe import Recipe


BOOTSTRAP_REPEATS = 1000


@dataclass(frozen=True)
class RowScores:
    """What the seeds of a row came to.

    Attributes:
        seeds: in order.
        parts: split -> part -> (M,) scores a seed. The parts are views of a recipe, or members of an ensemble.
        fused: split -> (S, M) the row's own scores.
        fitted: what was fitted on validation, as in the record.
        backbone: the record's section of that name.
        head: likewise.
        training: likewise, one report a seed.
        counts: likewise, beside the windows of the splits.
        seconds: likewise.
    """

    seeds: list[int]
    parts: Mapping[str, Mapping[str, Sequence[np.ndarray]]]
    fused: Mapping[str, np.ndarray]
    fitted: dict[str, Any]
    backbone: dict[str, Any]
    head: dict[str, Any]
    training: list[dict[str, Any]]
    counts: dict[str, int]
    seconds: dict[str, float]


def record(
    folder: Path,
    row: Recipe | Ensemble,
    made: RowScores,
    *,
    settings: dict[str, Any],
    description: Mapping[str, Any],
    plans: Mapping[str, KeyFrames],
    tables: Mapping[str, pd.DataFrame],
    strides: Mapping[str, int],
    facts: Mapping[str, Mapping[str, np.ndarray]],
    device: str,
) -> schema.Result:
    """Compute a row's figures and write its folder.

    Args:
        folder: of the row.
        row: what was run.
        made: what came of it.
        settings: what a run must share with this one to be the same row.
        description: of the dataset.
        plans: split -> its key frames.
        tables: split -> frame table.
        strides: split -> every how many frames of a track a key frame lies.
        facts: split -> what is known of its frames, as `benchmarks.pixels.properties.frame_properties` tells.
        device: that it was computed on.

    Returns:
        The row's `result.json`.
    """
    splits = {
        split: _figures(made.fused[split], made.parts[split], plan, tables[split], strides[split])
        for split, plan in plans.items()
        if (plan.labels >= 0).any()
    }
    counts = {f"{split} windows": len(plan.centres) for split, plan in plans.items()}
    result: schema.Result = {
        "schema": schema.SCHEMA,
        "name": row.name,
        "config": row.as_dict(),
        "settings": settings,
        "dataset": dict(description),
        "backbone": made.backbone,
        "head": made.head,
        "seeds": made.seeds,
        "training": made.training,
        "fitted": made.fitted,
        "counts": {**counts, **made.counts},
        "splits": splits,
        "diagnosis": diagnose(made.fused, plans, tables, facts),
        "seconds": {name: round(seconds, 2) for name, seconds in made.seconds.items()},
        "environment": {**provenance.environment(device), "deterministic": provenance.deterministic(device)},
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    _write(folder, result, row, made, plans, tables)
    return result


def _figures(
    fused: np.ndarray, views: Mapping[str, Sequence[np.ndarray]], plan: KeyFrames, table: pd.DataFrame, stride: int
) -> schema.Split:
    """The figures of one labelled split; `fused` is (seeds, M)."""
    known = plan.labels >= 0
    labels, clips = plan.labels[known], table["clip"].to_numpy()[plan.centres][known]
    by_seed = [lam_map(scores[known], labels) for scores in fused]
    interval = bootstrap_interval(fused[:, known], labels, clips, repeats=BOOTSTRAP_REPEATS)
    figures = [metrics.to_dict() for metrics in by_seed]
    confusions = [metrics["confusion"] for metrics in figures]
    return {
        "windows": len(labels),
        "positives": int(labels.sum()),
        "clips": interval.clips,
        "stride": stride,
        "metrics": {name: _metric([each[name] for each in figures], interval.bounds[name]) for name in NAMES},
        "confusion": {name: float(np.mean([each[name] for each in confusions])) for name in confusions[0]},
        "views": {
            view: _metric([lam_map(scores[known], labels).map for scores in of_seeds], None)
            for view, of_seeds in views.items()
        },
        "without_clip": without_each_clip(fused[:, known], labels, clips),
    }


def _metric(values: Sequence[float | None], interval: Sequence[float] | None) -> schema.Metric:
    defined = [value for value in values if value is not None]
    if len(defined) < len(values):  # one class only: no average precision
        return {"mean": None, "std": None, "interval": None, "per_seed": list(values)}
    std = float(np.std(defined, ddof=1)) if len(defined) > 1 else 0.0
    bounds = None if interval is None else [float(bound) for bound in interval]
    return {"mean": float(np.mean(defined)), "std": std, "interval": bounds, "per_seed": list(values)}


def _write(
    folder: Path,
    result: schema.Result,
    row: Recipe | Ensemble,
    made: RowScores,
    plans: Mapping[str, KeyFrames],
    tables: Mapping[str, pd.DataFrame],
) -> None:
    """The row's folder; `result.json` comes last, since it is what says that the rest is whole, then the checksums."""
    columns = ["clip", "track", "frame", "person", *BOX, "unique_id", "label"]
    parts = []
    for split, plan in plans.items():
        keys = tables[split].iloc[plan.centres][columns]
        if split != "train" and (keys["label"] >= 0).all():
            write_groundtruth(folder / f"groundtruth_{split}.csv", keys, split)
        for number, seed in enumerate(result["seeds"]):
            own = {f"score_{part}": of_seeds[number] for part, of_seeds in made.parts[split].items()}
            parts.append(keys.assign(**own, score=made.fused[split][number]).assign(split=split, seed=seed))
            if split != "train":
                write_predictions(
                    folder / f"seed{seed}" / f"{split}.csv", keys.assign(score=made.fused[split][number]), split
                )
    with replacing(folder / "predictions.csv") as temporary:
        table = pd.concat(parts)
        table[["split", "seed", *(name for name in table.columns if name not in ("split", "seed"))]].to_csv(
            temporary, index=False
        )
    write_text(folder / "config.py", _config_file(row, result["date"]))
    schema.write_result(folder, result)
    write_row_sums(folder)


def _config_file(row: Recipe | Ensemble, date: str) -> str:
    """The resolved row as a recipe file: `--recipe PATH/config.py` runs it again."""
    values = row.as_file()
    lines = [f"{key} = {pformat(value, width=120, sort_dicts=False)}" for key, value in values.items()]
    return f'"""{row.name} on {row.dataset}, as it was run on {date}."""\n\n' + "\n".join(lines) + "\n"
