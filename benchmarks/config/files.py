"""Recipe, ensemble, reference and dataset files.

mmengine's Config reads and merges the files. It accepts unknown keys, and a `type` that changes while the old type's
arguments stay; both are errors here that name the key and its nearest neighbour.
"""

from __future__ import annotations

import ast
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mmengine.config import Config

from benchmarks.config.recipe import OPTIONAL_KEYS, REQUIRED_KEYS
from registry import DATASETS, UserError, did_you_mean, first_sentences

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
DATASET_FILES = Path(__file__).resolve().parent.parent / "datasets"
ENSEMBLE_KEYS = ("version", "method", "published", "members", "smoothing")
REFERENCE_KEYS = ("version", "method", "published", "scorer", "windows", "priors")
_DATASET_KEYS = ("type", "stand_in", "backbones", "heads", "windows", "training", "priors", "pixels")
# Of a dataset's section for recipes with a trainable backbone.
_PIXELS_KEYS = ("backbones", "windows", "training", "augment", "init")


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    return sorted(path.stem for path in RECIPES.glob("[!_]*.py"))


def dataset_names() -> list[str]:
    """Names of the datasets with a shipped file, sorted."""
    return sorted(path.stem for path in DATASET_FILES.glob("[!_]*.py"))


def recipe_summary(name: str) -> str:
    """First line of a recipe file's docstring."""
    return _docstring(RECIPES / f"{name}.py").partition("\n")[0]


def load_recipe(name: str) -> dict[str, Any]:
    """Read a recipe file, by name or as a path ending in `.py`.

    Raises:
        UserError: no such recipe, or unknown keys, missing keys or left-over arguments in its file.
    """
    return _load(name, "recipe", REQUIRED_KEYS, OPTIONAL_KEYS, "internlstm.py")


def load_ensemble(name: str) -> dict[str, Any]:
    """Read an ensemble file, by name or as a path ending in `.py`.

    Raises:
        UserError: no such file, or unknown keys.
    """
    return _load(name, "ensemble", ENSEMBLE_KEYS, {}, "ensemble.py")


def recipe_version(name: str) -> int | None:
    """Read the version of a recipe or ensemble by name, without running its file; None if there is none."""
    path = RECIPES / f"{name}.py"
    if name not in recipe_names():
        return None
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "version":
            return int(ast.literal_eval(node.value))
    return None


def load_reference(name: str) -> dict[str, Any]:
    """Read the file of a reference row, by name or as a path ending in `.py`.

    Raises:
        UserError: no such file, or unknown or missing keys.
    """
    return _load(name, "reference", REFERENCE_KEYS[:-1], {"priors": None}, "chance.py")


def kind_of(name: str) -> Literal["recipe", "ensemble", "reference"]:
    """What a recipe file, by name or as a path ending in `.py`, describes; its key `members` or `scorer` shows it.

    Raises:
        UserError: no such file, or it cannot be read.
    """
    values = _read(_find(name, RECIPES, recipe_names(), "recipe"))
    return "ensemble" if "members" in values else "reference" if "scorer" in values else "recipe"


def load_dataset(name: str) -> dict[str, Any]:
    """Read a dataset file (the scale), by name or as a path ending in `.py`.

    A dataset registered by a plug-in needs no file; the recipes' published scale then applies.

    Raises:
        UserError: no such dataset, or unknown or missing keys in its file.
    """
    if name in DATASETS and name not in dataset_names():
        return {"type": name}
    known = sorted({*dataset_names(), *DATASETS.names()})
    path = _find(name, DATASET_FILES, known, "dataset")
    values = _read(path)
    check_keys(values, _DATASET_KEYS, f"dataset {path.name}")
    for key in _DATASET_KEYS[1:]:
        if not isinstance(values.get(key, {}), dict):
            raise UserError(f"dataset {path.name}: {key} is {values[key]!r}; it must be a dict")
    pixels = values.get("pixels", {})
    check_keys(pixels, _PIXELS_KEYS, f"dataset {path.name}: pixels")
    inner = {f"pixels.{key}": pixels[key] for key in pixels}
    for name in ("stand_in", "backbones", "heads", "pixels.backbones"):
        parts = inner.get(name, values.get(name, {}))
        if isinstance(parts, dict):
            inner |= {f"{name}.{part}": arguments for part, arguments in parts.items()}
    for name, value in inner.items():
        if not isinstance(value, dict):
            raise UserError(f"dataset {path.name}: {name} is {value!r}; it must be a dict")
    if "type" not in values:
        raise UserError(f"dataset {path.name} lacks type, the name of its reader ({', '.join(DATASETS.names())})")
    DATASETS.get(values["type"])
    return values


def _load(name: str, kind: str, required: Sequence[str], optional: Mapping[str, Any], example: str) -> dict[str, Any]:
    path = _find(name, RECIPES, recipe_names(), "recipe")
    values, shown = {**optional, **_read(path)}, name if name.endswith(".py") else path.name
    check_keys(values, (*required, *optional), f"{kind} {shown}")
    missing = [key for key in required if key not in values]
    if missing:
        raise UserError(f"{kind} {shown} lacks {', '.join(missing)}; see {RECIPES / example}")
    return values


def _find(name: str, folder: Path, known: list[str], kind: str) -> Path:
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"{kind} file {name} does not exist")
        return path
    path = folder / f"{name}.py"
    if name not in known or not path.is_file():
        raise UserError(f"unknown {kind} '{name}'{did_you_mean(name, known)}; there are: {', '.join(known)}")
    return path


def _read(path: Path) -> dict[str, Any]:
    """Read a configuration file with its bases; arguments left over from another `type` are an error."""
    try:
        values = Config.fromfile(str(path)).to_dict()
        own = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        raise UserError(f"cannot read {path}: {type(error).__name__}: {first_sentences(error)}") from error
    for base in own.get("_base_", ()):
        inherited = _read(path.parent / base)
        for key, part in own.items():
            if isinstance(part, dict) and not part.get("_delete_"):
                _check_left_over(inherited.get(key), part, f"{path.name}: {key}")
    return values


def _check_left_over(old: Any, new: Mapping[str, Any], where: str) -> None:
    if not isinstance(old, Mapping) or new.get("type", old.get("type")) == old.get("type"):
        return
    left = [key for key in old if key != "type" and key not in new]
    if left:
        raise UserError(
            f"{where}.type changes from {old['type']} to {new['type']} while {', '.join(left)} would stay; "
            f"write {where.rpartition(' ')[2]} = dict(_delete_=True, type=...)"
        )


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def check_keys(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raise a UserError that names the first unknown key and its nearest neighbour."""
    for key in values:
        if key not in known:
            raise UserError(
                f"{where}: unknown key '{key}'{did_you_mean(str(key), list(known))}; there are: {', '.join(known)}"
            )
