"""Ensemble rows: the scores of finished member rows, fused with weights fitted on validation."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.config.ensemble import Ensemble
from benchmarks.data.frames import KEY
from benchmarks.data.windows import KeyFrames
from benchmarks.rows import schema
from benchmarks.rows.folder import result_folder
from benchmarks.rows.predictions import read_table
from benchmarks.rows.record import RowScores, record
from benchmarks.scoring.fuse import combine, fit_weights
from benchmarks.scoring.smooth import smoothed
from benchmarks.system.progress import plural, say
from registry import UserError


def settings_of(ensemble: Ensemble, members: Mapping[str, Mapping[str, Any]], row_version: int) -> dict[str, Any]:
    """What a run must share with another to be the same row.

    Args:
        ensemble: the row.
        members: name -> the member's settings.
        row_version: of the code.
    """
    return {
        "config": ensemble.as_dict(),
        "members": {member.name: members[member.name] for member in ensemble.members},
        "code": {"row": row_version},
    }


def run_ensemble(
    ensemble: Ensemble,
    out: Path,
    *,
    settings: dict[str, Any],
    description: Mapping[str, Any],
    plans: Mapping[str, Mapping[str, KeyFrames]],
    tables: Mapping[str, pd.DataFrame],
    facts: Mapping[str, Mapping[str, np.ndarray]],
    device: str,
) -> schema.Result:
    """Fuse the scores of the members, whose rows are done, and write the row's folder.

    Args:
        ensemble: the row.
        out: of the run.
        settings: of `settings_of`.
        description: of the dataset.
        plans: member -> split -> its windows.
        tables: split -> frame table.
        facts: of `benchmarks.pixels.properties.frame_properties`.
        device: named in the record.

    Raises:
        UserError: the members have no seed in common, no validation frame in common, or a member's files are no longer
            what its run wrote.
    """
    started = time.perf_counter()
    names = [member.name for member in ensemble.members]
    folders = {member.name: result_folder(out, member) for member in ensemble.members}
    found = {name: schema.read_result(folders[name] / "result.json") for name in names}
    seeds = sorted(set.intersection(*(set(found[name]["seeds"]) for name in names)))
    if not seeds:
        raise UserError(
            f"{ensemble.name}: its members have no seed in common; give all the same, --set training.seed=N"
        )
    splits = [split for split in tables if split != "train"]
    own = {split: _common([plans[name][split] for name in names]) for split in splits}
    parts: dict[str, dict[str, list[np.ndarray]]] = {split: {} for split in splits}
    for name in names:
        scored = _read_scores(folders[name], plans[name], tables, seeds)
        for split in splits:
            keep = np.isin(plans[name][split].centres, own[split].centres)
            parts[split][name] = [scored[split, seed][keep] for seed in seeds]

    known = own["val"].labels >= 0
    labels = own["val"].labels[known]
    weights = [
        fit_weights(np.stack([parts["val"][name][number][known] for name in names]), labels)
        for number in range(len(seeds))
    ]
    fused = {
        split: np.stack(
            [combine(np.stack([parts[split][name][number] for name in names]), weights[number])
             for number in range(len(seeds))]
        )
        for split in splits
    }  # fmt: skip
    mean = np.mean(weights, axis=0)
    say(
        f"{ensemble.name}: weights fitted on {plural(int(known.sum()), 'validation frame')}: "
        + ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, mean, strict=True))
    )
    fused, fitted = smoothed(fused, own, tables, ensemble.smoothing)
    by_fingerprint = {str(found[name]["backbone"]["fingerprint"]): found[name] for name in names}
    seconds = {
        "features": sum(each["seconds"]["features"] for each in by_fingerprint.values()),
        "training": sum(found[name]["seconds"]["training"] for name in names),
        "scoring": sum(found[name]["seconds"]["scoring"] for name in names) + time.perf_counter() - started,
    }
    made = RowScores(
        seeds=seeds,
        parts=parts,
        fused=fused,
        fitted={"weights": {name: [float(each[n]) for each in weights] for n, name in enumerate(names)}, **fitted},
        backbone=_section("backbone", found),
        head=_section("head", found),
        training=[],
        counts={"damaged": max(found[name]["counts"]["damaged"] for name in names)},
        seconds=seconds,
    )
    strides = {
        split: math.lcm(*(getattr(member.windows.stride, split) for member in ensemble.members)) for split in splits
    }
    return record(
        result_folder(out, ensemble),
        ensemble,
        made,
        settings=settings,
        description=description,
        plans=own,
        tables=tables,
        strides=strides,
        facts=facts,
        device=device,
    )


def _common(plans: Sequence[KeyFrames]) -> KeyFrames:
    """The windows whose key frame is one of all members."""
    keep = np.ones(len(plans[0].centres), dtype=bool)
    for plan in plans[1:]:
        keep &= np.isin(plans[0].centres, plan.centres)
    if not keep.any():
        raise UserError("the members of an ensemble have no key frame in common; --set windows.stride.val=1 gives some")
    return KeyFrames(plans[0].rows[keep], plans[0].centres[keep], plans[0].labels[keep])


def _read_scores(
    folder: Path, plans: Mapping[str, KeyFrames], tables: Mapping[str, pd.DataFrame], seeds: Sequence[int]
) -> dict[tuple[str, int], np.ndarray]:
    """Scores (M,) by split and seed, of `predictions.csv`, in the order of the plan."""
    path = folder / "predictions.csv"
    remedy = f"delete {folder} and run again"
    table = read_table(path, remedy)
    table = table[table["split"] != "train"]
    scores = {}
    for (split, seed), part in table.groupby(["split", "seed"]):
        if split not in plans or seed not in seeds:
            continue
        expected = tables[split].iloc[plans[split].centres]
        if len(part) != len(expected) or any((part[key].to_numpy() != expected[key].to_numpy()).any() for key in KEY):
            raise UserError(f"{path} is not what its run wrote; {remedy}")
        scores[str(split), int(seed)] = part["score"].to_numpy()
    lacking = [seed for seed in seeds for split in plans if split != "train" and (split, seed) not in scores]
    if lacking:
        raise UserError(f"{path} lacks seed {lacking[0]}; {remedy}")
    return scores


def _section(which: str, found: Mapping[str, schema.Result]) -> dict[str, Any]:
    """The record's section `backbone` or `head`: what the members are made of. A backbone they share counts once."""
    sections = [result[which] for result in found.values()]  # type: ignore[literal-required]
    if which == "backbone":
        sections = list({str(section["fingerprint"]): section for section in sections}.values())
    return {"type": "ensemble", "of": sections, "parameters": sum(section["parameters"] for section in sections)}
