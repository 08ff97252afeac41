"""With shuffled training labels every recipe must fall to chance: nothing but the labels may tell it who looks."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.config.ensemble import Ensemble, resolve_row
from benchmarks.config.files import kind_of, recipe_names
from benchmarks.config.recipe import Recipe
from benchmarks.config.resolve import resolve
from benchmarks.data.dataset import SynthLAM
from benchmarks.pipeline import run as pipeline
from benchmarks.pipeline.session import Session
from registry import load_plugin

TRUNK = Path(__file__).resolve().parents[2] / "parts" / "tiny_trunk.py"

# Chance: a ranking that knows nothing has precision p for looking and 1 - p for not looking at every recall, so both
# average precisions together come to 1/2. The test split has 470 looks: a ranking that knows no more than whose clip a
# frame is of strays by about 0.05 from that, the mean of three by 0.03.
CHANCE = 0.5
SLACK = 0.1
SHUFFLES = 3


class Shuffled(SynthLAM):
    """SynthLAM with the labels of train and val permuted."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def frames(self, split: str) -> pd.DataFrame:
        table = super().frames(split)
        if split == "test":
            return table
        return table.assign(label=np.random.default_rng(self.seed).permutation(table["label"].to_numpy()))


def map_after_shuffling(row: Recipe | Ensemble, out: Path) -> float:
    """Mean over several shuffles; the features are shared."""
    figures = []
    for seed in range(SHUFFLES):
        result = pipeline.run([row], Session(Shuffled(seed), out=out))[0]
        figures.append(result["splits"]["test"]["metrics"]["mAP"]["mean"])
        shutil.rmtree(out / "results")  # the next shuffle has other settings under the same names
    return float(np.mean(figures))


def small(name: str) -> Recipe:
    """Backbones replaced by mean colours, which see the picture and cost nothing; those that train by a small one."""
    if resolve(name).on_pixels:
        # Sharpness is of all crops of the data set: that alone would take longer than everything else here. And pixels
        # are decoded again each time: fewer windows.
        settings = ["backbone.frozen=false", "temporal_dropout=false", "training.batch_size=64", "training.epochs=2"]
        return resolve(name, backbone="tiny_trunk", limit=200, settings=settings)
    return resolve(name, backbone="tiny_means", limit=500, settings=["training.epochs=4"])


@pytest.fixture(scope="module", autouse=True)
def _tiny_trunk() -> None:
    load_plugin(TRUNK)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all recipes, so that features are computed once."""
    return tmp_path_factory.mktemp("runs")


# Floors and ceilings learn nothing from labels.
TRAINED = [name for name in recipe_names() if kind_of(name) != "reference"]

# By default the fastest; the others take the same ways.
WAYS = ("probe",)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in WAYS else pytest.mark.slow) for name in TRAINED]
)
def test_without_labels_there_is_only_chance(name: str, out: Path) -> None:
    row = resolve_row(name)
    if isinstance(row, Ensemble):  # of rows whose windows are the same
        members = tuple(small(each) for each in ("internlstm_flip_tta", "probe"))
        row = dataclasses.replace(row, members=members)
    else:
        row = small(name)
    assert map_after_shuffling(row, out) == pytest.approx(CHANCE, abs=SLACK)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_without_labels_there_is_only_chance_at_full_scale(name: str, out: Path) -> None:
    assert map_after_shuffling(resolve_row(name), out) == pytest.approx(CHANCE, abs=SLACK)
