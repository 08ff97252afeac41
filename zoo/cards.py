"""Model cards: one JSON file a model, saying what it is made of, where its weights are from, and what was measured."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from registry import UserError, did_you_mean, printable
from zoo.files.untrusted import checked, read_json

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
        UserError: broken JSON; a key that is missing, unknown or of the wrong type; or an invalid sha256.
    """
    try:
        data = read_json(path, "a model's card")
    except UserError as error:
        raise UserError(f"card {error}") from error
    if isinstance(data, dict):
        data["name"] = path.stem
    try:
        checked(data, Card)
        _check_keys(data, Card, "")
        for key, kind in (("weights", Weights), ("figures", Figure)):
            for number, item in enumerate(data[key]):
                _check_keys(item, kind, f"{key}[{number}]: ")
        card = msgspec.convert(data, Card)
        for weights in card.weights:
            if not re.fullmatch("[0-9a-f]{64}", weights.sha256):
                raise ValueError(f"'{weights.sha256}' is not a sha256")
        for part in (card.backbone, card.head):
            if part is not None and "type" not in part:
                raise ValueError(f"a part needs a 'type', got {part!r}")
    except ValueError as error:
        raise UserError(f"card {path}: {error}") from error
    return card


def _check_keys(data: Mapping[str, Any], kind: type, where: str) -> None:
    """Check that there are no unknown keys, that texts can be printed and are not empty, and that numbers are sane.

    Raises:
        ValueError: otherwise; names the key.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    for key, value in data.items():
        if key not in names:
            raise ValueError(f"{where}unknown key '{key}'{did_you_mean(key, names)}")
        if isinstance(value, str) and not value:
            raise ValueError(f"{where}'{key}' is empty")
        if isinstance(value, str) and not all(letter.isprintable() or letter in "\n\t" for letter in value):
            raise ValueError(f"{where}'{key}' has characters that cannot be printed: {value!r:.60}")
        if key == "value" and not -MOST < value < MOST:
            raise ValueError(f"{where}'{key}' is {value!r}")


def in_markdown(text: str) -> str:
    """Text as Markdown that shows it: in one line, and nothing in it is obeyed, by Markdown or as HTML."""
    return re.sub(r"([\\`*\[\]<>|~])", r"\\\1", printable(text))
