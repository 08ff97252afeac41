"""Configuration files in Python, YAML or JSON, merged into the files that they build on.

A Python file is a program. YAML and JSON are data: reading them builds no object, and they build on other data or on
lamzoo's own files only, so that no other program runs. mmengine's Config merges a file into its bases.
"""

from __future__ import annotations

import copy
import re
import runpy
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config

from backbones.opening import read_small, read_small_json
from registry import UserError, did_you_mean, first_sentences

BESIDE = Path(__file__).resolve().parent.parent
RECIPES = BESIDE / "recipes"
DATASET_FILES = BESIDE / "datasets"
OWN = "lamzoo::"  # before the name of one of lamzoo's own files, in `_base_`
DATA = (".yaml", ".yml", ".json")
ENDINGS = (".py", *DATA)
_DEEPEST = 20  # bases of bases


def is_config_file(name: str) -> bool:
    """Whether a recipe or dataset is given as a file and not by name."""
    return name.endswith(ENDINGS)


def read_values(path: Path, depth: int = 0) -> dict[str, Any]:
    """Read a configuration file, merged into the files that its key `_base_` lists.

    Args:
        path: ends in one of `ENDINGS`.
        depth: how many files build on this one.

    Raises:
        UserError: the file or a base cannot be read, or arguments of another `type` would stay.
    """
    own = _own_values(path)
    inherited: dict[str, Any] = {}
    for base in _bases(own.pop("_base_", ()), path, depth):
        values = read_values(base, depth + 1)
        if twice := sorted(values.keys() & inherited.keys()):
            raise UserError(f"cannot read {path}: two of its bases have the key '{twice[0]}'; build on one of them")
        inherited |= values
    for key, part in own.items():
        if isinstance(part, dict) and not part.get("_delete_"):
            _check_left_over(inherited.get(key), part, f"{path.name}: {key}")
    try:
        merged = Config(copy.deepcopy(inherited))
        merged.merge_from_dict(copy.deepcopy(own))
        values = merged.to_dict()
    except Exception as error:  # mmengine's, of a part that is a dict in one file and none in the other
        raise UserError(f"cannot read {path}: {type(error).__name__}: {first_sentences(error)}") from error
    return values


def _own_values(path: Path) -> dict[str, Any]:
    """The values that stand in a file itself."""
    try:
        if path.suffix == ".py":
            found = runpy.run_path(str(path))
            skipped = (types.ModuleType, types.FunctionType)
            values = {key: value for key, value in found.items() if not isinstance(value, skipped)}
            return {key: value for key, value in values.items() if not key.startswith("__")}
        values = read_small_json(path) if path.suffix == ".json" else yaml.load(read_small(path), _Data)  # noqa: S506
    except (Exception, SystemExit) as error:
        raise UserError(f"cannot read {path}: {type(error).__name__}: {first_sentences(error)}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"cannot read {path}: it must hold keys and values, such as `method: My model`")
    return values


def _bases(listed: Any, path: Path, depth: int) -> list[Path]:
    """Find the files that a file builds on."""
    names = [listed] if isinstance(listed, str) else listed
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f'cannot read {path}: _base_ is {listed!r:.60}; it must be a list such as ["lamzoo::internlstm"]'
        )
    if depth >= _DEEPEST and names:
        raise UserError(f"cannot read {path}: more than {_DEEPEST} files build on each other; one builds on itself")
    found = []
    for name in names:
        if name.startswith(OWN):
            found.append(_own_file(name, path))
            continue
        base = path.parent / name
        if path.suffix in DATA and base.suffix not in DATA:
            raise UserError(
                f"cannot read {path}: its base {name} may be a program; a file of data builds on other data "
                f"({', '.join(DATA)}), or on lamzoo's own files, such as {OWN}internlstm"
            )
        if base.suffix not in ENDINGS or not base.is_file():
            raise UserError(f"cannot read {path}: its base {base} does not exist; lamzoo's own are spelled {OWN}NAME")
        found.append(base)
    return found


def _own_file(name: str, path: Path) -> Path:
    """Find `lamzoo::internlstm`, with or without `.py`, among lamzoo's own recipes and datasets."""
    known = {file.stem: file for folder in (DATASET_FILES, RECIPES) for file in sorted(folder.glob("[!_]*.py"))}
    stem = name.removeprefix(OWN).removesuffix(".py")
    if stem not in known:
        raise UserError(f"cannot read {path}: there is no {name}{did_you_mean(stem, list(known))}")
    return known[stem]


def _check_left_over(old: Any, new: Mapping[str, Any], where: str) -> None:
    if not isinstance(old, Mapping) or new.get("type", old.get("type")) == old.get("type"):
        return
    left = [key for key in old if key != "type" and key not in new]
    if left:
        raise UserError(
            f"{where}.type changes from {old['type']} to {new['type']} while {', '.join(left)} would stay; "
            f"write {where.rpartition(' ')[2]} = dict(_delete_=True, type=...)"
        )


class _Data(yaml.SafeLoader):
    """PyYAML's safe loader, with numbers such as 5e-4, and without what hides values or multiplies them."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # nine lines of them can stand for a billion values
            raise yaml.YAMLError(f"{self.peek_event().start_mark}: aliases (*name) are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"the key {twice[0]} stands twice in one place")
        return super().construct_mapping(node, deep)


_Data.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
