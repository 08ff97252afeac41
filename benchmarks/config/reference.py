"""Reference rows: the floors and the ceiling of a table, scored from angles without training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from typing_extensions import Unpack  # in typing from Python 3.11

from benchmarks.config.files import REFERENCE_KEYS, load_dataset, load_reference
from benchmarks.config.reading import is_config_file
from benchmarks.config.recipe import Count, RowFields, Windows, plain
from benchmarks.config.resolve import Changes, check_priors, merge_values
from benchmarks.config.settings import parse_setting, set_value, spell
from benchmarks.config.values import build_section, row_fields, typed
from registry import UserError

Scorer = Literal["chance", "pose_prior", "truth"]
Bound = Literal["floor", "ceiling"]

# A trained row should lie above a floor, and can hardly lie above a ceiling.
BOUNDS: dict[Scorer, Bound] = {"chance": "floor", "pose_prior": "floor", "truth": "ceiling"}


@dataclass(frozen=True)
class Reference(RowFields):
    """A resolved reference row. Nothing of it is trained or drawn, so it has no seeds.

    Attributes:
        scorer: source of the scores, see `benchmarks.scoring.reference`.
        windows: as in a recipe. Scores are of the key frame alone; the diagnosis counts the absent frames of windows.
        priors: `type` and arguments for `PRIORS` if the scorer is `pose_prior`; else None.
        limit: at most this many windows per split, spread evenly; None for all.
        changes: from the command line, as spelled in the name.
    """

    scorer: Scorer
    windows: Windows
    priors: dict[str, Any] | None = None
    limit: int | None = None
    changes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Nested dictionaries and lists, ready for JSON."""
        return plain(dataclasses.asdict(self))

    def as_file(self) -> dict[str, Any]:
        """The values of a file that resolves to this row."""
        config = self.as_dict()
        return {key: config[key] for key in REFERENCE_KEYS}


def resolve_reference(name: str, dataset: str = "synthlam", **changes: Unpack[Changes]) -> Reference:
    """Merge a reference row's file < dataset < command line, and validate the result.

    Args:
        name: of the row, or a path ending in `.py`, `.yaml` or `.json`.
        dataset: name of a dataset, or a path ending in `.py`, `.yaml` or `.json`.
        changes: see `Changes`; only settings of `windows` and `priors`, and a limit.

    Raises:
        UserError: an unknown key or name, a wrong type, or a change of something that is trained.

    Example:
        >>> resolve_reference("pose_prior", limit=100).name
        'pose_prior+limit=100'
    """
    for option in ("backbone", "weights", "head", "checkpoint"):
        if changes.get(option) is not None:
            raise UserError(
                f"--{option} {changes.get(option)}: {name} has no {option}, because nothing of it is trained"
            )
    values, scale, limit = load_reference(name), load_dataset(dataset), changes.get("limit")
    scorer: Scorer = typed(values["scorer"], Scorer, "scorer")
    typed(values["windows"], dict, "windows")
    values["windows"] = merge_values(values["windows"], scale.get("windows", {}), f"dataset {dataset}: windows")
    if scorer == "pose_prior" and values["priors"] is None:
        values["priors"] = scale.get("priors")
    spelled = [f"dataset={Path(dataset).stem}"] if is_config_file(dataset) else []
    for setting in changes.get("settings", ()):
        key, value = parse_setting(setting)
        if key.partition(".")[0] not in ("windows", "priors"):
            raise UserError(f"--set {key}: {name} has windows and priors only, because nothing of it is trained")
        spelled += [f"{key}={spell(value)}"] if set_value(values, key, value) else []
    spelled += [f"limit={limit}"] if typed(limit, Count | None, "--limit") is not None else []
    check_priors(values["priors"], f"scorer {scorer}", scorer == "pose_prior")
    return Reference(
        **row_fields(name, spelled, values),
        dataset=scale["type"],
        scorer=scorer,
        windows=build_section(Windows, values["windows"], "windows"),
        priors=values["priors"],
        limit=limit,
        changes=tuple(spelled),
    )
