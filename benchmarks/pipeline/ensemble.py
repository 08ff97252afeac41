"""An ensemble's scores: those of its finished members, fused with weights fitted on validation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.data.frames import KEY
from benchmarks.data.windows import KeyFrames
from benchmarks.pipeline.row import EnsembleRow, RecipeRow
from benchmarks.rows import schema
from benchmarks.rows.predictions import read_table
from benchmarks.rows.record import RowScores
from benchmarks.scoring.fuse import fit_weights, fuse_members
from benchmarks.scoring.smooth import smooth_splits
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
    splits = [split for split in row.session.tables if split != "train"]
    key_frames = {split: _shared_key_frames([member.key_frames[split] for member in row.members]) for split in splits}
    parts = _member_scores(row, key_frames, seeds)

    known = key_frames["val"].labels >= 0
    labels = key_frames["val"].labels[known]
    weights = [
        fit_weights(np.stack([parts["val"][name][number][known] for name in names]), labels)
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
    fused, fitted = smooth_splits(fused, key_frames, row.session.tables, row.recipe.smoothing)
    return RowScores(
        seeds=seeds,
        key_frames=key_frames,
        parts=parts,
        fused=fused,
        fitted={"weights": {name: [float(each[n]) for each in weights] for n, name in enumerate(names)}, **fitted},
        backbone=_section("backbone", found),
        head=_section("head", found),
        training=[],
        counts={"damaged": max(result["counts"]["damaged"] for result in found.values())},
        seconds=_seconds(found, time.perf_counter() - started),
    )


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
        scores = _read_scores(member, seeds)
        for split, shared in key_frames.items():
            keep = np.isin(member.key_frames[split].centres, shared.centres)
            parts[split][member.name] = [scores[split, seed][keep] for seed in seeds]
    return parts


def _read_scores(member: RecipeRow, seeds: Sequence[int]) -> dict[tuple[str, int], np.ndarray]:
    """Scores (M,) of a member's `predictions.csv` by split and seed, in the order of its key frames."""
    path = member.folder / "predictions.csv"
    remedy = f"delete {member.folder} and run again"
    table = read_table(path, remedy)
    table = table[table["split"] != "train"]
    scores = {}
    for (split, seed), part in table.groupby(["split", "seed"]):
        if split not in member.key_frames or seed not in seeds:
            continue
        expected = member.session.tables[split].iloc[member.key_frames[split].centres]
        if len(part) != len(expected) or any((part[key].to_numpy() != expected[key].to_numpy()).any() for key in KEY):
            raise UserError(f"{path} does not hold the key frames of its run; {remedy}")
        scores[str(split), int(seed)] = part["score"].to_numpy()
    for seed in seeds:
        for split in member.key_frames:
            if split != "train" and (split, seed) not in scores:
                raise UserError(f"{path} lacks seed {seed}; {remedy}")
    return scores


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
