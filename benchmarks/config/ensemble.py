"""Ensembles: rows that are made of the scores of other rows. Their members' weights are fitted on validation."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.config.files import ENSEMBLE_KEYS, is_ensemble, load_ensemble
from benchmarks.config.recipe import Recipe, Smoothing, plain
from benchmarks.config.resolve import resolve
from benchmarks.config.settings import parse_setting, set_value, spell, tracks
from benchmarks.config.values import smoothing_of, typed
from registry import UserError

# A member's changes in its spelling: `internlstm+head=gru+training.lr=1e-3`, but not the plus in `1e+3`.
_CHANGE = re.compile(r"\+(?=[A-Za-z_][\w.]*=)")


@dataclass(frozen=True)
class Ensemble:
    """A row whose scores are the weighted mean of its members' logits, one weight a member and seed.

    Attributes:
        name: the recipe's file stem, plus what the command line changed.
        recipe: the file stem alone.
        version: raised by the authors when its number would move.
        method: the name the row has in print.
        published: method in `published.csv` that the row answers to, or None.
        dataset: the dataset's name.
        members: rows of their own, each with all its seeds.
        spellings: the members as `members` in a file names them.
        smoothing: of the fused scores.
        limit: of the members' windows.
    """

    name: str
    recipe: str
    version: int
    method: str
    published: str | None
    dataset: str
    members: tuple[Recipe, ...]
    spellings: tuple[str, ...]
    smoothing: Smoothing | None
    limit: int | None = None
    changes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries and lists, ready for JSON; the members by name, each having a record of its own."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["spellings"]
        smoothing = None if self.smoothing is None else dataclasses.asdict(self.smoothing)
        return plain({**fields, "members": [member.name for member in self.members], "smoothing": smoothing})

    def as_file(self) -> dict[str, Any]:
        """What an ensemble's file holds, of the values here."""
        config = {**self.as_dict(), "members": list(self.spellings)}
        return {key: config[key] for key in ENSEMBLE_KEYS}


def resolve_row(
    name: str,
    dataset: str = "synthlam",
    *,
    backbone: str | None = None,
    weights: str | None = None,
    head: str | None = None,
    settings: Sequence[str] = (),
    limit: int | None = None,
) -> Recipe | Ensemble:
    """Resolve a recipe, or an ensemble with all its members.

    Args:
        name: of a recipe or ensemble, or a path that ends in `.py`.
        dataset: name of a dataset, or a path that ends in `.py`.
        backbone: of an ensemble, replaces that of its members on features; so does `weights`.
        weights: path given to the backbone's argument of that name.
        head: replaces the recipe's; an ensemble has none.
        settings: `key=value` pairs. Of an ensemble, `members` and `smoothing` are its own; any other reaches every
            member that has it and does not name it itself.
        limit: at most so many windows a split.

    Raises:
        UserError: anything unknown, of the wrong type, or that no member has.
    """
    if not is_ensemble(name):
        try:
            return resolve(name, dataset, backbone=backbone, weights=weights, head=head, settings=settings, limit=limit)
        except UserError as error:
            if not name.endswith(".py") or name in str(error):
                raise
            raise UserError(f"recipe {name}: {error}") from error
    if head is not None:
        raise UserError(
            f"--head {head}: ensemble {name} has no head of its own; --set members=RECIPE+head={head},RECIPE,... "
            "names members with another"
        )
    values: dict[str, Any] = load_ensemble(name)
    changes = [f"dataset={Path(dataset).stem}"] if dataset.endswith(".py") else []
    shared = []
    for setting in settings:
        key, value = parse_setting(setting)
        if key == "members":
            wanted = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
            if wanted != values["members"]:
                values["members"] = wanted
                changes.append("members=" + ",".join(map(str, wanted)) if isinstance(wanted, Sequence) else str(wanted))
        elif key.partition(".")[0] == "smoothing":
            changes += [f"{key}={spell(value)}"] if set_value(values, key, value) else []
        else:
            shared.append(setting)
    spellings = typed(values["members"], tuple[str, ...], "members")
    if len(spellings) < 2:
        raise UserError(f"members is {list(spellings)}; an ensemble has at least two")
    asked = [{**_asked(spelling), "dataset": dataset, "limit": limit} for spelling in spellings]
    for option, given in (("backbone", backbone), ("weights", weights)):
        if given is not None:
            changes.append(f"{option}={given if option == 'backbone' else Path(given).name}")
            for arguments in asked:
                if not resolve(**arguments).on_pixels:
                    arguments[option] = given
    for setting in shared:
        if _give(asked, setting):
            key, value = parse_setting(setting)
            changes.append(f"{key}={spell(value)}")
    members = tuple(resolve(**arguments) for arguments in asked)
    names = [member.name for member in members]
    for each in names:
        if names.count(each) > 1:
            raise UserError(f"members name {each} twice")
    changes += [f"limit={limit}"] if limit is not None else []
    return Ensemble(
        name="+".join([Path(name).stem, *changes]),
        recipe=Path(name).stem,
        version=typed(values["version"], int, "version"),
        method=typed(values["method"], str, "method"),
        published=typed(values["published"], str | None, "published"),
        dataset=members[0].dataset,
        members=members,
        spellings=tuple(map(_spelling, asked)),
        smoothing=smoothing_of(values["smoothing"]),
        limit=limit,
        changes=tuple(changes),
    )


def _asked(spelling: str) -> dict[str, Any]:
    """The arguments of `resolve` that a member's spelling stands for."""
    recipe, *changes = _CHANGE.split(spelling)
    arguments: dict[str, Any] = {"recipe": recipe, "settings": []}
    for change in changes:
        option, _, value = change.partition("=")
        if option in ("backbone", "weights", "head"):
            arguments[option] = value
        else:
            arguments["settings"].append(change)
    if is_ensemble(recipe):
        raise UserError(f"member {recipe} is an ensemble itself; name its members in its place")
    return arguments


def _spelling(asked: Mapping[str, Any]) -> str:
    options = [f"{option}={asked[option]}" for option in ("backbone", "weights", "head") if asked.get(option)]
    settings = [each for each in asked["settings"] if not tracks(each.partition("=")[0])]
    return "+".join([asked["recipe"], *options, *settings])


def _give(asked: Sequence[dict[str, Any]], setting: str) -> bool:
    """Give a setting to every member that has it and does not name it itself; whether that changed a name.

    Raises:
        UserError: no member has it, or none takes the value.
    """
    refused, changed, taken = None, False, False
    key = setting.partition("=")[0]
    for arguments in asked:
        if any(own.partition("=")[0] == key for own in arguments["settings"]):
            taken = True
            continue
        before = resolve(**arguments)
        settings = [*arguments["settings"], setting]
        try:
            after = resolve(**{**arguments, "settings": settings})
        except UserError as error:
            refused = refused or error
            continue
        taken = True
        if after != before:
            arguments["settings"], changed = settings, changed or after.name != before.name
    if not taken and refused is not None:
        raise refused
    return changed


def recipes_of(rows: Sequence[Recipe | Ensemble]) -> list[Recipe]:
    """The recipes among the rows and the members of the ensembles, each once."""
    found: dict[str, Recipe] = {}
    for row in rows:
        for recipe in row.members if isinstance(row, Ensemble) else (row,):
            found.setdefault(recipe.name, recipe)
    return list(found.values())
