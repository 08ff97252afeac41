"""Trained models: shipped in the zoo, exported to a folder, or stored in a hub repository.

A model folder holds `model.safetensors` (backbone and head, see `zoo.model.write_model`), `config.json` (settings
needed to run the model), `card.json`, and `README.md` (the card in the hub's form). If the backbone needs a folder of
its own, the model folder holds `head.safetensors` instead of `model.safetensors`, and `config.json` gives the
backbone's location and fingerprint. The cards of shipped models are in `zoo/cards`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from typing_extensions import NotRequired  # in typing from Python 3.11

from backbones.base import Backbone
from backbones.checksums import file_sha256
from backbones.hub import download_snapshot, is_hub_id, nothing_fetched
from registry import BACKBONES, UserError, did_you_mean, printable
from zoo import cards, weights
from zoo.calibration import ScoreCalibration
from zoo.cards import Card, Weights, load_card
from zoo.files.atomic import replacing, write_json, write_text
from zoo.files.untrusted import checked, read_json
from zoo.hub_card import hub_card
from zoo.model import LookingAtMeModel, read_model, without_weights, write_model
from zoo.weights import LONGEST_WINDOW, read_head, write_head

FORMAT = 1  # of config.json
FILES = ("config.json", "card.json", "model.safetensors", "head.safetensors")  # downloaded from a model's repository
LABELS = ("not looking", "looking")  # of the two logits
VIEWS = ("original", "flipped")
FILTERS = ("median", "gaussian")  # of the scores along a track
MAX_RATE = 1000  # frames per second
MAX_MARGIN = 10  # box sides
MAX_COST = 1000  # of a change, log odds x seconds
MAX_MEASURED = 120  # letters, to fit into a video


class ModelConfig(TypedDict):
    """`config.json` of a model folder. With a `head.safetensors` it also has `backbone` and `fingerprint`."""

    format: int
    views: list[str]
    """`original`, optionally with `flipped`; their probabilities are averaged."""
    rate: float
    """Frames per second of the training windows."""
    margin: float | list[float]
    """Margin around a face detector's box, as a share of its size: one for all sides, or left, top, right, bottom."""
    smoothing: dict[str, Any] | None
    """`filter` and `window` in frames."""
    rendered_only: bool
    window: int
    """Frames per window."""
    labels: list[str]
    """Of the two logits."""
    preprocessing: dict[str, Any]
    square: NotRequired[bool]
    threshold: NotRequired[float]
    cost: NotRequired[float]
    measured: NotRequired[str]
    calibration: NotRequired[ScoreCalibration]


_ABSENT = {"square": False, "threshold": 0.5, "cost": 0.0}  # defaults for folders older than the key


@dataclass(frozen=True)
class Model:
    """A trained model and the settings needed to run it.

    Attributes:
        name: name of a shipped model, name of the folder, or ``OWNER/NAME@COMMIT``.
        card: description, origin and figures.
        network: the network in evaluation mode, with a frozen backbone.
        views: ``original``, optionally with ``flipped``; their probabilities are averaged.
        rate: frames per second of the training windows.
        margin: margin to add to a face detector's box to get crops like the training crops, as a share of its size:
            left, top, right, bottom.
        smoothing: ``{"filter": "median", "window": frames}`` for the scores along a track, or None.
        rendered_only: trained on rendered faces only; every output of its scores says so.
        square: the training crops were stretched to squares, as `prepare` does for Ego4D.
        threshold: default score at which a frame counts as looking.
        cost: cost of a change between looking and not looking, log odds x seconds. With 0, each frame is judged by its
            own score.
        measured: what the scores were measured on, and the result; every output of the scores says it.
        calibration: of its scores, or None.
        place: what `open_model` opens it by again: a name, the path of a folder, or ``OWNER/NAME@COMMIT``.
    """

    name: str
    card: Card
    network: LookingAtMeModel
    views: tuple[str, ...]
    rate: float
    margin: tuple[float, float, float, float]
    smoothing: dict[str, Any] | None
    rendered_only: bool
    square: bool = False
    threshold: float = 0.5
    cost: float = 0.0
    measured: str = ""
    calibration: ScoreCalibration | None = None
    place: str = ""


def model_names() -> list[str]:
    """Return the names of the shipped models, sorted."""
    return [*cards.model_cards()]


def open_model(name: str, device: str = "cpu") -> Model:
    """Open a shipped model, a model folder, or a hub repository.

    Args:
        name: name of a shipped model, path of a folder, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``. From a repository,
            only JSON and safetensors files are downloaded, all of one commit.
        device: torch device of the network.

    Raises:
        UserError: the model is unknown (lists the shipped ones), or its folder is incomplete or damaged.

    Example:
        >>> import torch
        >>> model = open_model("internlstm_nano")
        >>> model.views, model.rate, model.threshold
        (('original', 'flipped'), 30.0, 0.54)
        >>> window = torch.zeros(1, 7, 3, 112, 112)  # one window of seven grey crops, normalised
        >>> with torch.inference_mode():
        ...     logits = model.network(window, present=torch.ones(1, 7, dtype=torch.bool))
        >>> [round(logit, 1) for logit in logits[0].tolist()]  # not looking, looking
        [0.1, -0.1]
    """
    place = str(Path(name).resolve()) if name not in model_names() and Path(name).is_dir() else ""
    name, folder, card_path = find_model(name)
    config = read_model_config(folder)
    card = replace(load_card(card_path), name=name)
    file = _weights_file(folder, card, card_path)
    network = read_model(file) if file.name == "model.safetensors" else _with_backbone(file, config)
    calibration = checked(config["calibration"], ScoreCalibration) if "calibration" in config else None
    if calibration and len(calibration.weights) not in (0, network.backbone.feature_dim):
        raise UserError(
            f"{folder / 'config.json'}: the calibration has {len(calibration.weights)} weights, the backbone "
            f"{network.backbone.feature_dim} features; calibrate the model again"
        )
    return Model(
        name=name,
        card=card,
        network=network.to(device),
        views=tuple(config["views"]),
        rate=float(config["rate"]),
        margin=four_sides(config["margin"]),
        square=config.get("square", _ABSENT["square"]),
        threshold=float(config.get("threshold", _ABSENT["threshold"])),
        cost=float(config.get("cost", _ABSENT["cost"])),
        smoothing=config["smoothing"],
        rendered_only=config["rendered_only"],
        measured=config.get("measured", ""),
        calibration=calibration,
        place=place or name,
    )


def _weights_file(folder: Path, card: Card, card_path: Path) -> Path:
    """Return the path of a model's weights, after comparing their sha256 with the card.

    Raises:
        UserError: the file is missing or differs from the card.
    """
    files = [folder / file for file in ("model.safetensors", "head.safetensors") if (folder / file).is_file()]
    if len(files) != 1:
        raise UserError(f"{folder} must hold either model.safetensors or head.safetensors; export the model again")
    known = {Path(each.file).name: each.sha256 for each in card.weights}
    if file_sha256(files[0]) != known.get(files[0].name):
        raise UserError(f"the sha256 of {files[0]} differs from the one in {card_path}; export the model again")
    return files[0]


def find_model(name: str) -> tuple[str, Path, Path]:
    """Return a model's name, folder and card path; arguments and errors as in `open_model`."""
    known = model_names()
    if name in known:
        return name, weights.FOLDER / name, cards.FOLDER / f"{name}.json"
    folder = Path(name)
    if folder.is_dir():
        return printable(folder.resolve().name), folder, folder / "card.json"
    if is_hub_id(name):
        folder, repository, commit = download_snapshot(name, FILES)
        return f"{repository}@{commit}", folder, folder / "card.json"
    shipped = f"; shipped models: {', '.join(known)}" if known else ""
    raise UserError(
        f"there is no model '{name}'{did_you_mean(name, known)}; give an exported folder or a hub repository "
        f"OWNER/NAME{shipped}"
    )


def four_sides(margin: float | Sequence[float]) -> tuple[float, float, float, float]:
    """Expand a margin to left, top, right, bottom; a single number applies to all sides."""
    left, top, right, bottom = [margin] * 4 if isinstance(margin, (int, float)) else margin
    return float(left), float(top), float(right), float(bottom)


def _are_margins(value: float | list[float]) -> bool:
    sides = value if isinstance(value, list) else [value] * 4
    return len(sides) == 4 and all(0 <= side <= MAX_MARGIN for side in sides)


def read_model_config(folder: Path) -> dict[str, Any]:
    """Read and validate the `config.json` of a model folder.

    Raises:
        UserError: the file is missing, or a key is missing, of the wrong type or out of range.
    """
    path = folder / "config.json"
    try:
        config = read_json(path, "the configuration of a model")
    except UserError as error:
        raise UserError(f"{error}; give a model folder, as written by export") from error
    try:
        checked(config, ModelConfig)
    except ValueError as error:
        raise UserError(f"{path}: {error}; not a model folder, or damaged: export it again") from error
    if config["format"] != FORMAT:
        raise UserError(f"{path} has format {config['format']}, this version reads {FORMAT}; export it again")
    views = config["views"]
    if not views or any(view not in VIEWS for view in views) or len(views) != len(set(views)):
        raise UserError(f"{path}: 'views' is {views!r}; expected one or more of {', '.join(VIEWS)}, each once")
    if not 0 < config["rate"] <= MAX_RATE or not _are_margins(config["margin"]):
        raise UserError(
            f"{path}: rate is {config['rate']} (must be above 0, at most {MAX_RATE}), margin is {config['margin']} "
            f"(must be one number or four, from 0 to {MAX_MARGIN})"
        )
    threshold = config.get("threshold", _ABSENT["threshold"])
    if not 0 < threshold < 1:
        raise UserError(f"{path}: threshold is {threshold}; it must be between 0 and 1")
    if not 0 <= (cost := config.get("cost", _ABSENT["cost"])) <= MAX_COST:
        raise UserError(f"{path}: cost is {cost}; it must be between 0 and {MAX_COST}")
    if len(measured := config.get("measured", "")) > MAX_MEASURED or measured != printable(measured):
        raise UserError(f"{path}: 'measured' must be a line of at most {MAX_MEASURED} printable letters")
    if (smoothing := config["smoothing"]) is not None:
        window = smoothing.get("window")
        if smoothing.keys() != {"filter", "window"} or smoothing["filter"] not in FILTERS:
            raise UserError(
                f"{path}: 'smoothing' is {smoothing!r}; it must have a filter ({' or '.join(FILTERS)}) and a window"
            )
        if type(window) is not int or window % 2 == 0 or not 1 <= window <= LONGEST_WINDOW:
            raise UserError(f"{path}: the smoothing window is {window!r}; it must be odd and at most {LONGEST_WINDOW}")
    return config


def _with_backbone(path: Path, config: Mapping[str, Any]) -> LookingAtMeModel:
    """Build the backbone that `config.json` names and attach the head.

    Raises:
        UserError: the backbone cannot be built, or differs from the one the head was trained on.
    """
    head, _ = read_head(path)
    where = path.parent / "config.json"
    try:
        with nothing_fetched():
            backbone: Backbone = BACKBONES.build(config.get("backbone"))  # type: ignore[arg-type]
    except UserError as error:
        raise UserError(f"{error}; to use another location, change 'backbone' in {where}") from error
    if backbone.fingerprint() != config.get("fingerprint"):
        raise UserError(f"the backbone named in {where} differs from the one the head was trained on")
    return LookingAtMeModel(backbone, head).eval()


def stands_alone(backbone: Mapping[str, Any]) -> bool:
    """Whether `model.safetensors` can hold the backbone, because its configuration builds it without other files.

    Not if the configuration names a folder or repository, like `internvit:DIR`, or cannot be built without weights.
    """
    rest = without_weights(backbone)
    texts = [part for value in rest.values() if isinstance(value, str) for part in (value, value.partition(":")[2])]
    if any(part and (is_hub_id(part) or Path(part).exists()) for part in texts):
        return False
    try:
        BACKBONES.build(rest)
    except UserError:
        return False
    return True


def write_folder(
    folder: Path, model: Model, backbone: Mapping[str, Any], head: Mapping[str, Any], *, origin: str, licence: str
) -> Card:
    """Write a model folder. `config.json` comes last: its presence marks the folder as complete.

    Args:
        folder: empty or missing.
        model: trained model. Its card does not list weights yet.
        backbone: ``dict(type=NAME, **arguments)``.
        head: ``dict(type=NAME, **arguments)``. feature_dim and window are added.
        origin: origin of the weights, for the card.
        licence: licence of the weights, for the card.

    Returns:
        The card with the weights listed.
    """
    network = model.network
    fingerprint = network.backbone.fingerprint()
    config: dict[str, Any] = {
        "format": FORMAT,
        "views": [*model.views],
        "rate": model.rate,
        "margin": [*model.margin],
        "square": model.square,
        "threshold": model.threshold,
        "cost": model.cost,
        "smoothing": model.smoothing,
        "rendered_only": model.rendered_only,
        "window": network.head.window,
        "labels": [*LABELS],
        "preprocessing": fingerprint["preprocessing"],
    }
    if model.measured:
        config["measured"] = model.measured
    if backbone.get("frozen", True) and not stands_alone(backbone):
        file = "head.safetensors"
        sha256 = write_head(folder / file, network.head, head, licence=licence)
        config |= {"backbone": dict(backbone), "fingerprint": fingerprint}
    else:
        file = "model.safetensors"
        sha256 = write_model(folder / file, network, backbone, head, licence=licence)
    card = replace(model.card, weights=(Weights(file, origin, sha256, licence),))
    write_card(folder, card, model.rendered_only)
    write_json(folder / "config.json", config)
    return card


def write_card(folder: Path, card: Card, rendered_only: bool) -> None:
    """Write a card as `card.json` and, for the hub, as `README.md`."""
    data = {key: value for key, value in asdict(card).items() if key != "name"}
    write_json(folder / "card.json", data)
    write_text(folder / "README.md", hub_card(card, rendered_only))


def copy_model(
    name: str, folder: Path, changed: Callable[[dict[str, Any], Card], tuple[dict[str, Any], Card]] | None = None
) -> Card:
    """Copy a model to a new folder; `name` and errors as in `open_model`.

    Args:
        name: of the model.
        folder: new or empty.
        changed: takes `config.json` and the card, and returns those of the copy.

    Returns:
        The card in the new folder.
    """
    name, source, card_path = find_model(name)
    config, card = read_model_config(source), load_card(card_path)
    file = _weights_file(source, card, card_path)
    named = tuple(
        replace(each, file=file.name, origin=f"{name} of lamzoo" if each.origin == "shipped" else each.origin)
        for each in card.weights
        if Path(each.file).name == file.name
    )
    with replacing(folder / file.name) as temporary:
        shutil.copyfile(file, temporary)
    card = replace(card, name=folder.resolve().name, weights=named)
    if changed is not None:
        config, card = changed(config, card)
    write_card(folder, card, config["rendered_only"] and "calibration" not in config)
    write_json(folder / "config.json", config)
    return card
