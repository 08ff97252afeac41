"""Recipe, ensemble, reference and dataset files: found by name or path, their keys checked.

An unknown key is an error that names it and its nearest neighbour.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks.config.reading import DATASET_FILES, RECIPES, is_config_file, read_values
from benchmarks.config.recipe import OPTIONAL_KEYS, REQUIRED_KEYS
from registry import DATASETS, UserError, did_you_mean

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
    """Read a recipe file, by name or as a path ending in `.py`, `.yaml` or `.json`.

    Raises:
        UserError: no such recipe, or unknown keys, missing keys or left-over arguments in its file.
    """
    return _load(name, "recipe", REQUIRED_KEYS, OPTIONAL_KEYS, "internlstm.py")


def load_ensemble(name: str) -> dict[str, Any]:
    """Read an ensemble file, by name or as a path ending in `.py`, `.yaml` or `.json`.

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
    """Read the file of a reference row, by name or as a path ending in `.py`, `.yaml` or `.json`.

    Raises:
        UserError: no such file, or unknown or missing keys.
    """
    return _load(name, "reference", REFERENCE_KEYS[:-1], {"priors": None}, "chance.py")


def kind_of(name: str) -> Literal["recipe", "ensemble", "reference"]:
    """What a recipe file, by name or path, describes; its key `members` or `scorer` shows it.

    Raises:
        UserError: no such file, or it cannot be read.
    """
    values = read_values(_find(name, RECIPES, recipe_names(), "recipe"))
    return "ensemble" if "members" in values else "reference" if "scorer" in values else "recipe"


def load_dataset(name: str) -> dict[str, Any]:
    """Read a dataset file (the scale), by name or as a path ending in `.py`, `.yaml` or `.json`.

    A dataset registered by a plug-in needs no file; the recipes' published scale then applies.

    Raises:
        UserError: no such dataset, or unknown or missing keys in its file.
    """
    if name in DATASETS and name not in dataset_names():
        return {"type": name}
    known = sorted({*dataset_names(), *DATASETS.names()})
    path = _find(name, DATASET_FILES, known, "dataset")
    values = read_values(path)
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
    values, shown = {**optional, **read_values(path)}, name if is_config_file(name) else path.name
    check_keys(values, (*required, *optional), f"{kind} {shown}")
    missing = [key for key in required if key not in values]
    if missing:
        raise UserError(f"{kind} {shown} lacks {', '.join(missing)}; see {RECIPES / example}")
    return values


def _find(name: str, folder: Path, known: list[str], kind: str) -> Path:
    if is_config_file(name):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"{kind} file {name} does not exist")
        return path
    path = folder / f"{name}.py"
    if name not in known or not path.is_file():
        raise UserError(f"unknown {kind} '{name}'{did_you_mean(name, known)}; there are: {', '.join(known)}")
    return path


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def check_keys(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raise a UserError that names the first unknown key and its nearest neighbour."""
    for key in values:
        if key not in known:
            raise UserError(
                f"{where}: unknown key '{key}'{did_you_mean(str(key), list(known))}; there are: {', '.join(known)}"
            )
