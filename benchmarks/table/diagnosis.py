"""A record's diagnosis as text tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from tabulate import tabulate

from benchmarks.evaluation.diagnosis import BINS, Groups, SplitDiagnosis
from benchmarks.rows.schema import Result

# Property that key frames are grouped by -> its name in the tables.
_MEASURED = {
    "face size": "face size, shorter side in pixels",
    "absent frames": "absent frames in the window",
    "sharpness": "sharpness, variance of the Laplacian",
    "head yaw": "head yaw, degrees to either side",
}


def diagnosis_text(result: Result) -> str:
    """Render a record's diagnosis as tables, one set per split. All figures but log losses are percentages."""
    diagnosis = result["diagnosis"]
    if diagnosis is None:
        return f"{result['name']}: the record has no diagnosis (older version); run the recipe again"
    scores = {"raw": "as they are"}
    if diagnosis["temperature"] is not None and diagnosis["platt"] is not None:
        slope, bias = np.mean(diagnosis["platt"], axis=0)
        scores["temperature"] = f"temperature {np.mean(diagnosis['temperature']):.2f}"
        scores["platt"] = f"Platt scaling, {slope:.2f} * logit {bias:+.2f}"
    # On the split that they were fitted on, figures are optimistic.
    fitted = [*[name for name in ("temperature", "Platt scaling") if len(scores) > 1], *_fitted_names(result)]
    parts = []
    for split, of_split in diagnosis["splits"].items():
        windows, positives = result["splits"][split]["windows"], result["splits"][split]["positives"]
        seeds = len(result["seeds"])
        parts.append(
            f"{result['name']} on {result['dataset']['name']} {split}: {windows:,} windows, "
            f"{_percent(positives / windows)} % looking, mean over {seeds} seed{'s'[: seeds > 1]}"
        )
        if split == "val" and fitted:
            parts.append(f"Fitted on this split, so optimistic here: {', '.join(fitted)}.")
        parts.append(_calibration_table(of_split, scores))
        parts.append(_reliability_table(of_split))
        parts += [_group_table(_MEASURED.get(name, name), groups) for name, groups in of_split["groups"].items()]
    return "\n\n".join(parts)


def _fitted_names(result: Result) -> list[str]:
    return [{"weights": "weights of the members"}.get(name, name) for name in result["fitted"]]


def _calibration_table(of_split: SplitDiagnosis, scores: Mapping[str, str]) -> str:
    body = [
        [scores[name], _percent(each["ece"]), _percent(each["ece_std"]), f"{each['log_loss']:.3f}"]
        for name, each in of_split["calibration"].items()
    ]
    return _table(["scores", "calibration error", "std", "log loss"], body)


def _reliability_table(of_split: SplitDiagnosis) -> str:
    head, body = ["score"], [[f"{100 * at / BINS:.1f} to {100 * (at + 1) / BINS:.1f}"] for at in range(BINS)]
    for name, each in of_split["reliability"].items():
        head += [f"{'as they are' if name == 'raw' else 'Platt scaling'}:\nscores", "mean", "looking"]
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
    return _table([title.replace(", ", ",\n"), "windows", "looking", "clips", "mAP", "95 % interval"], body)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    return tabulate(body, head, disable_numparse=True, colalign=("left", *["right"] * (len(head) - 1)))


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f}"
