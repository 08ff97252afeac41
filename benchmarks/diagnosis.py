"""Where a row is right, and whether its scores can be taken at their word: calibration, and mAP by groups of frames.

Nothing here changes a score. What repairs the calibration is fitted on validation and told beside the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmarks.fitted import fit_platt, fit_temperature, recalibrate
from benchmarks.metrics import bootstrap_interval, lam_map
from benchmarks.results import BINS, Calibration, Diagnosis, Groups, Reliability, Result, SplitDiagnosis
from benchmarks.scores import logits

if TYPE_CHECKING:
    from benchmarks.priors.base import Prior
    from benchmarks.rows import Plan


# Resamples of a group's interval. They leave a bound uncertain by about a twelfth of the interval's half, and take a
# second where the thousand of a row's own interval would take three.
REPEATS = 300

# Absent frames of a window: none, one or two, more.
_ABSENT_EDGES, _ABSENT_NAMES = (1.0, 3.0), ("none", "1 or 2", "3 or more")

_MEASURED = {  # what the groups are told by, for a reader
    "face size": "face size, shorter side in pixels",
    "absent frames": "absent frames in the window",
    "sharpness": "sharpness, variance of the Laplacian",
    "head yaw": "head yaw, degrees to either side",
}


def diagnose(
    scores: Mapping[str, np.ndarray],
    plans: Mapping[str, Plan],
    tables: Mapping[str, pd.DataFrame],
    facts: Mapping[str, Mapping[str, np.ndarray]],
) -> Diagnosis:
    """Diagnose the scores of a row on every labelled split but train.

    Args:
        scores: split -> (S, M) P(looking) of S seeds.
        plans: split -> its M key frames.
        tables: split -> frame table; face sizes come from its boxes.
        facts: split -> name -> (rows of the table,) float64, NaN where unknown; may be empty. See `known_facts`.

    Returns:
        The record's section.
    """
    known = {split: plan.labels >= 0 for split, plan in plans.items() if split != "train"}
    known = {split: rows for split, rows in known.items() if rows.any()}
    temperatures: list[float] | None = None
    lines: list[tuple[float, float]] | None = None
    if "val" in known:
        own, labels = scores["val"][:, known["val"]], plans["val"].labels[known["val"]]
        if 0 < labels.sum() < len(labels):
            temperatures = [fit_temperature(of_seed, labels) for of_seed in own]
            lines = [fit_platt(of_seed, labels) for of_seed in own]
    splits: dict[str, SplitDiagnosis] = {}
    for split, rows in known.items():
        own, labels, centres = scores[split][:, rows], plans[split].labels[rows], plans[split].centres[rows]
        versions = {"raw": own}
        if temperatures is not None and lines is not None:
            versions["temperature"] = np.stack([recalibrate(s, 1 / t) for s, t in zip(own, temperatures, strict=True)])
            versions["platt"] = np.stack([recalibrate(s, *line) for s, line in zip(own, lines, strict=True)])
        frames = tables[split].iloc[centres]
        values = {"face size": face_size(frames)}
        values |= {name: of_rows[centres] for name, of_rows in facts.get(split, {}).items()}
        clips = frames["clip"].to_numpy()
        groups = {
            name: _groups(own, labels, clips, of_key, *_quarters(of_key))
            for name, of_key in values.items()
            if np.isfinite(of_key).any()
        }
        absent = (plans[split].rows[rows] < 0).sum(axis=1)
        groups["absent frames"] = _groups(own, labels, clips, absent, _ABSENT_EDGES, _ABSENT_NAMES)
        splits[split] = {
            "calibration": {name: calibration(version, labels) for name, version in versions.items()},
            "reliability": {
                name: reliability(version, labels) for name, version in versions.items() if name != "temperature"
            },
            "groups": groups,
        }
    return {
        "temperature": None if temperatures is None else [_rounded(temperature) for temperature in temperatures],
        "platt": None if lines is None else [[_rounded(slope), _rounded(bias)] for slope, bias in lines],
        "splits": splits,
    }


def known_facts(
    root: Path,
    tables: Mapping[str, pd.DataFrame],
    plans: Sequence[Mapping[str, Plan]],
    cache: Path,
    provider: Prior | None,
) -> dict[str, dict[str, np.ndarray]]:
    """Find what `diagnose` cannot read off boxes and windows, for the labelled key frames of every split but train.

    Args:
        root: the data set's, which the crops' paths are relative to.
        tables: split -> frame table.
        plans: of each row that is to be diagnosed, split -> its key frames.
        cache: file of `benchmarks.sharpness.sharpness`; what it lacks costs about two milliseconds of a core a crop.
        provider: of head poses, where there is one.

    Returns:
        split -> `sharpness` and, with a provider, `head yaw` (absolute, degrees) -> (rows of the table,) float64, NaN
        where unknown and in all rows that are no such key frame.

    Raises:
        UserError: a crop does not exist, or the provider cannot answer.
    """
    from benchmarks.sharpness import sharpness

    found: dict[str, dict[str, np.ndarray]] = {}
    for split, table in tables.items():
        keys = np.unique(np.concatenate([of_row[split].centres for of_row in plans if split in of_row]))
        keys = keys[table["label"].to_numpy()[keys] >= 0]
        if split == "train" or not len(keys):
            continue
        frames = table.iloc[keys]
        known = {"sharpness": sharpness(root, frames["image"].tolist(), cache)}
        if provider is not None:
            known["head yaw"] = np.abs(provider.read(frames).head_pose[:, 0].astype(np.float64))
        found[split] = {}
        for name, values in known.items():
            found[split][name] = np.full(len(table), np.nan)
            found[split][name][keys] = values
    return found


def face_size(frames: pd.DataFrame) -> np.ndarray:
    """Shorter side of the box of each row in pixels: (N,) float64, NaN where there is no box."""
    width, height = (frames[f"{axis}2"].to_numpy() - frames[f"{axis}1"].to_numpy() for axis in "xy")
    return np.minimum(width, height)


def calibration(scores: np.ndarray, labels: np.ndarray) -> Calibration:
    """Measure the calibration of scores (S, N) of S seeds against labels (N,), 0 or 1."""
    errors = [calibration_error(of_seed, labels) for of_seed in scores]
    margin = np.where(labels == 1, 1.0, -1.0) * logits(scores)
    return {
        "ece": _rounded(float(np.mean(errors))),
        "ece_std": _rounded(float(np.std(errors, ddof=1))) if len(errors) > 1 else 0.0,
        "log_loss": _rounded(float(np.logaddexp(0, -margin).mean())),
    }


def calibration_error(scores: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error of P(looking): the sum over bins b of n_b / N * |share looking - mean score|.

    Naeini et al. 2015, for two classes, with the bins of Guo et al. 2017. The latter's own formula compares the score
    of the class that is called with accuracy. Of two classes that puts frames scored p and 1 - p into one bin, where
    scores that are all too high cancel out, and such are those of a training that weights both classes alike.

    Calibrated scores have an error above 0, too, the more so the fewer frames there are.

    Args:
        scores: (N,) P(looking).
        labels: (N,) 0 or 1.

    Example:
        >>> round(calibration_error(np.array([0.9, 0.9, 0.2, 0.2]), np.array([1, 0, 0, 0])), 4)
        0.3
    """
    _, total, looking = _bins(scores, labels)
    return float(np.abs(looking - total).sum() / len(scores))


def reliability(scores: np.ndarray, labels: np.ndarray) -> Reliability:
    """Count out the reliability diagram of scores (S, N) of S seeds, all together, against labels (N,), 0 or 1."""
    count, total, looking = _bins(scores.ravel(), np.tile(labels, len(scores)))
    filled = [n or None for n in count.tolist()]
    return {
        "count": count.tolist(),
        "score": [n and _rounded(part / n) for part, n in zip(total.tolist(), filled, strict=True)],
        "looking": [n and _rounded(part / n) for part, n in zip(looking.tolist(), filled, strict=True)],
    }


def _bins(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort scores (N,) into the bins, one on an edge into the lower: count, sum of scores and looks, each (BINS,)."""
    place = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], scores)
    looking = np.bincount(place[labels == 1], minlength=BINS)
    return np.bincount(place, minlength=BINS), np.bincount(place, scores, BINS), looking


def as_text(result: Result) -> str:
    """A record's diagnosis as tables for a terminal, one set a split; figures but log losses in per cent."""
    diagnosis = result["diagnosis"]
    if diagnosis is None:
        return f"{result['name']}: its record is from before there was a diagnosis; run the recipe again"
    scores = {"raw": "as they are"}
    if diagnosis["temperature"] is not None and diagnosis["platt"] is not None:
        slope, bias = np.mean(diagnosis["platt"], axis=0)
        scores["temperature"] = f"temperature {np.mean(diagnosis['temperature']):.2f}"
        scores["platt"] = f"Platt scaling, {slope:.2f} * logit {bias:+.2f}"
    parts = []
    for split, of_split in diagnosis["splits"].items():
        windows, positives = result["splits"][split]["windows"], result["splits"][split]["positives"]
        seeds = len(result["seeds"])
        parts.append(
            f"{result['name']} on {result['dataset']['name']} {split}: {windows:,} windows, "
            f"{_percent(positives / windows)} % looking, mean over {seeds} seed{'s'[: seeds > 1]}"
        )
        parts.append(_calibration_table(of_split, scores))
        parts.append(_reliability_table(of_split))
        parts += [_group_table(_MEASURED.get(name, name), groups) for name, groups in of_split["groups"].items()]
    return "\n\n".join(parts)


def _calibration_table(of_split: SplitDiagnosis, scores: Mapping[str, str]) -> str:
    body = [
        [scores[name], _percent(each["ece"]), _percent(each["ece_std"]), f"{each['log_loss']:.3f}"]
        for name, each in of_split["calibration"].items()
    ]
    return _table(["scores", "calibration error", "std", "log loss"], body)


def _reliability_table(of_split: SplitDiagnosis) -> str:
    head, body = ["score"], [[f"{100 * at / BINS:.1f} to {100 * (at + 1) / BINS:.1f}"] for at in range(BINS)]
    for name, each in of_split["reliability"].items():
        head += [f"{'as they are' if name == 'raw' else 'Platt scaling'}: scores", "mean", "looking"]
        for line, count, score, looking in zip(body, each["count"], each["score"], each["looking"], strict=True):
            line += [f"{count:,}", _percent(score), _percent(looking)]
    return _table(head, body)


def _group_table(title: str, groups: Groups) -> str:
    columns = (groups[key] for key in ("groups", "windows", "positives", "clips", "mAP", "low", "high"))
    body = [
        [
            name,
            f"{windows:,}",
            _percent(positives / windows if windows else None),
            str(clips),
            _percent(reached),
            f"{_percent(low)} to {_percent(high)}" if low is not None else "",
        ]
        for name, windows, positives, clips, reached, low, high in zip(*columns, strict=True)
    ]
    return _table([title, "windows", "looking", "clips", "mAP", "95 % interval"], body)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    from tabulate import tabulate

    return tabulate(body, head, disable_numparse=True, colalign=("left", *["right"] * (len(head) - 1)))


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f}"


def _quarters(values: np.ndarray) -> tuple[list[float], list[str]]:
    """Edges and names of the groups between the quartiles of what is known of (N,) values.

    Edges are rounded to three digits before anything is grouped by them: the record holds what was done.
    """
    known = values[np.isfinite(values)]
    quartiles = {float(f"{edge:.3g}") for edge in np.quantile(known, (0.25, 0.5, 0.75), method="higher")}
    edges = sorted(edge for edge in quartiles if known.min() < edge <= known.max())  # others part nothing
    if not edges:
        return [], ["all"]
    written = [f"{edge:g}" for edge in edges]
    between = [f"{low} to {high}" for low, high in zip(written, written[1:], strict=False)]
    return edges, [f"below {written[0]}", *between, f"{written[-1]} or more"]


def _groups(
    scores: np.ndarray,
    labels: np.ndarray,
    clips: np.ndarray,
    values: np.ndarray,
    edges: Sequence[float],
    names: Sequence[str],
) -> Groups:
    """Score each group of key frames.

    Args:
        scores: (S, N) of S seeds.
        labels: (N,) 0 or 1.
        clips: (N,) the clip of each.
        values: (N,) what they are grouped by, NaN where unknown.
        edges: G - 1, ascending; a value on an edge belongs above it.
        names: G.
    """
    group = np.where(np.isfinite(values), np.searchsorted(edges, values, side="right"), len(names))
    if (group == len(names)).any():
        names = [*names, "unknown"]
    members = [group == number for number in range(len(names))]
    reached = [_map(scores[:, own], labels[own], clips[own]) for own in members]
    return {
        "edges": list(edges),
        "groups": list(names),
        "windows": [int(own.sum()) for own in members],
        "positives": [int(labels[own].sum()) for own in members],
        "clips": [len(np.unique(clips[own])) for own in members],
        "mAP": [mean for mean, _, _ in reached],
        "low": [low for _, low, _ in reached],
        "high": [high for _, _, high in reached],
    }


def _map(scores: np.ndarray, labels: np.ndarray, clips: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """Mean mAP of the scores (S, N) and its interval, None where undefined."""
    values = [lam_map(of_seed, labels).map for of_seed in scores]
    defined = [value for value in values if value is not None]
    if not defined:
        return None, None, None
    bounds = bootstrap_interval(scores, labels, clips, repeats=REPEATS).bounds["mAP"]
    low, high = (None, None) if bounds is None else map(_rounded, bounds)
    return _rounded(float(np.mean(defined))), low, high


def _rounded(fraction: float) -> float:
    """To a hundredth of a per cent: the record is read by people, too."""
    return round(fraction, 4)
