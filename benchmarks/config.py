"""From a recipe's name and the command line to one validated, frozen configuration.

A recipe says the method, a dataset's file says the scale, the command line has the last word. mmengine's Config
reads and merges the files; what it accepts in silence (a key nobody knows, a value of another type, a `type` that
changed while the old type's arguments stay) is an error here that names the key and its nearest neighbour.
"""

from __future__ import annotations

import ast
import dataclasses
import runpy
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import BACKBONES, DATASETS, HEADS, PRIORS, UserError, did_you_mean

RECIPES = Path(__file__).parent / "recipes"
DATASET_FILES = Path(__file__).parent / "datasets"

VIEWS = ("original", "flipped")
TRACKERS = ("tensorboard", "wandb", "mlflow")  # keys of `training` that say who is told of its curves


@dataclass(frozen=True)
class Stride:
    """Every how many frames of a track a window is centred, by split."""

    train: int
    val: int
    test: int


@dataclass(frozen=True)
class Windows:
    """Windows of `2 * radius + 1` frames around the key frames."""

    radius: int
    stride: Stride


@dataclass(frozen=True)
class Views:
    """Views (`original`, `flipped`) that are trained on, and whose probabilities are averaged when scoring."""

    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Training:
    """How a head is trained, and the backbone with it where that is not frozen.

    `class_weight` is `balanced` (each class weighted by the other one's share of all frames of the training split, as
    published) or None. `seed` is the first of the seeds. `schedule` of the learning rate: `constant`, or `cosine` down
    to 0. `tensorboard`, `wandb` and `mlflow` change what is written, not what is learnt.

    For backbones that train: `precision` of a training step, `float32` or `bfloat16` (mixed; weights and scores stay
    float32); `block`, how many consecutive windows of a track stay together when windows are shuffled. Neighbours
    share most of their frames, and each frame of a batch is encoded once; 1 is the published sampling.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    class_weight: str | None
    seed: int
    schedule: str = "constant"
    precision: str = "float32"
    block: int = 1
    tensorboard: bool = False
    wandb: bool = False
    mlflow: bool = False


@dataclass(frozen=True)
class Smoothing:
    """Filter of the scores along a track: `median` or `gaussian`, `window` frames wide; None: chosen on validation."""

    filter: str
    window: int | None


@dataclass(frozen=True)
class Recipe:
    """One row of the table, resolved: everything that decides its numbers but the data and the seeds.

    Attributes:
        name: the recipe's file stem, plus what the command line changed: `internlstm+head=gru`.
        recipe: the file stem alone.
        version: raised by the recipe's authors when its number would move.
        method: the name the row has in print.
        published: method in `published.csv` that the row answers to, or None.
        dataset: the dataset's name.
        backbone: `type` and arguments for `BACKBONES`.
        stands_in_for: the backbone the recipe names, where the dataset's scale replaced it; else None.
        head: `type` and arguments for `HEADS`, without `feature_dim` and `window`.
        priors: `type` and arguments for `PRIORS`, where the head needs priors and a provider is named.
        temporal_dropout: drop blurred neighbours from windows of pixels (GazePose's Gaussian Temporal Dropout).
        limit: at most so many windows a split, spread evenly; None for all.
    """

    name: str
    recipe: str
    version: int
    method: str
    published: str | None
    dataset: str
    backbone: dict[str, Any]
    stands_in_for: str | None
    head: dict[str, Any]
    windows: Windows
    views: Views
    training: Training
    smoothing: Smoothing | None
    priors: dict[str, Any] | None = None
    temporal_dropout: bool = False
    limit: int | None = None
    changes: tuple[str, ...] = ()

    @property
    def on_pixels(self) -> bool:
        """Whether the backbone trains too: then windows are pixels, and there are no features to keep."""
        return self.backbone.get("frozen", True) is False

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries and lists, ready for JSON."""
        return plain(dataclasses.asdict(self))

    def as_file(self) -> dict[str, Any]:
        """What a recipe's file holds, of the values here."""
        config = self.as_dict()
        return {key: config[key] for key in RECIPE_KEYS}


# What a recipe's file may hold, a dataset's file may hold, and the names that `--set` reaches.
_OPTIONAL = {"priors": None, "temporal_dropout": False}
_REQUIRED = ("version", "method", "published", "backbone", "head", "windows", "views", "training", "smoothing")
RECIPE_KEYS = (*_REQUIRED, *_OPTIONAL)
ENSEMBLE_KEYS = ("version", "method", "published", "members", "smoothing")
_DATASET_KEYS = ("type", "stand_in", "heads", "windows", "training", "priors", "pixels")
_PIXELS_KEYS = ("backbones", "windows", "training")  # of a dataset's section for recipes whose backbone trains
_SECTIONS = {"windows": Windows, "views": Views, "training": Training, "smoothing": Smoothing}


def recipe_names() -> list[str]:
    """Names of the recipes that ship, sorted."""
    return sorted(path.stem for path in RECIPES.glob("[!_]*.py"))


def dataset_names() -> list[str]:
    """Names of the datasets that have a file of their own, sorted."""
    return sorted(path.stem for path in DATASET_FILES.glob("[!_]*.py"))


def recipe_summary(name: str) -> str:
    """First line of the recipe's docstring."""
    return _docstring(RECIPES / f"{name}.py").partition("\n")[0]


def load_recipe(name: str) -> dict[str, Any]:
    """Read one recipe, by name or as a path that ends in `.py`.

    Raises:
        UserError: no such recipe, or its file has unknown keys, wrong types or left-over arguments.
    """
    return _load(name, "recipe", _REQUIRED, _OPTIONAL, "internlstm.py")


def load_ensemble(name: str) -> dict[str, Any]:
    """Read one ensemble, by name or as a path that ends in `.py`.

    Raises:
        UserError: no such file, or unknown keys.
    """
    return _load(name, "ensemble", ENSEMBLE_KEYS, {}, "ensemble.py")


def is_ensemble(name: str) -> bool:
    """Whether a recipe, by name or as a path that ends in `.py`, has members in place of a backbone and a head."""
    return "members" in _read(_find(name, RECIPES, recipe_names(), "recipe"))


def load_dataset(name: str) -> dict[str, Any]:
    """Read one dataset's scale, by name or as a path that ends in `.py`.

    A dataset that a plug-in registers needs no file: the recipes' published scale then holds.
    """
    if name in DATASETS and name not in dataset_names():
        return {"type": name}
    known = sorted({*dataset_names(), *DATASETS.names()})
    path = _find(name, DATASET_FILES, known, "dataset")
    values = _read(path)
    _check_keys(values, _DATASET_KEYS, f"dataset {path.name}")
    _check_keys(values.get("pixels", {}), _PIXELS_KEYS, f"dataset {path.name}: pixels")
    if "type" not in values:
        raise UserError(f"dataset {path.name} lacks type, the name of its reader ({', '.join(DATASETS.names())})")
    DATASETS.get(values["type"])
    return values


def resolve(
    recipe: str,
    dataset: str = "synthlam",
    *,
    backbone: str | None = None,
    weights: str | None = None,
    head: str | None = None,
    settings: Sequence[str] = (),
    limit: int | None = None,
) -> Recipe:
    """Merge recipe < dataset < command line and validate the whole.

    Args:
        recipe: name of a recipe, or a path that ends in `.py`.
        dataset: name of a dataset, or a path that ends in `.py`.
        backbone: replaces the recipe's backbone, its arguments too.
        weights: path given to the backbone's argument `weights`.
        head: replaces the recipe's head, its arguments too.
        settings: `key=value` pairs with dotted keys, such as `training.lr=1e-3`.
        limit: at most so many windows a split.

    Raises:
        UserError: anything unknown, of the wrong type or left over from another `type`.
    """
    method, scale = load_recipe(recipe), load_dataset(dataset)
    stem = Path(recipe).stem

    changed = [parse_setting(setting) for setting in settings]
    values: dict[str, Any] = {key: method[key] for key in RECIPE_KEYS}

    stands_in_for = None
    asked = values["backbone"].get("type")
    if backbone is not None:
        values["backbone"] = {"type": backbone}
    elif asked in scale.get("stand_in", {}):
        values["backbone"], stands_in_for = dict(scale["stand_in"][asked]), asked
    if weights is not None:
        values["backbone"]["weights"] = weights

    if head is not None:
        values["head"] = {"type": head}
    values["head"] = {**values["head"], **scale.get("heads", {}).get(values["head"]["type"], {})}

    pixels = scale.get("pixels", {})
    if dict(changed).get("backbone.frozen", values["backbone"].get("frozen", True)) is not False:
        pixels = {}
    own = pixels.get("backbones", {}).get(values["backbone"]["type"], {})
    values["backbone"] = {**own, **values["backbone"]}
    values["training"] = {**defaults(Training), **values["training"]}
    for section in ("windows", "training"):
        for part, where in ((scale, f"dataset {dataset}"), (pixels, f"dataset {dataset}: pixels")):
            values[section] = _merge(values[section], part.get(section, {}), f"{where}: {section}")
    needs_priors = getattr(HEADS.get(values["head"]["type"]), "needs_priors", ())
    if needs_priors and values["priors"] is None:
        values["priors"] = scale.get("priors")

    changes = [f"dataset={Path(dataset).stem}"] if dataset.endswith(".py") else []
    changes += [f"backbone={backbone}"] if backbone is not None else []
    # A path names a place, not a model: what was loaded from it is in the record, by its sha256.
    changes += [f"weights={Path(weights).name}"] if weights is not None else []
    changes += [f"head={head}"] if head is not None else []
    for key, value in changed:
        if set_value(values, key, value) and not tracks(key):
            changes.append(f"{key}={spell(value)}")
    if limit is not None:
        if limit < 1:
            raise UserError(f"--limit is {limit}; it has to be at least 1")
        changes.append(f"limit={limit}")

    for key in ("feature_dim", "window"):
        if key in values["head"]:
            raise UserError(f"head.{key} follows from the backbone and windows.radius; it cannot be set")
    HEADS.check(values["head"])
    BACKBONES.check(values["backbone"])
    if values["priors"] is not None:
        for key in ("root", "cache"):
            if key in typed(values["priors"], dict, "priors"):
                raise UserError(f"priors.{key} follows from --root and --out; it cannot be set")
        PRIORS.check(values["priors"])
        if not needs_priors:
            raise UserError(f"priors are set, and head {values['head']['type']} takes none; leave them out")
    resolved = Recipe(
        name="+".join([stem, *changes]),
        recipe=stem,
        version=typed(values["version"], int, "version"),
        method=typed(values["method"], str, "method"),
        published=typed(values["published"], str | None, "published"),
        dataset=scale["type"],
        backbone=values["backbone"],
        stands_in_for=stands_in_for,
        head=values["head"],
        windows=_section(Windows, values["windows"], "windows"),
        views=_section(Views, values["views"], "views"),
        training=_section(Training, values["training"], "training"),
        smoothing=smoothing_of(values["smoothing"]),
        priors=values["priors"],
        temporal_dropout=typed(values["temporal_dropout"], bool, "temporal_dropout"),
        limit=limit,
        changes=tuple(changes),
    )
    _check_values(resolved)
    return resolved


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


def _load(name: str, kind: str, required: Sequence[str], optional: Mapping[str, Any], example: str) -> dict[str, Any]:
    path = _find(name, RECIPES, recipe_names(), "recipe")
    values, shown = {**optional, **_read(path)}, name if name.endswith(".py") else path.name
    _check_keys(values, (*required, *optional), f"{kind} {shown}")
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
    """Read a configuration file with its bases, refusing arguments that outlived a change of `type`."""
    from mmengine.config import Config

    try:
        values = Config.fromfile(str(path)).to_dict()
        own = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        raise UserError(f"cannot read {path}: {type(error).__name__}: {' '.join(str(error).split())}") from error
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


def _check_keys(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in values:
        if key not in known:
            raise UserError(
                f"{where}: unknown key '{key}'{did_you_mean(key, list(known))}; there are: {', '.join(known)}"
            )


def _merge(base: Mapping[str, Any], over: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Deep merge; a key that the base does not have is an error, since every recipe is complete."""
    _check_keys(over, list(base), where)
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(base[key], Mapping)
        merged[key] = _merge(base[key], value, f"{where}.{key}") if nested else value
    return merged


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
        *_OPTIONAL,
        *(f"{section}.{key}" for section, cls in _SECTIONS.items() for key in _leaves(cls)),
    ]


def defaults(cls: Any) -> dict[str, Any]:
    """The values that a section's keys have where nobody names them."""
    return {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}


def _leaves(cls: type) -> Iterator[str]:
    for name, kind in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind):
            yield from (f"{name}.{leaf}" for leaf in _leaves(typing.cast(type, kind)))
        else:
            yield name


def _section(cls: Any, values: Any, where: str) -> Any:
    """Build one frozen section from a mapping, checking keys and types."""
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is {values!r}; it has to be a dict of {', '.join(_leaves(cls))}")
    hints = typing.get_type_hints(cls)
    _check_keys(values, list(hints), where)
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in values and f.default is dataclasses.MISSING]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}")
    return cls(**{name: typed(value, hints[name], f"{where}.{name}") for name, value in values.items()})


def typed(value: Any, kind: Any, where: str) -> Any:
    """The value as `kind`, or an error that names the key. A whole number is a float too; a list is a tuple too."""
    if dataclasses.is_dataclass(kind):
        return _section(kind, value, where)
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise UserError(f"{where} is {value!r}; it has to be a list of {inner.__name__}")
        return tuple(typed(item, inner, where) for item in value)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kinds = typing.get_args(kind)
        if value is None and type(None) in kinds:
            return None
        return typed(value, next(k for k in kinds if k is not type(None)), where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(
            f"{where} is {value!r}, {_article(type(value).__name__)}; it has to be {_article(kind.__name__)}"
        )
    return value


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _check_values(recipe: Recipe) -> None:
    for where, views in (("views.train", recipe.views.train), ("views.test", recipe.views.test)):
        wrong = [view for view in views if view not in VIEWS]
        if wrong or not views or len(set(views)) != len(views):
            raise UserError(f"{where} is {list(views)}; it has to be one or both of {', '.join(VIEWS)}, each once")
    stride, training = recipe.windows.stride, recipe.training
    for where, number, least in (
        ("windows.radius", recipe.windows.radius, 0),
        ("windows.stride.train", stride.train, 1),
        ("windows.stride.val", stride.val, 1),
        ("windows.stride.test", stride.test, 1),
        ("training.epochs", training.epochs, 1),
        ("training.batch_size", training.batch_size, 1),
        ("training.seed", training.seed, 0),
        ("training.block", training.block, 1),
    ):
        if number < least:
            raise UserError(f"{where} is {number}; it has to be at least {least}")
    if not 0 < training.lr < float("inf"):
        raise UserError(f"training.lr is {training.lr}; it has to be a positive number")
    if training.weight_decay < 0:
        raise UserError(f"training.weight_decay is {training.weight_decay}; it cannot be negative")
    if training.class_weight not in ("balanced", None):
        raise UserError(f"training.class_weight is {training.class_weight!r}; it has to be balanced or none")
    for where, value, known in (
        ("training.schedule", training.schedule, ("constant", "cosine")),
        ("training.precision", training.precision, ("float32", "bfloat16")),
    ):
        if value not in known:
            raise UserError(f"{where} is {value!r}; it has to be {' or '.join(known)}")
    if not recipe.on_pixels:
        for where, differs in (
            ("temporal_dropout", recipe.temporal_dropout),
            ("training.precision", training.precision != "float32"),
            ("training.block", training.block != 1),
        ):
            if differs:
                raise UserError(f"{where} is for backbones that train; --set backbone.frozen=false makes one of it")


def smoothing_of(values: Mapping[str, Any] | None) -> Smoothing | None:
    """Check a section `smoothing`.

    Raises:
        UserError: of the wrong type or value.
    """
    if values is None:
        return None
    smoothing: Smoothing = _section(Smoothing, values, "smoothing")
    if smoothing.filter not in ("median", "gaussian"):
        raise UserError(f"smoothing.filter is {smoothing.filter!r}; it has to be median or gaussian")
    window = smoothing.window
    if window is not None and (window < 1 or window % 2 == 0):
        raise UserError(f"smoothing.window is {window}; it has to be an odd number of frames, or none")
    return smoothing


def spell(value: Any) -> str:
    """A value as it stands in a row's name."""
    return str(value).replace(" ", "") if isinstance(value, list | tuple) else str(value)


def plain(value: Any) -> Any:
    """A copy of lists and dictionaries alone, for JSON."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
