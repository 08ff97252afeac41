"""Computes a row's figures and record from its scores, and writes its folder."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.config.ensemble import RowConfig
from benchmarks.data.frames import BOX
from benchmarks.data.windows import KeyFrames
from benchmarks.evaluation.bootstrap import bootstrap_interval
from benchmarks.evaluation.compare import without_each_clip
from benchmarks.evaluation.diagnosis import LabelledScores, diagnose
from benchmarks.evaluation.metrics import NAMES, lam_map
from benchmarks.rows import schema
from benchmarks.rows.folder import write_row_sums
from benchmarks.scoring.files import write_groundtruth, write_predictions
from zoo.files.atomic import replacing, write_text
from zoo.files.untrusted import below

BOOTSTRAP_REPEATS = 1000
FITTING_FILE = "fitting.csv"  # in a row's folder: validation scores at the stride of test


@dataclass(frozen=True)
class RowScores:
    """The scores of a row's seeds, and the record sections on how they were made.

    Attributes:
        seeds: S seeds, ascending.
        key_frames: split -> its M key frames.
        parts: split -> part -> S arrays (M,) of scores. Parts are the views of a recipe, or the members of an
            ensemble; a reference row has none.
        fused: split -> (S, M) final scores of the row.
        fitted: record section `fitted`: values fitted on validation.
        backbone: record section `backbone`.
        head: record section `head`.
        training: record section `training`: one report per seed; none in ensembles and reference rows.
        counts: record section `counts` without the windows per split.
        seconds: record section `seconds`.
        trainings: record section `trainings` of an ensemble; None for a recipe.
        fitting: validation key frames at the stride of test and their (S, M') final scores, if they were scored.
    """

    seeds: list[int]
    key_frames: Mapping[str, KeyFrames]
    parts: Mapping[str, Mapping[str, Sequence[np.ndarray]]]
    fused: Mapping[str, np.ndarray]
    fitted: dict[str, Any]
    backbone: dict[str, Any]
    head: dict[str, Any]
    training: list[dict[str, Any]]
    counts: dict[str, int]
    seconds: dict[str, float]
    trainings: list[list[str]] | None = None
    fitting: tuple[KeyFrames, np.ndarray] | None = None


@dataclass(frozen=True)
class RowContext:
    """The record's contents besides the scores.

    Attributes:
        identity: of the row, see `benchmarks.rows.identity`.
        dataset_info: record section `dataset`.
        tables: split -> frame table.
        strides: split -> frames from one key frame of a track to the next.
        videos: split -> clip -> video, where a video has several clips; see `Dataset.videos`.
        frame_properties: split -> property -> (rows of the table,) values; see `benchmarks.pixels.properties`.
        environment: record section `environment`.
    """

    identity: dict[str, Any]
    dataset_info: dict[str, Any]
    tables: Mapping[str, pd.DataFrame]
    strides: Mapping[str, int]
    videos: Mapping[str, Mapping[str, str]]
    frame_properties: Mapping[str, Mapping[str, np.ndarray]]
    environment: dict[str, Any]


def make_record(recipe: RowConfig, scores: RowScores, context: RowContext) -> schema.Result:
    """Compute a row's figures on every labelled split; returns the contents of its `result.json`."""
    labelled = {
        split: _labelled(scores, split, context)
        for split, key_frames in scores.key_frames.items()
        if (key_frames.labels >= 0).any()
    }
    splits = {split: _figures(scores, split, of_split, context) for split, of_split in labelled.items()}
    counts = {f"{split} windows": len(key_frames.centres) for split, key_frames in scores.key_frames.items()}
    result: schema.Result = {
        "schema": schema.SCHEMA,
        "name": recipe.name,
        "config": recipe.as_dict(),
        "settings": context.identity,
        "dataset": dict(context.dataset_info),
        "backbone": scores.backbone,
        "head": scores.head,
        "seeds": scores.seeds,
        "training": scores.training,
        "fitted": scores.fitted,
        "counts": {**counts, **scores.counts},
        "splits": splits,
        "diagnosis": diagnose({split: of_split for split, of_split in labelled.items() if split != "train"}),
        "seconds": {name: round(seconds, 2) for name, seconds in scores.seconds.items()},
        "environment": context.environment,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    if scores.trainings is not None:
        result["trainings"] = scores.trainings
    return result


def _labelled(row_scores: RowScores, split: str, context: RowContext) -> LabelledScores:
    """The scores of a split's labelled key frames."""
    key_frames = row_scores.key_frames[split]
    known = key_frames.labels >= 0
    centres = key_frames.centres[known]
    properties = context.frame_properties.get(split, {})
    return LabelledScores(
        scores=row_scores.fused[split][:, known],
        labels=key_frames.labels[known],
        frames=context.tables[split].iloc[centres],
        windows=key_frames.rows[known],
        properties={name: values[centres] for name, values in properties.items()},
        videos=context.videos.get(split, {}),
    )


def _figures(row_scores: RowScores, split: str, labelled: LabelledScores, context: RowContext) -> schema.Split:
    """Figures of one labelled split."""
    known = row_scores.key_frames[split].labels >= 0
    labels, videos = labelled.labels, context.videos.get(split, {})
    interval = bootstrap_interval(labelled.scores, labels, labelled.clusters, repeats=BOOTSTRAP_REPEATS)
    figures = [lam_map(scores, labels).to_dict() for scores in labelled.scores]
    confusions = [metrics["confusion"] for metrics in figures]
    found: schema.Split = {
        "windows": len(labels),
        "positives": int(labels.sum()),
        "clips": len(np.unique(labelled.clips)),
        "stride": context.strides[split],
        "metrics": {name: _metric([each[name] for each in figures], interval.bounds[name]) for name in NAMES},
        "confusion": {name: float(np.mean([each[name] for each in confusions])) for name in confusions[0]},
        "views": {
            view: _metric([lam_map(scores[known], labels).map for scores in of_seeds], None)
            for view, of_seeds in row_scores.parts[split].items()
        },
        "without_clip": without_each_clip(labelled.scores, labels, labelled.clusters),
    }
    if videos:
        found["videos"] = dict(videos)
    return found


def _metric(values: Sequence[float | None], interval: Sequence[float] | None) -> schema.Metric:
    defined = [value for value in values if value is not None]
    if len(defined) < len(values):  # one class only: average precision is undefined
        return {"mean": None, "std": None, "interval": None, "per_seed": list(values)}
    std = float(np.std(defined, ddof=1)) if len(defined) > 1 else 0.0
    bounds = None if interval is None else [float(bound) for bound in interval]
    return {"mean": float(np.mean(defined)), "std": std, "interval": bounds, "per_seed": list(values)}


def write_row(
    folder: Path,
    recipe: RowConfig,
    result: schema.Result,
    row_scores: RowScores,
    tables: Mapping[str, pd.DataFrame],
) -> None:
    """Write a row's folder: prediction files, `config.py`, `result.json` and checksums.

    `result.json` comes after the files that it describes, because its presence marks the row as finished.

    Args:
        folder: of the row.
        recipe: resolved.
        result: the record, from `make_record`.
        row_scores: the scores in the record.
        tables: split -> frame table.
    """
    columns = ["clip", "track", "frame", "person", *BOX, "unique_id", "label"]
    parts = []
    for split, key_frames in row_scores.key_frames.items():
        keys = tables[split].iloc[key_frames.centres][columns]
        if split != "train" and (keys["label"] >= 0).all():
            write_groundtruth(folder / f"groundtruth_{split}.csv", keys, split)
        for number, seed in enumerate(result["seeds"]):
            own = {f"score_{part}": of_seeds[number] for part, of_seeds in row_scores.parts[split].items()}
            scores = row_scores.fused[split][number]
            parts.append(keys.assign(**own, score=scores).assign(split=split, seed=seed))
            if split != "train":
                path = below(folder, f"seed{seed}/{split}.csv", "a row's scores", written=True)
                write_predictions(path, keys.assign(score=scores), split)
    with replacing(folder / "predictions.csv") as temporary:
        table = pd.concat(parts)
        table[["split", "seed", *(name for name in table.columns if name not in ("split", "seed"))]].to_csv(
            temporary, index=False
        )
    if row_scores.fitting is not None:
        _write_fitting(folder / FITTING_FILE, row_scores, tables["val"])
    write_text(folder / "config.py", config_file(recipe, result["date"]))
    schema.write_result(folder, result)
    write_row_sums(folder)


def _write_fitting(path: Path, row_scores: RowScores, table: pd.DataFrame) -> None:
    """Write the scores that ensembles fit their weights on, like `predictions.csv`."""
    assert row_scores.fitting is not None
    key_frames, scores = row_scores.fitting
    keys = table.iloc[key_frames.centres][["clip", "track", "frame", "label"]].assign(split="val")
    parts = [keys.assign(seed=seed, score=own) for seed, own in zip(row_scores.seeds, scores, strict=True)]
    with replacing(path) as temporary:
        pd.concat(parts).to_csv(temporary, index=False)


def config_file(recipe: RowConfig, date: str) -> str:
    """The text of a recipe file that resolves to this row, for `--recipe PATH/config.py`."""
    values = recipe.as_file()
    lines = [f"{key} = {pformat(value, width=120, sort_dicts=False)}" for key, value in values.items()]
    return f'"""{recipe.name} on {recipe.dataset}, as it was run on {date}."""\n\n' + "\n".join(lines) + "\n"
