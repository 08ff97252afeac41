"""Model cards: one JSON file per model with its parts, the origin of its weights, and its measured figures."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import UserError, did_you_mean, printable
from zoo.files.untrusted import checked, read_json

FOLDER = Path(__file__).resolve().parent / "cards"
MAX_FIGURE = 1e15


@dataclass(frozen=True)
class Weights:
    """One weights file.

    Attributes:
        file: path below ``zoo/weights`` for shipped weights, otherwise the file name.
        origin: ``shipped``, a package, or a URL.
        sha256: 64 hexadecimal digits.
        licence: SPDX identifier.
    """

    file: str
    origin: str
    sha256: str
    licence: str


@dataclass(frozen=True)
class Figure:
    """One measured or cited number.

    Attributes:
        metric: name and unit.
        value: the number.
        split: data set and split.
        source: record, command or publication.
    """

    metric: str
    value: float
    split: str
    source: str


@dataclass(frozen=True)
class Card:
    """Description of one model.

    Attributes:
        name: stem of the card's file.
        title: one line.
        description: what the model is, and what it is not.
        backbone: ``dict(type=NAME, ...)``. None for an imported head whose features come from elsewhere.
        head: ``dict(type=NAME, ...)``. None if the card describes only a backbone.
        training: data, task, and the reason for the task.
        limits: known weaknesses, one per entry.
        weights: weights files.
        figures: measured or cited numbers.
    """

    name: str
    title: str
    description: str
    backbone: Mapping[str, Any] | None
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
        UserError: the JSON is broken, a key is missing, unknown or of the wrong type, or a sha256 is invalid.
    """
    data = read_json(path, "a model card")
    if isinstance(data, dict):
        data["name"] = path.stem
    try:
        card: Card = checked(data, Card)
        _check_keys(data, Card, "")
        for key, kind in (("weights", Weights), ("figures", Figure)):
            for number, item in enumerate(data[key]):
                _check_keys(item, kind, f"{key}[{number}]: ")
        for weights in card.weights:
            if not re.fullmatch("[0-9a-f]{64}", weights.sha256):
                raise ValueError(f"'{weights.sha256}' is not a sha256 (64 lower-case hexadecimal digits)")
        for part in (card.backbone, card.head):
            if part is not None and "type" not in part:
                raise ValueError(f"backbone and head need a 'type', got {part!r}")
    except ValueError as error:
        raise UserError(f"card {path}: {error}") from error
    return card


def model_cards() -> dict[str, Card]:
    """Return the cards of the shipped models by name, sorted. Cards of backbones without a head are left out."""
    return {name: card for name, card in load_cards(FOLDER).items() if card.head is not None}


def _check_keys(data: Mapping[str, Any], kind: type, where: str) -> None:
    """Check for unknown keys, empty or unprintable text, and absurdly large numbers.

    Raises:
        ValueError: names the key.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    for key, value in data.items():
        if key not in names:
            raise ValueError(f"{where}unknown key '{key}'{did_you_mean(key, names)}")
        if isinstance(value, str) and not value:
            raise ValueError(f"{where}'{key}' is empty")
        if isinstance(value, str) and not all(letter.isprintable() or letter in "\n\t" for letter in value):
            raise ValueError(f"{where}'{key}' has unprintable characters: {value!r:.60}")
        if key == "value" and not -MAX_FIGURE < value < MAX_FIGURE:
            raise ValueError(f"{where}'{key}' is {value!r}; the limit is {MAX_FIGURE:g}")


def in_markdown(text: str) -> str:
    """Escape text for Markdown: one line, shown literally, with no Markdown or HTML markup taking effect."""
    return re.sub(r"([\\`*\[\]<>|~])", r"\\\1", printable(text))
