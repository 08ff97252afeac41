"""Model cards: one JSON file a model, saying what it is made of, where its weights are from, and what was measured."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import UserError, did_you_mean, printable
from zoo.files.untrusted import read_json

FOLDER = Path(__file__).resolve().parent / "cards"
MOST = 1e15  # that a figure can be


@dataclass(frozen=True)
class Weights:
    """One weights file.

    Attributes:
        file: path below ``zoo/weights``, or the file's name where it comes from elsewhere.
        origin: where it comes from: ``shipped``, a package, an address.
        sha256: of its bytes, 64 hexadecimal digits.
        licence: SPDX name.
    """

    file: str
    origin: str
    sha256: str
    licence: str


@dataclass(frozen=True)
class Figure:
    """One number that was measured or cited.

    Attributes:
        metric: what was measured, with its unit.
        value: the number.
        split: what it was measured on.
        source: the record or command it is from, or the publication.
    """

    metric: str
    value: float
    split: str
    source: str


@dataclass(frozen=True)
class Card:
    """What is to be known about one model; its name is the file's.

    Attributes:
        name: stem of the card's file.
        title: one line.
        description: what it is, and what it is not.
        backbone: ``dict(type=NAME, ...)`` that builds it.
        head: the same for the head, None where the card is of a backbone alone.
        training: data, task and why that task.
        limits: known weaknesses, one each.
        weights: files.
        figures: numbers.
    """

    name: str
    title: str
    description: str
    backbone: Mapping[str, Any]
    head: Mapping[str, Any] | None
    training: str
    limits: tuple[str, ...]
    weights: tuple[Weights, ...]
    figures: tuple[Figure, ...]


def load_cards(folder: Path = FOLDER) -> dict[str, Card]:
    """Return all cards by name, sorted."""
    return {path.stem: load_card(path) for path in sorted(folder.glob("*.json"))}


def load_card(path: Path) -> Card:
    """Read and validate one card.

    Raises:
        UserError: no JSON, a key that is missing, unknown or of the wrong type, or a sha256 that is none.
    """
    try:
        data = read_json(path, "a model's card")
    except UserError as error:
        raise UserError(f"card {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"card {path} must be a JSON object")
    for key in ("limits", "weights", "figures"):
        if not isinstance(data.get(key), list):
            raise UserError(f"card {path}: '{key}' must be a list")
    fields = {
        **data,
        "name": path.stem,
        "limits": tuple(data["limits"]),
        "weights": tuple(_make(Weights, item, f"card {path}, weights {i}") for i, item in enumerate(data["weights"])),
        "figures": tuple(_make(Figure, item, f"card {path}, figure {i}") for i, item in enumerate(data["figures"])),
    }
    if not all(isinstance(limit, str) for limit in data["limits"]):
        raise UserError(f"card {path}: 'limits' must be a list of texts")
    card: Card = _make(Card, fields, f"card {path}")
    for part in (card.backbone, card.head):
        if part is not None and (not isinstance(part, dict) or "type" not in part):
            raise UserError(f"card {path}: a part is an object with a 'type', got {part!r}")
    return card


def in_markdown(text: str) -> str:
    """Text as Markdown that shows it: in one line, and nothing in it is obeyed, by Markdown or as HTML."""
    return re.sub(r"([\\`*\[\]<>|~])", r"\\\1", printable(text))


def _make(cls: type, data: Any, where: str) -> Any:
    """Build a dataclass from a JSON object, with every key it has and no other."""
    if not isinstance(data, dict):
        raise UserError(f"{where} must be a JSON object, got {data!r}")
    names = [field.name for field in dataclasses.fields(cls)]
    for key in data:
        if key not in names:
            raise UserError(f"{where} has an unknown key '{key}'{did_you_mean(key, names)}")
    for field in dataclasses.fields(cls):
        if field.name not in data:
            raise UserError(f"{where} lacks '{field.name}'")
        value = data[field.name]
        if field.type is str and (not isinstance(value, str) or not value):
            raise UserError(f"{where}: '{field.name}' must be a text, got {value!r}")
        if field.type is str and not all(letter.isprintable() or letter in "\n\t" for letter in value):
            raise UserError(f"{where}: '{field.name}' has characters that cannot be printed: {value!r:.60}")
        if field.type is float and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or not -MOST < value < MOST
        ):
            raise UserError(f"{where}: '{field.name}' must be a number, got {value!r}")
    if "sha256" in names and not re.fullmatch("[0-9a-f]{64}", data["sha256"]):
        raise UserError(f"{where}: '{data['sha256']}' is no sha256")
    return cls(**data)
