"""Trained models that can be run: shipped in the zoo, in a folder that `export` wrote, or in a repository of the hub.

Such a folder holds `model.safetensors` (backbone and head, as `zoo.model.write_model` writes them), `config.json` (what
has to be known to run them), `card.json` and `README.md`, the card as the hub shows it. Where a backbone cannot be
built without a folder of its own, `head.safetensors` takes the place of `model.safetensors`, and `config.json` says
where that was and what its fingerprint must be. A shipped model has its card in `zoo/cards`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from typing_extensions import NotRequired  # in typing from Python 3.11

from backbones.base import Backbone
from backbones.checksums import file_sha256
from backbones.hub import download_snapshot, is_hub_id, nothing_fetched
from registry import BACKBONES, UserError, did_you_mean, printable
from zoo import cards, weights
from zoo.cards import Card, Weights, in_markdown, load_card, load_cards
from zoo.files.atomic import replacing, write_json, write_text
from zoo.files.untrusted import checked, read_json
from zoo.model import LookingAtMeModel, read_model, without_weights, write_model
from zoo.weights import LONGEST_WINDOW, read_head, write_head

FORMAT = 1  # of config.json
FILES = ("config.json", "card.json", "model.safetensors", "head.safetensors")  # that a model's repository is asked for
LABELS = ("not looking", "looking")  # of the two logits
VIEWS = ("original", "flipped")
FILTERS = ("median", "gaussian")  # of the scores along a track
MAX_RATE = 1000  # frames a second
MAX_MARGIN = 10  # sides of a box
MAX_COST = 1000  # log odds x seconds, of a change


class ModelConfig(TypedDict):
    """`config.json` of a model folder. `backbone` and `fingerprint` are there if the weights are of a head only."""

    format: int
    views: list[str]
    """`original`, and perhaps `flipped`: their probabilities are averaged."""
    rate: float
    """Frames per second of the training windows."""
    margin: float | list[float]
    """Shares of a face detector's box to add on all sides, or left, above, right and below."""
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


_ABSENT = {"square": False, "threshold": 0.5, "cost": 0.0}  # what holds where a folder is older than the key


@dataclass(frozen=True)
class Model:
    """A trained model with what has to be known to run it.

    Attributes:
        name: of a shipped model; else the folder's name, or ``OWNER/NAME@COMMIT``.
        card: what it is, where it is from, how good it is.
        network: in evaluation mode, its backbone frozen.
        views: ``original``, and perhaps ``flipped``: their probabilities are averaged.
        rate: frames a second that its windows were made of.
        margin: shares of a face detector's box to be added on its left, above it, on its right and below it, to have
            crops like those it was trained on.
        smoothing: ``{"filter": "median", "window": frames}`` of the scores along a track, or None.
        rendered_only: it has learnt from rendered faces alone; whatever shows its scores says so.
        square: its training crops were stretched to squares, whatever their boxes were, as `prepare` cuts Ego4D's.
        threshold: of the score from which on a frame looks, where nobody asks for another.
        cost: of a change between looking and not looking, log odds x seconds; where it is 0, each frame looks or not
            by its own score.
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


def model_names() -> list[str]:
    """Names of the shipped models, sorted; a backbone alone is none."""
    return sorted(name for name, card in load_cards(cards.FOLDER).items() if card.head is not None)


def open_model(name: str, device: str = "cpu") -> Model:
    """Open a model by its name in the zoo, its folder, or its repository on the hub.

    Args:
        name: a shipped model's, a path, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``. Of a repository the JSON and
            safetensors files are downloaded, all of one commit.
        device: torch device of the network.

    Raises:
        UserError: there is no such model (says which there are), or its folder is not whole.
    """
    name, folder, card_path = find_model(name)
    config = read_model_config(folder)
    card = replace(load_card(card_path), name=name)
    file = _weights_file(folder, card, card_path)
    network = read_model(file) if file.name == "model.safetensors" else _with_backbone(file, config)
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
    )


def _weights_file(folder: Path, card: Card, card_path: Path) -> Path:
    """The file with a model's weights, which has to be the one that its card describes.

    Raises:
        UserError: there is none, or it is another.
    """
    files = [folder / file for file in ("model.safetensors", "head.safetensors") if (folder / file).is_file()]
    if len(files) != 1:
        raise UserError(f"model folder {folder} must hold model.safetensors or head.safetensors; export it again")
    known = {Path(each.file).name: each.sha256 for each in card.weights}
    if file_sha256(files[0]) != known.get(files[0].name):
        raise UserError(f"{files[0]} is not the file that {card_path} describes: damaged, or of another version")
    return files[0]


def find_model(name: str) -> tuple[str, Path, Path]:
    """Find a model: its name, its folder and the file of its card; arguments and errors as of `open_model`."""
    known = model_names()
    if name in known:
        return name, weights.FOLDER / name, cards.FOLDER / f"{name}.json"
    folder = Path(name)
    if folder.is_dir():
        return printable(folder.resolve().name), folder, folder / "card.json"
    if is_hub_id(name):
        folder, repository, commit = download_snapshot(name, FILES)
        return f"{repository}@{commit}", folder, folder / "card.json"
    shipped = f"; shipped are: {', '.join(known)}" if known else ""
    raise UserError(
        f"there is no model '{name}'{did_you_mean(name, known)}; give a folder that export wrote, or OWNER/NAME of a "
        f"repository{shipped}"
    )


def four_sides(margin: float | Sequence[float]) -> tuple[float, float, float, float]:
    """Margins on the left, above, on the right and below, of as many or of one for all."""
    left, top, right, bottom = [margin] * 4 if isinstance(margin, (int, float)) else margin
    return float(left), float(top), float(right), float(bottom)


def _are_margins(value: float | list[float]) -> bool:
    sides = value if isinstance(value, list) else [value] * 4
    return len(sides) == 4 and all(0 <= side <= MAX_MARGIN for side in sides)


def read_model_config(folder: Path) -> dict[str, Any]:
    """Read and check the `config.json` of a model's folder.

    Raises:
        UserError: there is none, or a key is missing or of the wrong type.
    """
    path = folder / "config.json"
    try:
        config = read_json(path, "what is known of a model")
    except UserError as error:
        raise UserError(f"{folder} is no model folder ({error}); export writes such") from error
    try:
        checked(config, ModelConfig)
    except ValueError as error:
        raise UserError(f"{path}: {error}; the folder is not of a model, or damaged: export it again") from error
    if config["format"] != FORMAT:
        raise UserError(f"{path} has format {config['format']}, this program reads {FORMAT}; export it again")
    views = config["views"]
    if not views or any(view not in VIEWS for view in views) or len(views) != len(set(views)):
        raise UserError(f"{path}: 'views' is {views!r}; it has to be some of {', '.join(VIEWS)}, each once")
    if not 0 < config["rate"] <= MAX_RATE or not _are_margins(config["margin"]):
        raise UserError(
            f"{path}: rate {config['rate']} must be above 0 and margin {config['margin']}, one number or four, not "
            f"below, and no more than {MAX_RATE} and {MAX_MARGIN}"
        )
    threshold = config.get("threshold", _ABSENT["threshold"])
    if not 0 < threshold < 1:
        raise UserError(f"{path}: threshold {threshold} has to lie between 0 and 1")
    if not 0 <= (cost := config.get("cost", _ABSENT["cost"])) <= MAX_COST:
        raise UserError(f"{path}: cost {cost} has to lie between 0 and {MAX_COST}")
    smoothing = config["smoothing"]
    if smoothing is not None:
        window = smoothing.get("window")
        if smoothing.keys() != {"filter", "window"} or smoothing["filter"] not in FILTERS:
            raise UserError(
                f"{path}: 'smoothing' is {smoothing!r}; it has to be a filter, {' or '.join(FILTERS)}, and a window"
            )
        if type(window) is not int or window % 2 == 0 or not 1 <= window <= LONGEST_WINDOW:
            raise UserError(f"{path}: the smoothing's window is {window!r}; it has to be odd, {LONGEST_WINDOW} at most")
    return config


def _with_backbone(path: Path, config: Mapping[str, Any]) -> LookingAtMeModel:
    """Put a head on the backbone that `config.json` names, if that still is what the head was trained on."""
    head, _ = read_head(path)
    where = path.parent / "config.json"
    try:
        with nothing_fetched():
            backbone: Backbone = BACKBONES.build(config.get("backbone"))  # type: ignore[arg-type]
    except UserError as error:
        raise UserError(f"{error}; {where} says where this model's backbone is: change its 'backbone'") from error
    if backbone.fingerprint() != config.get("fingerprint"):
        raise UserError(f"the backbone that {where} names is not the one that the head was trained on")
    return LookingAtMeModel(backbone, head).eval()


def stands_alone(backbone: Mapping[str, Any]) -> bool:
    """Whether a backbone's weights can move into `model.safetensors`: the rest of its configuration builds it anew.

    It cannot where that names a folder or repository, as `internvit:DIR` does, or where there is no building without
    weights.
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
    """Write a model's folder; `config.json` comes last, since it is what says that the rest is whole.

    Args:
        folder: empty or not there.
        model: its card names no weights yet.
        backbone: ``dict(type=NAME, **arguments)``.
        head: the same; feature_dim and window are added.
        origin: where the weights come from, for the card.
        licence: of the weights.

    Returns:
        The card, its weights named.
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
    """Write a card in both its forms: `card.json`, and `README.md` as the hub shows it."""
    data = {key: value for key, value in asdict(card).items() if key != "name"}
    write_json(folder / "card.json", data)
    write_text(folder / "README.md", readme(card, rendered_only))


def copy_model(name: str, folder: Path) -> Card:
    """Copy a model into a folder of its own; arguments and errors as of `open_model`.

    Returns:
        Its card, as the folder has it.
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
    write_card(folder, card, config["rendered_only"])
    write_json(folder / "config.json", config)
    return card


def check_repository(repository: str) -> None:
    """Refuse what no repository of the hub is called.

    Raises:
        UserError: it is not ``OWNER/NAME``.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError(f"--push {repository}: a repository is called OWNER/NAME")


def push_model(folder: Path, repository: str) -> str:
    """Upload a model's folder to a repository of the hub; one that is not there is made, private.

    Args:
        folder: as `write_folder` and `copy_model` leave it.
        repository: ``OWNER/NAME``.

    Returns:
        The address of the commit.

    Raises:
        UserError: the name is none, nobody is logged in, or the hub says no.
    """
    import huggingface_hub

    check_repository(repository)
    try:
        api = huggingface_hub.HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Model exported by lamzoo",
            allow_patterns=["*.safetensors", "*.json", "*.onnx", "README.md"],
        )
    except Exception as error:  # the hub's own errors, and any of three libraries' for a network that breaks off
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{repository} was not uploaded ({reason}); {folder} is whole: log in by hf auth login, then export again"
        ) from error
    return str(done.commit_url)


# -- the hub's model card -----------------------------------------------------------------------------------------

# Licences as the hub calls them.
_LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit", "unknown": "unknown"}
# Metrics as the hub calls them, by the first word of a figure's.
_METRICS = {"mAP": "mean_average_precision", "accuracy": "accuracy"}


def readme(card: Card, rendered_only: bool) -> str:
    """A card as a model card of the hub: YAML with licence, tags and figures (`model-index`), then Markdown."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="video-classification",
            task_name="Looking-At-Me",
            dataset_type=figure.split.partition(" ")[0].lower(),
            dataset_name=figure.split.rpartition(" ")[0],
            dataset_split=figure.split.rpartition(" ")[2],
            metric_type=_METRICS.get(figure.metric.partition(",")[0], "average_precision"),
            metric_name=figure.metric,
            metric_value=figure.value,
        )
        for figure in card.figures
    ]
    licence = card.weights[0].licence
    data = ModelCardData(
        model_name=card.name,
        license=_LICENCES.get(licence, "other"),
        license_name=None if licence in _LICENCES else licence,
        library_name="lamzoo",
        pipeline_tag="video-classification",
        tags=["looking-at-me", "gaze", "eye-contact", "egocentric-video", *(["synthetic"] if rendered_only else [])],
        eval_results=results,
    )
    figures = "\n".join(
        f"| {in_markdown(figure.metric)} | {figure.value:g} | {in_markdown(figure.split)} | "
        f"{in_markdown(figure.source)} |"
        for figure in card.figures
    )
    files = "\n".join(
        f"- {in_markdown(each.file)}: {in_markdown(each.origin)}; licence: {in_markdown(each.licence)}; sha256 "
        f"`{each.sha256}`"
        for each in card.weights
    )
    return (
        f"---\n{data.to_yaml()}\n---\n\n# {in_markdown(card.title)}\n\n{in_markdown(card.description)}\n\n"
        + (
            "**Trained on rendered faces alone: no figure here says how it does on real ones.**\n\n"
            if rendered_only
            else ""
        )
        + "In a checkout of lamzoo, whoever looks at the wearer of a head-worn camera is found by\n\n"
        "```console\n$ python bench.py predict VIDEO.mp4 --model THIS_FOLDER -o OUT/\n```\n\n"
        f"## Figures\n\n| metric | value | split | source |\n| --- | --- | --- | --- |\n{figures}\n\n"
        f"## Training\n\n{in_markdown(card.training)}\n\n## Limits\n\n"
        + "\n".join(f"- {in_markdown(limit)}" for limit in card.limits)
        + f"\n\n## Files\n\n{files}\n"
    )
