"""A row of the table within one session: its key frames, its identity, and its folder."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backbones.checksums import file_sha256
from benchmarks.config.ensemble import Ensemble, RowConfig, recipes_of
from benchmarks.config.recipe import Recipe
from benchmarks.config.reference import Reference
from benchmarks.data.dataset import table_sha256
from benchmarks.data.frames import KEY
from benchmarks.data.windows import KeyFrames, key_frames, windows
from benchmarks.pipeline.session import Session
from benchmarks.pixels.properties import frame_properties
from benchmarks.priors.base import Prior, lacking
from benchmarks.rows import identity, provenance, schema
from benchmarks.rows.folder import result_folder, write_row_sums
from benchmarks.rows.record import FITTING_FILE, RowContext, RowScores, make_record, write_row
from benchmarks.scoring.smooth import FITTING, split_of
from benchmarks.system.device import deterministic, device_name
from benchmarks.system.locks import NAME, locked
from benchmarks.system.progress import say
from registry import UserError
from zoo.files.checksums import NAME as SUMS
from zoo.files.checksums import damaged

# Weights up to this size are hashed again before a finished row is reused; 200 MB take 0.2 s.
_RECHECKED_BYTES = 200_000_000

REFERENCE_SEEDS = [0]  # a reference row has one set of scores; prediction files name it seed 0


class Row(ABC):
    """One row of the table on a session's dataset: found finished, or computed and kept.

    Args:
        recipe: resolved.
        session: shared by all rows of the command.
    """

    def __init__(self, recipe: RowConfig, session: Session) -> None:
        self.recipe = recipe
        self.session = session
        self.name = recipe.name
        self.folder: Path = result_folder(session.out, recipe)
        self._stamp = -1  # modification time of the record at the last look
        self._result: schema.Result | None = None

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What a finished row must share with this one to be reused."""

    @property
    @abstractmethod
    def prior(self) -> Prior | None:
        """Source of head poses and landmarks, or None."""

    @property
    def strides(self) -> dict[str, int]:
        """Split -> frames between two key frames of a track. An ensemble scores the key frames its members share."""
        strides = [recipe.windows.stride for recipe in recipes_of([self.recipe])]
        return {split: math.lcm(*(getattr(stride, split) for stride in strides)) for split in self.session.tables}

    @cached_property
    def dataset_info(self) -> dict[str, Any]:
        """The record's section `dataset`."""
        return self.session.dataset_info(self.recipe.dataset)

    @property
    def seed_count(self) -> int:
        """Number of seeds asked for."""
        if self.session.seeds != "table":
            return self.session.seeds
        return 5 if any(recipe.on_pixels for recipe in recipes_of([self.recipe])) else 20

    def seeds(self) -> list[int]:
        """Seeds to train: those asked for, and those that the row's folder has already."""
        asked = self._asked_seeds()
        return sorted({*asked, *_seeds_in(self.folder)}) if (self.folder / "result.json").exists() else asked

    def find(self) -> schema.Result | None:
        """The row's record, if it is there with this identity and at least the seeds asked for.

        Raises:
            UserError: the folder holds a row of another identity, or its record cannot be read.
        """
        stamp = self._record_stamp()
        # Processes that train together must agree, so they do not look again.
        if self._stamp < 0 or (stamp != self._stamp and self.session.processes == 1):
            self._stamp, self._result = stamp, self._read() if stamp else None
        return self._result

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the row's folder; waits for another command that holds it."""
        if self.session.rank > 0:  # the first process holds it for all
            yield
            return
        with locked(self.folder / NAME, str(self.folder), wait=True):
            yield

    def keep(self, scores: RowScores) -> schema.Result:
        """Compute the row's figures from its scores, and write its folder."""
        session = self.session
        context = RowContext(
            identity=self.identity,
            dataset_info=self.dataset_info,
            tables=session.tables,
            strides=self.strides,
            videos=session.videos,
            frame_properties=self._frame_properties(scores.key_frames),
            environment={
                **provenance.environment(device_name(session.device)),
                "deterministic": deterministic(session.device),
            },
        )
        result = make_record(self.recipe, scores, context)
        write_row(self.folder, self.recipe, result, scores, session.tables)
        self._stamp, self._result = self._record_stamp(), result
        return result

    def _frame_properties(self, key_frames: Mapping[str, KeyFrames]) -> dict[str, dict[str, np.ndarray]]:
        session, name = self.session, self.recipe.dataset
        prior = self.prior or session.shipped_prior(name)
        return frame_properties(session.dataset.root, session.tables, key_frames, session.sharpness_cache(name), prior)

    def _lacks_files(self) -> bool:
        """Whether the row's folder lacks files that this session needs."""
        return False

    def _asked_seeds(self) -> list[int]:
        first = recipes_of([self.recipe])[0].training.seed
        return list(range(first, first + self.seed_count))

    def _record_stamp(self) -> int:
        """Modification time of the record in nanoseconds; 0 if there is none."""
        try:
            return (self.folder / "result.json").stat().st_mtime_ns
        except OSError:
            return 0

    def _read(self) -> schema.Result | None:
        spoilt = damaged(self.folder, "result.json")
        if spoilt:
            say(f"damaged in {self.folder}: {', '.join(spoilt)}; computing the row again")
            if {SUMS, "result.json"} & {*spoilt}:  # its identity cannot be trusted
                return None
        found = schema.read_result(self.folder / "result.json")
        differs = identity.first_difference(found["settings"], self.identity)
        if differs is None and isinstance(self.recipe, Recipe):  # an ensemble's members check their own weights
            differs = _changed_weights(found)
        if differs:
            raise UserError(
                f"run folder {self.folder} comes from other settings ({differs}); delete it, or use another --out DIR"
            )
        if spoilt or found["counts"]["damaged"] and not self.session.skip_damaged or found["diagnosis"] is None:
            return None
        if not {*self._asked_seeds()} <= {*found["seeds"]} or self._lacks_files():
            return None
        if not (self.folder / SUMS).exists():  # written by an older version, or killed just before writing them
            try:
                write_row_sums(self.folder)
            except OSError as error:
                say(f"damaged: {error.filename} {error.strerror}; computing the row again")
                return None
        return found


class KeyFrameRow(Row):
    """A row that scores key frames of its own, of a recipe or a reference."""

    recipe: Recipe | Reference

    @cached_property
    def key_frames(self) -> dict[str, KeyFrames]:
        """Split -> key frames and the windows around them."""
        return {split: _choose_key_frames(self.recipe, split, table) for split, table in self.session.tables.items()}

    @cached_property
    def prior(self) -> Prior | None:
        """The prior that the recipe names."""
        config = self.recipe.priors
        return None if config is None else self.session.prior(config, self.recipe.dataset)


class RecipeRow(KeyFrameRow):
    """The row of a recipe.

    Args:
        recipe: resolved.
        session: shared by all rows of the command.
        is_member: whether an ensemble needs its scores on the `fitting` key frames.
    """

    recipe: Recipe

    def __init__(self, recipe: Recipe, session: Session, is_member: bool = False) -> None:
        super().__init__(recipe, session)
        self.is_member = is_member

    @cached_property
    def fitting(self) -> KeyFrames | None:
        """Validation key frames at the stride of test, if smoothing or an ensemble is fitted on them.

        None if nothing is fitted, or if the row's own validation key frames serve: they have the stride of test, or
        `--limit` chose them.
        """
        stride = self.recipe.windows.stride
        if not self._fits or stride.val == stride.test:
            return None
        table = self.session.tables["val"]
        chosen = key_frames(table, stride.test)
        centres = np.flatnonzero(chosen)
        labels = table["label"].to_numpy()[centres]
        return KeyFrames(rows=windows(table, self.recipe.windows.radius, chosen), centres=centres, labels=labels)

    def check_strides(self) -> None:
        """Check that validation can be scored at the stride of test, if something is fitted on it."""
        stride = self.recipe.windows.stride
        if self._fits and stride.val % stride.test:
            raise UserError(
                f"{self.name}: smoothing and ensembles are fitted on validation at the stride of test, so "
                f"windows.stride.val, {stride.val}, must be a multiple of windows.stride.test, {stride.test}"
            )

    @property
    def _fits(self) -> bool:
        fits = self.is_member or self.recipe.smoothing is not None
        return fits and self.recipe.limit is None

    @property
    def scored(self) -> dict[str, KeyFrames]:
        """The key frames to score: those of each split, and `FITTING` if there is."""
        return self.key_frames if self.fitting is None else {**self.key_frames, FITTING: self.fitting}

    def touched(self, split: str) -> list[KeyFrames]:
        """All key frames of one split, in which a frame may be part of a window."""
        return [each for name, each in self.scored.items() if split_of(name) == split]

    def _lacks_files(self) -> bool:
        return self.fitting is not None and not (self.folder / FITTING_FILE).exists()

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Configuration, data, priors and versions of the code."""
        return identity.recipe_identity(self.recipe, self.dataset_info, self.prior)


class ReferenceRow(KeyFrameRow):
    """The row of a floor or ceiling, scored from the frames' angles without training."""

    recipe: Reference

    @property
    def strides(self) -> dict[str, int]:
        """Split -> frames between two key frames of a track."""
        return {split: getattr(self.recipe.windows.stride, split) for split in self.session.tables}

    @cached_property
    def truth(self) -> pd.DataFrame | None:
        """The dataset's true angles, if these are the scores."""
        return self.session.dataset.truth() if self.recipe.scorer == "truth" else None

    def check_source(self) -> None:
        """Check that the angles behind the scores are known.

        Raises:
            UserError: no prior is named, or the dataset does not know the true angles.
        """
        if self.recipe.scorer == "pose_prior" and self.recipe.priors is None:
            raise lacking(self.name, ["head pose"])
        if self.recipe.scorer == "truth" and self.truth is None:
            raise UserError(f"recipe {self.name} needs true gaze angles, which dataset {self.recipe.dataset} lacks")

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Configuration, data, source of the scores and versions of the code."""
        source: dict[str, Any] = {} if self.prior is None else {"priors": self.prior.fingerprint()}
        if self.truth is not None:
            source["truth"] = table_sha256(self.truth[[*KEY, "gaze_angle"]])
        return identity.reference_identity(self.recipe, self.dataset_info, source)

    def _frame_properties(self, key_frames: Mapping[str, KeyFrames]) -> dict[str, dict[str, np.ndarray]]:
        """Head yaw alone. Sharpness needs the crops, which nothing else of this row opens."""
        session = self.session
        prior = self.prior or session.shipped_prior(self.recipe.dataset)
        return frame_properties(session.dataset.root, session.tables, key_frames, None, prior)

    def _asked_seeds(self) -> list[int]:
        return REFERENCE_SEEDS


class EnsembleRow(Row):
    """The row of an ensemble, made from the rows of its members."""

    recipe: Ensemble

    def __init__(self, recipe: Ensemble, session: Session, members: Sequence[RecipeRow]) -> None:
        super().__init__(recipe, session)
        self.members = members

    @property
    def prior(self) -> Prior | None:
        """The prior of the first member that has one."""
        return next((member.prior for member in self.members if member.prior is not None), None)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Configuration, and the identities of the members."""
        return identity.ensemble_identity(self.recipe, {member.name: member.identity for member in self.members})


def rows_of(
    recipes: Sequence[RowConfig], session: Session
) -> tuple[list[RecipeRow], list[EnsembleRow], list[ReferenceRow]]:
    """The rows of recipes, ensembles' members included, each once; those of ensembles; and those of references.

    Raises:
        UserError: two different recipes have the same name.
    """
    names = [recipe.name for recipe in recipes]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two recipes are called {name}; rename the file of one of them")
    members = {member.name for recipe in recipes if isinstance(recipe, Ensemble) for member in recipe.members}
    rows = {recipe.name: RecipeRow(recipe, session, recipe.name in members) for recipe in recipes_of(recipes)}
    ensembles = [
        EnsembleRow(recipe, session, [rows[member.name] for member in recipe.members])
        for recipe in recipes
        if isinstance(recipe, Ensemble)
    ]
    references = [ReferenceRow(recipe, session) for recipe in recipes if isinstance(recipe, Reference)]
    return list(rows.values()), ensembles, references


def _choose_key_frames(recipe: Recipe | Reference, split: str, table: pd.DataFrame) -> KeyFrames:
    """Choose the key frames of one split and find the frames of their windows."""
    chosen = key_frames(table, getattr(recipe.windows.stride, split))
    labels = table["label"].to_numpy()
    if split == "train":
        # The published programs also train on windows whose key frame has no crop, as zeros. They teach nothing.
        chosen &= (labels >= 0) & (table["image"] != "").to_numpy(dtype=bool)
        chosen &= isinstance(recipe, Recipe) and recipe.checkpoint is None  # else nothing is trained
    if recipe.limit is not None:
        rows = np.flatnonzero(chosen)
        rows = rows[np.linspace(0, len(rows) - 1, min(recipe.limit, len(rows))).round().astype(np.int64)]
        chosen = np.zeros(len(table), dtype=bool)
        chosen[rows] = True
    centres = np.flatnonzero(chosen)
    return KeyFrames(rows=windows(table, recipe.windows.radius, chosen), centres=centres, labels=labels[centres])


def _changed_weights(found: schema.Result) -> str | None:
    """How the backbone's weights differ from those of a record, by sha256; None if they are equal or unavailable."""
    weights, named = found["backbone"]["weights"], found["config"]["backbone"].get("weights")
    if weights["file"] is None and named is None:
        return None
    path = provenance.HOME / weights["file"] if weights["file"] is not None else Path(named)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path] if path.is_file() else []
    if not files or sum(file.stat().st_size for file in files) > _RECHECKED_BYTES:
        return None
    sha256 = file_sha256(*files)
    return None if sha256 == weights["sha256"] else f"weights {path}: sha256 {weights['sha256']} there, {sha256} now"


def _seeds_in(folder: Path) -> list[int]:
    """Seeds of an earlier run of a row, even if its record is damaged."""
    if {SUMS, "result.json"} & {*damaged(folder, "result.json")}:
        names = (path.name.removeprefix("seed") for path in folder.glob("seed*"))
        return [int(name) for name in names if name.isdecimal()]
    return schema.read_result(folder / "result.json")["seeds"]
