"""An ensemble's scores: those of its finished members, fused with weights fitted on validation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data.frames import KEY
from benchmarks.data.windows import KeyFrames
from benchmarks.pipeline.row import EnsembleRow, RecipeRow
from benchmarks.rows import schema
from benchmarks.rows.predictions import read_table
from benchmarks.rows.record import FITTING_FILE, RowScores
from benchmarks.rows.trainings import ensemble_trainings
from benchmarks.scoring.fuse import fit_weights, fuse_members
from benchmarks.scoring.smooth import FITTING, smooth_splits, split_of
from benchmarks.system.progress import plural, say
from registry import UserError


def score_ensemble(row: EnsembleRow) -> RowScores:
    """Fuse the scores of an ensemble's members.

    Args:
        row: of an ensemble whose members' rows are finished.

    Raises:
        UserError: the members share no seed or no key frame, or a member's files are damaged.
    """
    started = time.perf_counter()
    names = [member.name for member in row.members]
    found = {member.name: schema.read_result(member.folder / "result.json") for member in row.members}
    seeds = sorted(set.intersection(*(set(result["seeds"]) for result in found.values())))
    if not seeds:
        raise UserError(f"{row.name}: its members share no seed; train all with the same, --set training.seed=N")
    scored = {
        split: _shared_key_frames([_frames_of(member, split) for member in row.members])
        for split in [*row.session.tables, FITTING]
        if split != "train"
    }
    parts = _member_scores(row, scored, seeds)

    known = scored[FITTING].labels >= 0
    labels = scored[FITTING].labels[known]
    weights = [
        fit_weights(np.stack([parts[FITTING][name][number][known] for name in names]), labels)
        for number in range(len(seeds))
    ]
    mean = np.mean(weights, axis=0)
    say(
        f"{row.name}: weights fitted on {plural(int(known.sum()), 'validation frame')}: "
        + ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, mean, strict=True))
    )
    fused = {
        split: np.stack(
            [
                fuse_members(np.stack([of_split[name][number] for name in names]), of_seed)
                for number, of_seed in enumerate(weights)
            ]
        )
        for split, of_split in parts.items()
    }
    fused, fitted = smooth_splits(fused, scored, row.session.tables, row.recipe.smoothing)
    splits = [split for split in scored if split != FITTING]
    return RowScores(
        seeds=seeds,
        key_frames={split: scored[split] for split in splits},
        parts={split: parts[split] for split in splits},
        fused={split: fused[split] for split in splits},
        fitted={"weights": {name: [float(each[n]) for each in weights] for n, name in enumerate(names)}, **fitted},
        backbone=_section("backbone", found),
        head=_section("head", found),
        training=[],
        trainings=ensemble_trainings(found.values(), seeds),
        counts={"damaged": max(result["counts"]["damaged"] for result in found.values())},
        seconds=_seconds(found, time.perf_counter() - started),
    )


def _frames_of(member: RecipeRow, split: str) -> KeyFrames:
    """A member's key frames of one split; for `FITTING`, its own of validation if these have the stride of test."""
    return member.scored.get(split, member.key_frames[split_of(split)])


def _shared_key_frames(key_frames: Sequence[KeyFrames]) -> KeyFrames:
    """The key frames that all members score, with the windows of the first."""
    first, *others = key_frames
    keep = np.ones(len(first.centres), dtype=bool)
    for other in others:
        keep &= np.isin(first.centres, other.centres)
    if not keep.any():
        raise UserError("the members of an ensemble share no key frame; --set windows.stride.val=1 gives some")
    return KeyFrames(first.rows[keep], first.centres[keep], first.labels[keep])


def _member_scores(
    row: EnsembleRow, key_frames: Mapping[str, KeyFrames], seeds: Sequence[int]
) -> dict[str, dict[str, list[np.ndarray]]]:
    """Split -> member -> one array (M,) of scores per seed, on the shared key frames."""
    parts: dict[str, dict[str, list[np.ndarray]]] = {split: {} for split in key_frames}
    for member in row.members:
        path = member.folder / "predictions.csv"
        tables = dict.fromkeys(key_frames, read_table(path, _remedy(member)))
        if member.fitting is not None:
            tables[FITTING] = read_table(member.folder / FITTING_FILE, _remedy(member))
        for split, shared in key_frames.items():
            keep = np.isin(_frames_of(member, split).centres, shared.centres)
            scores = _scores_of(tables[split], member, split)
            for seed in seeds:
                if seed not in scores:
                    raise UserError(f"{path} lacks seed {seed}; {_remedy(member)}")
            parts[split][member.name] = [scores[seed][keep] for seed in seeds]
    return parts


def _scores_of(table: pd.DataFrame, member: RecipeRow, split: str) -> dict[int, np.ndarray]:
    """Scores (M,) of a member's file by seed, in the order of its key frames of one split."""
    own = split_of(split)
    expected = member.session.tables[own].iloc[_frames_of(member, split).centres]
    scores = {}
    for seed, part in table[table["split"] == own].groupby("seed"):
        if len(part) != len(expected) or any((part[key].to_numpy() != expected[key].to_numpy()).any() for key in KEY):
            raise UserError(
                f"{member.folder / 'predictions.csv'} does not hold the key frames of its run; {_remedy(member)}"
            )
        scores[int(seed)] = part["score"].to_numpy()
    return scores


def _remedy(member: RecipeRow) -> str:
    return f"delete {member.folder} and run again"


def _seconds(found: Mapping[str, schema.Result], fusing: float) -> dict[str, float]:
    """The record's section `seconds`: sums over the members. A backbone that members share counts once."""
    by_backbone = {str(result["backbone"]["fingerprint"]): result for result in found.values()}
    return {
        "features": sum(result["seconds"]["features"] for result in by_backbone.values()),
        "training": sum(result["seconds"]["training"] for result in found.values()),
        "scoring": sum(result["seconds"]["scoring"] for result in found.values()) + fusing,
    }


def _section(which: str, found: Mapping[str, schema.Result]) -> dict[str, Any]:
    """The record's section `backbone` or `head`, with those of the members. A backbone they share counts once."""
    sections = [result[which] for result in found.values()]  # type: ignore[literal-required]
    if which == "backbone":
        sections = list({str(section["fingerprint"]): section for section in sections}.values())
    return {"type": "ensemble", "of": sections, "parameters": sum(section["parameters"] for section in sections)}
