"""Ensembles: rows that fuse the scores of member rows, with weights fitted on validation."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Unpack  # in typing from Python 3.11

from benchmarks.config.files import ENSEMBLE_KEYS, kind_of, load_ensemble
from benchmarks.config.reading import is_config_file
from benchmarks.config.recipe import Recipe, RowFields, Smoothing, plain
from benchmarks.config.reference import Reference, resolve_reference
from benchmarks.config.resolve import Changes, resolve
from benchmarks.config.settings import is_tracker_key, parse_setting, set_value, spell
from benchmarks.config.values import row_fields, smoothing_of, typed
from registry import UserError

# Separates the changes of a member, `internlstm+head=gru+training.lr=1e-3`, but not the plus in `1e+3`.
_CHANGE = re.compile(r"\+(?=[A-Za-z_][\w.]*=)")


@dataclass(frozen=True)
class Ensemble(RowFields):
    """A resolved ensemble. Its scores are the weighted mean of its members' logits, with weights fitted per seed.

    Attributes:
        members: rows of their own, each with all its seeds.
        spellings: the members as spelled in `members` of a file.
        smoothing: of the fused scores, or None.
        limit: of the members' windows.
        changes: from the command line, as spelled in the name.
    """

    members: tuple[Recipe, ...]
    spellings: tuple[str, ...]
    smoothing: Smoothing | None
    limit: int | None = None
    changes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Nested dictionaries and lists, ready for JSON. Members appear by name; each has its own record."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["spellings"]
        smoothing = None if self.smoothing is None else dataclasses.asdict(self.smoothing)
        return plain({**fields, "members": [member.name for member in self.members], "smoothing": smoothing})

    def as_file(self) -> dict[str, Any]:
        """The values of a file that resolves to this ensemble."""
        config = {**self.as_dict(), "members": list(self.spellings)}
        return {key: config[key] for key in ENSEMBLE_KEYS}


RowConfig = Recipe | Ensemble | Reference
"""What a row of the table is made from."""


def resolve_row(name: str, dataset: str = "synthlam", **changes: Unpack[Changes]) -> RowConfig:
    """Resolve a recipe, a reference row, or an ensemble with all its members.

    Args:
        name: of a recipe, reference row or ensemble, or a path ending in `.py`, `.yaml` or `.json`.
        dataset: name of a dataset, or a path ending in `.py`, `.yaml` or `.json`.
        changes: see `Changes`. In an ensemble, `backbone` and `weights` apply to the members on features; the settings
            `members` and `smoothing` to the ensemble; every other setting to each member that has the key and does
            not set it itself.

    Raises:
        UserError: an unknown key or name, a wrong type, or a setting that no member has.
    """
    kind = kind_of(name)
    if kind != "ensemble":
        try:
            return (resolve if kind == "recipe" else resolve_reference)(name, dataset, **changes)
        except UserError as error:
            if not is_config_file(name) or name in str(error):
                raise
            raise UserError(f"recipe {name}: {error}") from error
    if changes.get("head") is not None:
        raise UserError(
            f"--head {changes['head']}: ensemble {name} has no head of its own; "
            f"--set members=RECIPE+head={changes['head']},RECIPE,... names members with another"
        )
    if changes.get("checkpoint") is not None:
        raise UserError(f"--checkpoint: ensemble {name} has weights of its own members only")
    values: dict[str, Any] = load_ensemble(name)
    limit = changes.get("limit")
    spelled = [f"dataset={Path(dataset).stem}"] if is_config_file(dataset) else []
    own, shared = _apply_settings(values, changes.get("settings", ()))
    spelled += own
    spellings = typed(values["members"], tuple[str, ...], "members")
    if len(spellings) < 2:
        raise UserError(f"members is {list(spellings)}; an ensemble has at least two")
    members = [{**_parse_member(spelling), "dataset": dataset, "limit": limit} for spelling in spellings]
    spelled += _replace_backbones(members, changes)
    for setting in shared:
        if _share_setting(members, setting):
            key, value = parse_setting(setting)
            spelled.append(f"{key}={spell(value)}")
    resolved = tuple(resolve(**member) for member in members)
    names = [member.name for member in resolved]
    for each in names:
        if names.count(each) > 1:
            raise UserError(f"members name {each} twice")
    spelled += [f"limit={limit}"] if limit is not None else []
    return Ensemble(
        **row_fields(name, spelled, values),
        dataset=resolved[0].dataset,
        members=resolved,
        spellings=tuple(map(_spell_member, members)),
        smoothing=smoothing_of(values["smoothing"]),
        limit=limit,
        changes=tuple(spelled),
    )


def _apply_settings(values: dict[str, Any], settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Apply the ensemble's own settings to its values; returns their spellings, and the settings for the members."""
    spelled, shared = [], []
    for setting in settings:
        key, value = parse_setting(setting)
        if key == "members":
            wanted = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
            if wanted != values["members"]:
                values["members"] = wanted
                spelled.append("members=" + ",".join(map(str, wanted)) if isinstance(wanted, Sequence) else str(wanted))
        elif key.partition(".")[0] == "smoothing":
            spelled += [f"{key}={spell(value)}"] if set_value(values, key, value) else []
        else:
            shared.append(setting)
    return spelled, shared


def _replace_backbones(members: Sequence[dict[str, Any]], changes: Changes) -> list[str]:
    """Give `--backbone` and `--weights` to the members on features; returns the spellings."""
    spelled = []
    backbone, weights = changes.get("backbone"), changes.get("weights")
    for option, value, name in (
        ("backbone", backbone, backbone),
        ("weights", weights, None if weights is None else Path(weights).name),
    ):
        if value is None:
            continue
        spelled.append(f"{option}={name}")
        for member in members:
            if not resolve(**member).on_pixels:
                member[option] = value
    return spelled


def _parse_member(spelling: str) -> dict[str, Any]:
    """Parse a member such as `internlstm+head=gru` into arguments of `resolve`.

    Raises:
        UserError: the member is an ensemble or a reference row.
    """
    recipe, *changes = _CHANGE.split(spelling)
    arguments: dict[str, Any] = {"recipe": recipe, "settings": []}
    for change in changes:
        option, _, value = change.partition("=")
        if option in ("backbone", "weights", "head"):
            arguments[option] = value
        else:
            arguments["settings"].append(change)
    kind = kind_of(recipe)
    if kind == "ensemble":
        raise UserError(f"member {recipe} is an ensemble; list its members instead")
    if kind == "reference":
        raise UserError(f"member {recipe} is a reference row; it has none of the seeds that members share")
    return arguments


def _spell_member(member: Mapping[str, Any]) -> str:
    """The inverse of `_parse_member`, without settings that only change where curves are logged."""
    options = [f"{option}={member[option]}" for option in ("backbone", "weights", "head") if member.get(option)]
    settings = [each for each in member["settings"] if not is_tracker_key(each.partition("=")[0])]
    return "+".join([member["recipe"], *options, *settings])


def _share_setting(members: Sequence[dict[str, Any]], setting: str) -> bool:
    """Give a setting to every member that has the key and does not set it itself.

    Returns:
        Whether the name of a member changed.

    Raises:
        UserError: no member has the key, or none accepts the value.
    """
    refused, changed, taken = None, False, False
    key = setting.partition("=")[0]
    for member in members:
        if any(own.partition("=")[0] == key for own in member["settings"]):
            taken = True
            continue
        before = resolve(**member)
        settings = [*member["settings"], setting]
        try:
            after = resolve(**{**member, "settings": settings})
        except UserError as error:
            refused = refused or error
            continue
        taken = True
        if after != before:
            member["settings"], changed = settings, changed or after.name != before.name
    if not taken and refused is not None:
        raise refused
    return changed


def recipes_of(rows: Sequence[RowConfig]) -> list[Recipe]:
    """The recipes among the rows and the ensembles' members, each once, in order."""
    found: dict[str, Recipe] = {}
    for row in rows:
        for recipe in row.members if isinstance(row, Ensemble) else (row,) if isinstance(row, Recipe) else ():
            found.setdefault(recipe.name, recipe)
    return list(found.values())
