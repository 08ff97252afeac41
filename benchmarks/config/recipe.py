"""The sections of a recipe as frozen dataclasses, and the keys that a recipe file may hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

VIEWS = ("original", "flipped")

# Bounds of values. The upper ones are far above any use, and keep a slip of the hand from filling the memory.
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
SmoothingWindow = Annotated[int, Meta(ge=1, le=999)]  # frames
SEEDS = 1 << 32  # numpy takes seeds below
SeedCount = Annotated[int, Meta(ge=1, le=1000)]
ClassWeight = Annotated[float, Meta(gt=0, le=1000)]

Start = Literal["random", "imagenet", "gaze360", "renders"]
Init = Start | None
TRACKERS = ("tensorboard", "wandb", "mlflow")  # keys of `training` that choose where its curves are logged


@dataclass(frozen=True)
class Stride:
    """Frames between two key frames of a track, by split."""

    train: Count
    val: Count
    test: Count


@dataclass(frozen=True)
class Windows:
    """Windows of `2 * radius + 1` frames around the key frames."""

    radius: Annotated[int, Meta(ge=0, le=500)]
    stride: Stride


@dataclass(frozen=True)
class Views:
    """Views (`original`, `flipped`) to train on, and views whose probabilities are averaged when scoring."""

    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Augment:
    """Augmentation of pixel windows in training, drawn again in each epoch.

    `flip`: probability that a whole window is mirrored, priors included. `crop`: smallest share of a crop's area that
    is cut out and resized to its full size (RandomResizedCrop), for each frame of each window; None cuts nothing.
    """

    flip: Annotated[float, Meta(ge=0, le=1)] = 0.0
    crop: Annotated[float, Meta(gt=0, le=1)] | None = None


@dataclass(frozen=True)
class Training:
    """How a head is trained, together with its backbone if that is trainable.

    `class_weight`: `balanced` weights each class by the share of the other class among all frames of the training
    split, `balanced_key_frames` among its key frames that have a crop; two numbers are the weights of not looking and
    of looking; None weights both by 1. `seed`: the first seed. `schedule`: of the learning rate, `constant`, or
    `cosine` from `lr` down to `schedule_floor`, with a change after each `schedule_unit`, `step` or `epoch`.
    `tensorboard`, `wandb` and `mlflow` log curves and change no number.

    For trainable backbones: `precision` of a training step, `float32` or `bfloat16` (mixed; weights and scores stay
    float32).
    """

    epochs: Count
    batch_size: Count
    lr: Annotated[float, Meta(gt=0, le=1000)]
    weight_decay: Annotated[float, Meta(ge=0, le=1000)]
    class_weight: Literal["balanced", "balanced_key_frames"] | tuple[ClassWeight, ClassWeight] | None
    seed: Annotated[int, Meta(ge=0, lt=SEEDS)]
    schedule: Literal["constant", "cosine"] = "constant"
    schedule_floor: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    schedule_unit: Literal["step", "epoch"] = "step"
    precision: Literal["float32", "bfloat16"] = "float32"
    tensorboard: bool = False
    wandb: bool = False
    mlflow: bool = False


@dataclass(frozen=True)
class Smoothing:
    """Filter of scores along a track: `median` or `gaussian`, `window` frames wide. None: chosen on validation."""

    filter: Literal["median", "gaussian"]
    window: SmoothingWindow | None


@dataclass(frozen=True)
class RowFields:
    """What recipes, ensembles and reference rows have in common.

    Attributes:
        name: file stem plus the changes from the command line: `internlstm+head=gru`.
        recipe: file stem alone.
        version: raised by the recipe's authors when its number would change.
        method: name of the row in print.
        published: method in `published.csv` that this row reproduces, or None.
        dataset: the dataset's name.
    """

    name: str
    recipe: str
    version: int
    method: str
    published: str | None
    dataset: str


@dataclass(frozen=True)
class Recipe(RowFields):
    """A resolved recipe: everything that determines a row's numbers except the data and the seeds.

    Attributes:
        backbone: `type` and arguments for `BACKBONES`.
        stands_in_for: the recipe's own backbone, if the dataset's scale replaced it; else None.
        head: `type` and arguments for `HEADS`, without `feature_dim` and `window`.
        windows: radius and strides.
        views: trained on, and averaged when scoring.
        training: optimiser settings.
        smoothing: of the scores along a track, or None.
        priors: `type` and arguments for `PRIORS`, for heads that need priors; else None.
        temporal_dropout: drop blurred neighbours from pixel windows (GazePose's Gaussian Temporal Dropout).
        augment: of pixel windows in training.
        init: where a trainable backbone starts, and the head's LSTM with it: `random`; `imagenet`; `gaze360`, an
            imported file named by `--weights`; or `renders`, shipped weights that stand in for it. None: as the
            backbone's arguments say.
        published_faults: repeat the published program's fault that shows blurred key frames of the test split as black.
        checkpoint: file of trained weights that are scored instead of training; None trains.
        limit: at most this many windows per split, spread evenly; None for all.
        changes: from the command line, as spelled in the name.
    """

    backbone: dict[str, Any]
    stands_in_for: str | None
    head: dict[str, Any]
    windows: Windows
    views: Views
    training: Training
    smoothing: Smoothing | None
    priors: dict[str, Any] | None = None
    temporal_dropout: bool = False
    augment: Augment = Augment()
    init: Init = None
    published_faults: bool = False
    checkpoint: str | None = None
    limit: int | None = None
    changes: tuple[str, ...] = ()

    @property
    def on_pixels(self) -> bool:
        """Whether the backbone trains too. Windows are then pixels, and no features are stored."""
        return self.backbone.get("frozen", True) is False

    def as_dict(self) -> dict[str, Any]:
        """Nested dictionaries and lists, ready for JSON."""
        return plain(dataclasses.asdict(self))

    def as_file(self) -> dict[str, Any]:
        """The values of a recipe file that resolves to this recipe."""
        config = self.as_dict()
        return {key: config[key] for key in RECIPE_KEYS}


# Keys of a recipe file; `--set` accepts the sections and the optional keys.
OPTIONAL_KEYS = {
    "priors": None,
    "temporal_dropout": False,
    "augment": {"flip": 0.0, "crop": None},
    "init": None,
    "published_faults": False,
}
REQUIRED_KEYS = ("version", "method", "published", "backbone", "head", "windows", "views", "training", "smoothing")
RECIPE_KEYS = (*REQUIRED_KEYS, *OPTIONAL_KEYS)
SECTIONS = {"windows": Windows, "views": Views, "training": Training, "augment": Augment, "smoothing": Smoothing}


def defaults(cls: Any) -> dict[str, Any]:
    """Default values of a section, by key."""
    return {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}


def plain(value: Any) -> Any:
    """Copy a value with tuples as lists and mappings as dictionaries, for JSON."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
