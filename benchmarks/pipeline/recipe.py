"""A recipe's scores: one training per seed, found or made; every view scored; views averaged; smoothed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.data.windows import KeyFrames
from benchmarks.pipeline.row import RecipeRow
from benchmarks.pipeline.sources import Source, head_config
from benchmarks.rows.identity import short_hash, training_identity
from benchmarks.rows.record import RowScores
from benchmarks.scoring.smooth import FITTING, smooth_splits, split_of
from benchmarks.system import processes
from benchmarks.system.progress import plural, say
from benchmarks.training.job import TrainingJob, class_weights
from benchmarks.training.seeds import SeedResult, run_seeds


def score_recipe(row: RecipeRow, source: Source) -> RowScores | None:
    """Train a recipe's seeds, or find them trained, and score every split.

    Args:
        row: of a recipe.
        source: windows of its backbone.

    Returns:
        The row's scores; None in all processes but the first, if several train together.
    """
    recipe, session = row.recipe, row.session
    key_frames = _with_trainable_centres(row.scored, source)
    with processes.first_alone():  # the prior may compute and cache
        job = training_job(row, source, key_frames)
    seeds = row.seeds()
    results = run_seeds(job, seeds, workers=session.workers, plugins=session.plugins)
    if session.rank > 0:
        return None
    if recipe.checkpoint is None:
        _say_trained(recipe.name, results)

    views = {
        split: {view: [result.scores[split, view] for result in results] for view in recipe.views.test}
        for split in key_frames
    }
    fused = {
        split: np.mean([np.stack(scores) for scores in of_split.values()], axis=0) for split, of_split in views.items()
    }
    fused, fitted = smooth_splits(fused, key_frames, session.tables, recipe.smoothing)
    fitting = fused.pop(FITTING, None)
    reports = [{key: value for key, value in result.report.items() if key != "reused"} for result in results]
    return RowScores(
        seeds=seeds,
        key_frames={split: of_split for split, of_split in key_frames.items() if split != FITTING},
        parts={split: of_split for split, of_split in views.items() if split != FITTING},
        fused=fused,
        fitting=None if fitting is None else (key_frames[FITTING], fitting),
        fitted=fitted,
        backbone={**source.backbone, "stands_in_for": recipe.stands_in_for},
        head={
            "type": recipe.head["type"],
            "parameters": reports[0]["parameters"],
            "initialised_from": reports[0].get("initial", {}).get("lstm"),
        },
        training=reports,
        counts={"training windows, all views": len(job.data), "damaged": len(source.damaged)},
        seconds={
            "features": source.seconds,
            "training": float(np.mean([report["seconds"] for report in reports])),
            "scoring": float(np.mean([result.seconds for result in results])),
        },
    )


def training_job(row: RecipeRow, source: Source, key_frames: Mapping[str, KeyFrames]) -> TrainingJob:
    """What the trainings of a recipe's seeds share.

    Args:
        row: of a recipe.
        source: windows of its backbone.
        key_frames: split, or `FITTING` -> key frames to train on or to score.
    """
    recipe, session = row.recipe, row.session
    identity = training_identity(recipe, row.identity, row.dataset_info, source)
    labels = session.tables["train"]["label"].to_numpy()
    if recipe.training.class_weight == "balanced_key_frames":
        labels = key_frames["train"].labels
    return TrainingJob(
        head_config=head_config(recipe, source.backbone["feature_dim"]),
        backbone_config=recipe.backbone if recipe.on_pixels else None,
        training=recipe.training,
        data=source.windows(key_frames["train"], "train", recipe.views.train),
        validation=source.windows(key_frames["val"], "val", ["original"]),
        weights=class_weights(labels, recipe.training.class_weight),
        to_score={
            (split, view): source.windows(of_split, split_of(split), [view])
            for split, of_split in key_frames.items()
            for view in recipe.views.test
        },
        folder=session.out / "trainings" / short_hash(identity),
        device=session.device,
        name=recipe.name,
        augment=recipe.augment,
        checkpoint=None if recipe.checkpoint is None else Path(recipe.checkpoint),
    )


def _with_trainable_centres(key_frames: Mapping[str, KeyFrames], source: Source) -> dict[str, KeyFrames]:
    """Drop training key frames whose crop is damaged. On other splits their windows are scored from the neighbours."""
    train = key_frames["train"]
    keep = source.positions["train"][train.centres] >= 0
    return {**key_frames, "train": KeyFrames(train.rows[keep], train.centres[keep], train.labels[keep])}


def _say_trained(name: str, results: list[SeedResult]) -> None:
    reused = sum(result.report["reused"] for result in results)
    say(
        f"{name}: {plural(len(results) - reused, 'training')} done, {reused} reused; best validation mAP "
        + ", ".join(f"{100 * each.report['best_mAP']:.2f} (epoch {each.report['best_epoch']})" for each in results)
    )
