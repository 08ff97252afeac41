"""From a recipe's name and the command line to one validated, frozen configuration.

A recipe says the method, a dataset's file says the scale, the command line has the last word. mmengine's Config
reads and merges the files; what it accepts in silence (a key nobody knows, a value of another type, a `type` that
changed while the old type's arguments stay) is an error here that names the key and its nearest neighbour.
"""

from __future__ import annotations

import ast
from typing import Any

from benchmarks.config.recipe import OPTIONAL_KEYS, SECTIONS, TRACKERS
from benchmarks.config.values import leaves
from registry import UserError, did_you_mean


def parse_setting(setting: str) -> tuple[str, Any]:
    """Split `key=value`; the value is a Python literal, true, false or none, and a plain string otherwise.

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
    """Set one dotted key; False when it already had that value."""
    *path, last = key.split(".")
    node: Any = values
    known = ["version", "backbone", "head", *settable()]
    if key == "priors" and isinstance(value, str) or key == "priors.type":
        path, last, value = [], "priors", {"type": value}
    elif path == ["priors"] and node["priors"] is None:
        raise UserError(f"--set {key}={value}: no provider of priors is named; put --set priors=NAME before it")
    for name in path:
        if not isinstance(node, dict) or name not in node:
            raise UserError(
                f"--set {key}: unknown key '{key}'{did_you_mean(key, known)}; see --show RECIPE for the keys"
            )
        if node[name] is None and name == "smoothing":
            node[name] = {"filter": "median", "window": 5}
        elif isinstance(node[name], dict):
            node[name] = dict(node[name])  # a file's own may serve another recipe
        node = node[name]
    if path[:1] in (["backbone"], ["head"], ["priors"]) and len(path) == 1:
        if last == "type":
            raise UserError(f"--set {key}={value}: the old type's arguments would stay; use --{path[0]} {value}")
    elif (key if path else last) not in settable():
        raise UserError(f"--set {key}: unknown key '{key}'{did_you_mean(key, known)}; see --show RECIPE for the keys")
    if last in node and node[last] == value and type(node[last]) is type(value):
        return False
    node[last] = value
    return True


def tracks(key: str) -> bool:
    """Whether no number depends on a dotted key, and so no row's name."""
    return key in [f"training.{name}" for name in TRACKERS]


def settable() -> list[str]:
    """Dotted keys that `--set` reaches, but for the arguments of backbone and head."""
    return [
        "smoothing",
        *OPTIONAL_KEYS,
        *(f"{section}.{key}" for section, cls in SECTIONS.items() for key in leaves(cls)),
    ]


def spell(value: Any) -> str:
    """A value as it stands in a row's name."""
    return str(value).replace(" ", "") if isinstance(value, list | tuple) else str(value)
