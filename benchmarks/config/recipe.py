"""The sections of a recipe as frozen dataclasses, and the keys that a recipe file may hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
OPTIONAL_KEYS = {"priors": None, "temporal_dropout": False}
REQUIRED_KEYS = ("version", "method", "published", "backbone", "head", "windows", "views", "training", "smoothing")
RECIPE_KEYS = (*REQUIRED_KEYS, *OPTIONAL_KEYS)
SECTIONS = {"windows": Windows, "views": Views, "training": Training, "smoothing": Smoothing}


def defaults(cls: Any) -> dict[str, Any]:
    """The values that a section's keys have where nobody names them."""
    return {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}


def plain(value: Any) -> Any:
    """A copy of lists and dictionaries alone, for JSON."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
