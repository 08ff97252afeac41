"""What all rows of one command share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from benchmarks.config.files import load_dataset
from benchmarks.data.dataset import Dataset, table_sha256
from benchmarks.priors.base import Prior
from benchmarks.rows.identity import short_hash
from registry import DATASETS, PRIORS, UserError

# Share of frames without a crop above which a run says so first, and its record names the share. SynthLAM has 9 %.
MANY_ABSENT = 0.2


@dataclass(frozen=True)
class Session:
    """The dataset and the options of one command.

    Attributes:
        dataset: source of frames and crops.
        out: receives `features/`, `trainings/` and `results/<dataset>/<row>/`.
        seeds: number of seeds per row; the first is the recipe's `training.seed`. `table` for those of the table: 20
            for heads on features, which train in seconds, five for rows with a backbone that trains.
        device: torch device.
        skip_damaged: treat crops that cannot be decoded as absent, instead of stopping at the first.
        workers: trainings to run side by side on a CPU, one core each.
        plugins: loaded by worker processes too.
        rank: number of this process under torchrun, else 0.
        processes: number of processes under torchrun, else 1.
    """

    dataset: Dataset
    out: Path = Path("runs")
    seeds: int | Literal["table"] = 1
    device: str = "cpu"
    skip_damaged: bool = False
    workers: int = 1
    plugins: Sequence[str] = ()
    rank: int = 0
    processes: int = 1

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Split -> frame table."""
        return {split: self.dataset.frames(split) for split in self.dataset.splits()}

    @cached_property
    def videos(self) -> dict[str, dict[str, str]]:
        """Split -> clip -> video; empty for a split in which no video has two clips."""
        found = {}
        for split, table in self.tables.items():
            known, clips = self.dataset.videos(split), table["clip"].unique()
            of_clips = {clip: known[clip] for clip in clips if clip in known}
            found[split] = of_clips if len(set(of_clips.values())) < len(of_clips) else {}
        return found

    @cached_property
    def _priors(self) -> dict[str, Prior]:
        return {}

    @cached_property
    def split_info(self) -> dict[str, dict[str, Any]]:
        """Split -> its counts and sha256, as in a record's `dataset.splits`."""
        found: dict[str, dict[str, Any]] = {}
        for split, table in self.tables.items():
            crops = int((table["image"] != "").sum())
            absent = 1 - crops / max(1, len(table))
            found[split] = {
                "rows": len(table),
                "crops": crops,
                "labelled": int((table["label"] >= 0).sum()),
                "positives": int((table["label"] == 1).sum()),
                "clips": int(table["clip"].nunique()),
                "sha256": table_sha256(table),
                **({"absent": round(absent, 4)} if len(table) and absent > MANY_ABSENT else {}),
            }
        return found

    def dataset_info(self, name: str) -> dict[str, Any]:
        """The record's section `dataset`."""
        checksum = self.dataset.checksum()
        return {"name": name, "note": self.dataset.note, "checksum": checksum, "splits": self.split_info}

    def data_identity(self) -> str:
        """What distinguishes this data from other data: the checksum it is shipped with, else its folder."""
        return self.dataset.checksum() or str(self.dataset.root.resolve())

    def cache(self, kind: str, name: str) -> Path:
        """This dataset's folder under `out/<kind>`."""
        return self.out / kind / f"{name}-{short_hash(self.data_identity())}"

    def sharpness_cache(self, name: str) -> Path:
        """File with the sharpness of this dataset's crops."""
        return self.cache("sharpness", name).with_suffix(".npz")

    def prior(self, config: dict[str, Any], name: str) -> Prior:
        """The prior of a recipe's or a dataset's configuration; rows share it, so its files are read once."""
        key = json.dumps([config, name], sort_keys=True)
        if key not in self._priors:
            self._priors[key] = PRIORS.build({**config, "root": self.dataset.root, "cache": self.cache("priors", name)})
        return self._priors[key]

    def shipped_prior(self, name: str) -> Prior | None:
        """The prior shipped with the dataset; None if there is none, or if `--root` names a copy that may lack it."""
        config = load_dataset(name).get("priors") if self.dataset.checksum() else None
        return None if config is None else self.prior(config, name)

    def check_splits(self, name: str) -> None:
        """Check that there is data to train on and to choose epochs on.

        Raises:
            UserError: the dataset has no `train` or no `val` split.
        """
        for split in ("train", "val"):
            if split not in self.tables:
                raise UserError(f"dataset {name} has no {split} split; heads train on train and are chosen on val")


def open_dataset(name: str, root: Path | None) -> Dataset:
    """Open a dataset by name or as the path of its file; errors as in `load_dataset`, and of the dataset itself.

    Args:
        name: see `load_dataset`.
        root: its folder; None for a dataset that is shipped.
    """
    dataset: Dataset = DATASETS.get(load_dataset(name)["type"])(root)
    return dataset
