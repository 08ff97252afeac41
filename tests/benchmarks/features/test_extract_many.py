"""Several processes, under torchrun or Ray, give the same bytes as one process, even if one of them is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.config.resolve import resolve
from benchmarks.data.dataset import Ego4D
from benchmarks.pipeline.row import rows_of
from benchmarks.pipeline.session import Session
from benchmarks.pipeline.sources import encode_missing, plan_features
from tests.benchmarks.features.extracting import HOME, make_crops, names_that_differ
from tests.benchmarks.features.test_extract_kill import both_views, command
from tests.conftest import RAY_WORKERS, TINY, exit_status

CLIPS = {"a": 40, "b": 9, "c": 1, "d": 33, "e": 28, "f": 30}
COUNT = 2 * sum(CLIPS.values())


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crops")
    make_crops(root, CLIPS)
    return root


@pytest.fixture(scope="module")
def undisturbed(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "store"
    both_views(crops, folder)
    return folder


def start(line: list[str], **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *line],
        cwd=HOME,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def logged(store: Path) -> list[dict]:
    return [json.loads(line) for line in store.with_name("store.log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kill", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["killed", "both live"])
def test_two_ranks(crops: Path, undisturbed: Path, tmp_path: Path, kill: bool) -> None:
    """Sets torchrun's environment without torchrun, which would restart both processes after a kill."""
    line = command(crops, tmp_path / "store", "--views", "original,flipped", delay=0.02)
    ranks = [start(line, RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2") for rank in (0, 1)]
    if kill:
        while ranks[1].poll() is None and not list((tmp_path / "store").glob(".*.part")):
            time.sleep(0.01)
        ranks[1].kill()
    output = [rank.communicate(timeout=120) for rank in ranks]
    assert ranks[0].returncode == 0, output[0][1]
    assert output[0][0].count("\n") == 1
    assert "computed by this process" in output[0][0]
    assert names_that_differ(tmp_path / "store", undisturbed) == []
    if not kill:
        assert ranks[1].returncode == 0, output[1][1]
        assert output[1][0] == ""
        assert sum(entry["encoded"] for entry in logged(tmp_path / "store")) == COUNT
        assert {entry["process"] for entry in logged(tmp_path / "store")} == {0, 1}


@pytest.mark.slow
def test_torchrun(crops: Path, undisturbed: Path, tmp_path: Path) -> None:
    """After a kill torchrun restarts both processes, and they resume from the journals."""
    line = command(crops, tmp_path / "store", "--views", "original,flipped", delay=0.1)
    run = start(["-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=3", *line])
    while run.poll() is None and len(list((tmp_path / "store").glob(".*.part"))) < 2:
        time.sleep(0.01)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    workers = [int(child) for child in children if b"bench.py" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    output, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert output.count("\n") == 1
    assert names_that_differ(tmp_path / "store", undisturbed) == []


@pytest.mark.slow
def test_ray(crops: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Ray replaces a killed actor."""
    pytest.importorskip("ray")
    line = command(crops, tmp_path / "store", "--views", "original,flipped", "--engine", "ray", delay=0.1)
    run = start(line, LAMZOO_RAY_TEST=str(tmp_path))
    while run.poll() is None and not list((tmp_path / "store").glob(".*.part")):
        time.sleep(0.05)
    actors = []
    for process in Path("/proc").iterdir():
        try:
            ours = f"LAMZOO_RAY_TEST={tmp_path}".encode() in (process / "environ").read_bytes().split(b"\0")
            name = (process / "cmdline").read_bytes()
            if ours and name.startswith(RAY_WORKERS):
                actors.append(int(process.name))
        except OSError:
            continue
    assert actors
    os.kill(actors[0], signal.SIGKILL)
    output, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert output.count("\n") == 1
    assert names_that_differ(tmp_path / "store", undisturbed) == []


def test_missing_ray_is_reported_with_its_installation(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bench

    monkeypatch.setitem(sys.modules, "ray", None)
    assert bench.main(command(crops, tmp_path / "store", "--engine", "ray", delay=0)[1:]) == 2


def test_run_reuses_features_extracted_for_its_recipes(
    lam_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import bench

    common = ["--dataset", "ego4d", "--root", str(lam_tree), "--plugin", str(TINY), "--backbone", "tiny_means"]
    stride = ["--set", "windows.stride.train=13", "--set", "windows.stride.val=13"]
    recipes = "internlstm,internlstm_flip_tta"
    assert bench.main(["extract", "--recipe", recipes, *common, *stride, "--out", str(tmp_path)]) == 0
    # 22 frames of 24 have a crop. Key frames are 1 and 14: windows touch 1 to 4 and 11 to 17, of which 4 and 17 are
    # absent, so 9 frames. Training and its views: 6 clips; validation original for the choice of the epoch: 4 clips,
    # flipped too, since tta reads it; test has stride 1: all 22 frames of 4 clips, both views.
    expected = 2 * (6 * 9 + 4 * 9 + 4 * 22)
    assert capsys.readouterr().out == f"{expected} computed, 0 reused, 0 damaged, in {tmp_path}\n"
    rows = [
        resolve(name, "ego4d", backbone="tiny_means", settings=["windows.stride.train=13", "windows.stride.val=13"])
        for name in recipes.split(",")
    ]
    session = Session(Ego4D(lam_tree), out=tmp_path)
    done = encode_missing(plan_features(rows_of(rows, session)[0], "cpu"), session)
    assert (done.encoded, done.reused) == (0, expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", "x", "--recipe", "probe"], "not allowed with"),
        ([], "one of the arguments --images --recipe is required"),
        (["--recipe", "probe", "--dtype", "bfloat16"], "--dtype goes with --images"),
        (["--recipe", "probe", "--views", "flipped"], "--views goes with --images"),
        (["--images", ".", "--root", "x"], "--root goes with --recipe"),
        (["--images", "."], "--images needs --backbone NAME and -o STORE"),
    ],
)
def test_incompatible_options(arguments: list[str], words: str, capsys: pytest.CaptureFixture) -> None:
    assert exit_status(["extract", *arguments]) == 2
    assert words in capsys.readouterr().err
