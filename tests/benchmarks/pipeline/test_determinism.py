"""Same seed, same machine: the same bytes of features, weights and predictions, whatever else differs between two runs.

All recipes together, on all cores, are what each recipe's own run is held against. That one has another order of hash
tables, another working directory, one core, so one thread and one seed after another, and finds nothing that another
recipe left behind.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from benchmarks.config.files import kind_of, recipe_names
from benchmarks.system.cores import cores
from tests.conftest import HOME
from tests.faults.compare import timeless

pytestmark = pytest.mark.slow

SEEDS = ("3407", "3408")
SMALL = ("--limit", "24", "--set", "training.epochs=1")
TRAINED = [name for name in recipe_names() if kind_of(name) != "reference"]

# Heads on features train side by side from 500 steps on: 16 epochs of 64 windows, two at once, are 512.
LONG = ("--limit", "32", "--set", "training.batch_size=2", "--set", "training.epochs=16")
SEQUENCES = ("internlstm_flip_tta", "interngru_flip_tta", "interntransformer_flip_tta")


def run_together(recipes: Sequence[str], options: Sequence[str], out: Path) -> Path:
    """On all cores, with a thread each and two at least, from the folder of the code; the last recipe first."""
    _run(recipes[::-1], options, out, HOME, PYTHONHASHSEED="0", OMP_NUM_THREADS=str(max(2, cores())))
    return out


def run_alone(recipe: str, options: Sequence[str], out: Path) -> Path:
    """On one core, from a folder elsewhere."""
    core = min(os.sched_getaffinity(0))
    _run([recipe], options, out, out.parent, core, PYTHONHASHSEED="4711", OMP_NUM_THREADS="1")
    return out


def _run(
    recipes: Sequence[str], options: Sequence[str], out: Path, cwd: Path, core: int | None = None, **environment: str
) -> None:
    what = ["--recipe", ",".join(recipes), "--seeds", str(len(SEEDS)), *options, "--device", "cpu", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, str(HOME / "bench.py"), *what],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def files_of(out: Path) -> dict[str, bytes]:
    """Results and trainings, weights among them, by their path; times left out."""
    found = sorted(path for folder in ("results", "trainings") for path in (out / folder).rglob("*") if path.is_file())
    return {path.relative_to(out).as_posix(): timeless(path) for path in found}


def vectors_of(out: Path) -> dict[tuple[str, str], bytes]:
    """Features by shard and image: a store that serves several recipes holds more than one that serves one."""
    found = {}
    for path in sorted((out / "features").rglob("*.safetensors")):
        with safe_open(path, "numpy") as file:
            vectors = np.asarray(file.get_tensor("features"))
            keys = json.loads(file.metadata()["keys"])
        shard = path.relative_to(out).as_posix()
        found |= {(shard, key): vector.tobytes() for key, vector in zip(keys, vectors, strict=True)}
    return found


def check_same(alone: Path, together: Path) -> None:
    own, all_files = files_of(alone), files_of(together)
    assert any(name.endswith("predictions.csv") for name in own)
    assert {seed for seed in SEEDS for name in own if f"/seed{seed}/" in name} == set(SEEDS)
    assert [name for name, content in own.items() if all_files.get(name) != content] == []
    own_vectors, all_vectors = vectors_of(alone), vectors_of(together)
    assert [place for place, vector in own_vectors.items() if all_vectors.get(place) != vector] == []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_together(TRAINED, SMALL, tmp_path_factory.mktemp("small") / "runs")


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_together(SEQUENCES, LONG, tmp_path_factory.mktemp("long") / "runs")


@pytest.mark.parametrize("recipe", TRAINED)
def test_a_recipe_alone_comes_to_the_bytes_of_all_together(recipe: str, small: Path, tmp_path: Path) -> None:
    check_same(run_alone(recipe, SMALL, tmp_path / "own"), small)


@pytest.mark.parametrize("recipe", SEQUENCES)
def test_seeds_one_after_another_come_to_the_bytes_of_seeds_side_by_side(
    recipe: str, long: Path, tmp_path: Path
) -> None:
    check_same(run_alone(recipe, LONG, tmp_path / "own"), long)


def test_a_head_on_all_cores_comes_to_the_same_bytes_twice(tmp_path: Path) -> None:
    """Of two million parameters or more; its bytes depend on the number of threads, and on nothing else."""
    large = (*SMALL, "--set", "head.projection=512", "--set", "head.hidden=512")
    check_same(*(run_together(["internlstm"], large, tmp_path / name) for name in ("one", "other")))
