"""`--set key=value`: parsed, and applied to the values of a recipe."""

from __future__ import annotations

import ast
from typing import Any

from benchmarks.config.recipe import OPTIONAL_KEYS, SECTIONS, TRACKERS
from benchmarks.config.values import leaves
from registry import UserError, did_you_mean

# Options of `run` that are easily taken for keys.
_OPTIONS = ("recipe", "dataset", "root", "weights", "seeds", "limit", "device", "out")


def parse_setting(setting: str) -> tuple[str, Any]:
    """Split `key=value`. The value is a Python literal, true, false or none; anything else is a string.

    Raises:
        UserError: there is no key or no equals sign.

    Example:
        >>> parse_setting("training.lr=1e-3"), parse_setting("backbone.pretrained=false")
        (('training.lr', 0.001), ('backbone.pretrained', False))
    """
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise UserError(f"--set {setting}: expected key=value, such as training.lr=1e-3")
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return key, words[text.lower()]
    try:
        return key, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return key, text


def set_value(values: dict[str, Any], key: str, value: Any) -> bool:
    """Set one dotted key.

    Returns:
        False if the key had that value already.

    Raises:
        UserError: an unknown key, or a `type` whose old arguments would stay.
    """
    *path, last = key.split(".")
    node: Any = values
    if key in ("backbone", "head"):
        raise UserError(f"--set {key}={value}: use --{key} {value}, which replaces it with its arguments")
    unknown = f"--set {key}: unknown key '{key}'{_nearest_key(key)}; see --show RECIPE for the keys"
    if key == "priors" and isinstance(value, str) or key == "priors.type":
        path, last, value = [], "priors", {"type": value}
    elif path == ["priors"] and node["priors"] is None:
        raise UserError(f"--set {key}={value}: no prior is named; put --set priors=NAME before it")
    for name in path:
        if not isinstance(node, dict) or name not in node:
            raise UserError(unknown)
        if node[name] is None and name == "smoothing":
            node[name] = {"filter": "median", "window": 5}
        elif isinstance(node[name], dict):
            node[name] = dict(node[name])  # copied, because the file's own dictionary may serve another recipe
        node = node[name]
    if path[:1] in (["backbone"], ["head"], ["priors"]) and len(path) == 1:
        if last == "type":
            raise UserError(f"--set {key}={value}: the old type's arguments would stay; use --{path[0]} {value}")
    elif (key if path else last) not in settable():
        raise UserError(unknown)
    if last in node and node[last] == value and type(node[last]) is type(value):
        return False
    node[last] = value
    return True


def _nearest_key(key: str) -> str:
    """Suggest the option of `run` with this name, or the nearest key: `lr` is part of `training.lr`."""
    if key in _OPTIONS:
        return f"; use --{key}"
    keys = settable()
    ends = [each for each in keys if each.rpartition(".")[2] == key]
    return f"; did you mean '{ends[0]}'?" if len(ends) == 1 else did_you_mean(key, keys)


def is_tracker_key(key: str) -> bool:
    """Whether a dotted key only changes where curves are logged; such keys are not part of a row's name."""
    return key in [f"training.{name}" for name in TRACKERS]


def settable() -> list[str]:
    """Dotted keys that `--set` accepts, besides the arguments of backbone, head and prior."""
    return [
        "smoothing",
        *(key for key in OPTIONAL_KEYS if key not in SECTIONS),
        *(f"{section}.{key}" for section, cls in SECTIONS.items() for key in leaves(cls)),
    ]


def spell(value: Any) -> str:
    """Spell a value for a row's name: without blanks."""
    return str(value).replace(" ", "") if isinstance(value, list | tuple) else str(value)
