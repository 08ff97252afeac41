"""The long commands interrupted as a terminal does it: their whole process group, workers too, once and twice."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.benchmarks.features.extracting import HOME, SLOW, make_crops, names_that_differ
from tests.benchmarks.video.parts import make
from tests.conftest import TINY

pytestmark = pytest.mark.slow

RESUME = "interrupted; finished work is kept, run the same command again to resume"
TRUNK = HOME / "tests" / "parts" / "tiny_trunk.py"


def start(line: Sequence[str | Path], mark: Path, **environment: str) -> subprocess.Popen:
    """Start a command in a process group of its own; all that it starts carries the mark."""
    return subprocess.Popen(
        [*map(str, line)],
        cwd=HOME,
        env={**os.environ, "OMP_NUM_THREADS": "1", "LONG_RUN": str(mark), **environment},
        stdout=subprocess.DEVNULL,
        stderr=(mark / "stderr").open("w"),
        start_new_session=True,
        # A shell's background jobs ignore interrupts, and so does what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def alive(mark: Path) -> list[str]:
    """Command lines of the processes that carry a mark."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if f"LONG_RUN={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return [line for line in found if line]


def interrupted(
    line: Sequence[str | Path], mark: Path, when: Callable[[], object], sent: Sequence[int], **environment: str
) -> tuple[int, str]:
    """Run until `when`, send signals to the whole group: exit status and stderr; nothing of it may be left running."""
    process = start(line, mark, **environment)
    deadline = time.monotonic() + 300
    while not when() and time.monotonic() < deadline:
        assert process.poll() is None, (mark / "stderr").read_text()
        time.sleep(0.01)
    for number in sent:
        time.sleep(0.2)
        os.killpg(process.pid, number)
    process.wait(timeout=300)
    deadline = time.monotonic() + 20
    while alive(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive(mark) == []
    return process.returncode, (mark / "stderr").read_text()


def check(found: tuple[int, str], command: str, status: int) -> None:
    """One line on how to go on, at the end, on a line of its own; and no word of what went on inside."""
    assert found[0] == status, found[1]
    lines = re.split(r"[\r\n]+", found[1].rstrip())
    assert lines[-1] == f"bench.py {command}: {RESUME}"
    assert found[1].count(RESUME) == 1
    assert "Traceback" not in found[1] and "Error" not in found[1]


def undisturbed(line: Sequence[str | Path], mark: Path) -> None:
    mark.mkdir(exist_ok=True)
    process = start(line, mark)
    assert process.wait(timeout=600) == 0, (mark / "stderr").read_text()


SENT = [
    pytest.param([signal.SIGINT], 130, id="once"),
    pytest.param([signal.SIGTERM], 143, id="terminated"),
    pytest.param([signal.SIGINT, signal.SIGINT], 130, id="twice"),
]


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crops")
    make_crops(root, {"a": 60, "b": 50, "c": 60})
    return root


def extraction(crops: Path, out: Path, *options: str, delay: float = 0.0) -> list[str | Path]:
    return [
        sys.executable, "bench.py", "extract", "--images", crops, "--backbone", "slow_means", "--plugin", SLOW,
        "--device", "cpu", "--set", f"delay={delay}", "--batch-size", "4", "-o", out, *options,
    ]  # fmt: skip


@pytest.mark.parametrize(("sent", "status"), SENT)
def test_extract(crops: Path, tmp_path: Path, sent: list[int], status: int) -> None:
    store = tmp_path / "store"
    line = extraction(crops, store, delay=0.5)
    found = interrupted(line, tmp_path, lambda: list(store.glob(".*.part")), sent)
    check(found, "extract", status)
    if len(sent) == 1:
        assert json.loads((tmp_path / "store.log.jsonl").read_text())["encoded"] > 0
    undisturbed(extraction(crops, store), tmp_path)
    undisturbed(extraction(crops, tmp_path / "other"), tmp_path / "mark")
    assert names_that_differ(store, tmp_path / "other") == []


def test_extract_under_torchrun(crops: Path, tmp_path: Path) -> None:
    """torchrun passes the terminal's signal on to processes that have heard it; it says words of its own."""
    store = tmp_path / "store"
    line = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        *extraction(crops, store, delay=0.5)[1:],
    ]  # fmt: skip
    _, said = interrupted(line, tmp_path, lambda: len(list(store.glob(".*.part"))) == 2, [signal.SIGINT])
    assert said.count(f"bench.py extract: {RESUME}\n") == 1
    entries = [json.loads(entry) for entry in (tmp_path / "store.log.jsonl").read_text().splitlines()]
    assert {entry["process"] for entry in entries} == {0, 1}
    undisturbed(extraction(crops, store), tmp_path)


def test_extract_with_ray(crops: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    store = tmp_path / "store"
    line = extraction(crops, store, "--engine", "ray", delay=0.5)
    found = interrupted(line, tmp_path, lambda: list(store.glob(".*.part")), [signal.SIGTERM])
    check(found, "extract", 143)
    undisturbed(extraction(crops, store), tmp_path)


def training(tree: Path, out: Path, *options: str) -> list[str | Path]:
    return [
        sys.executable, "bench.py", "run", "--dataset", "ego4d", "--root", tree, "--device", "cpu", "--out", out,
        *options,
    ]  # fmt: skip


STRIDES = ("--set", "windows.stride.train=2", "--set", "windows.stride.val=2")


def weights_of(out: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in out.glob("trainings/*/seed*/*.safetensors")}


HEAD = (
    "--recipe", "internlstm", "--backbone", "tiny_means", "--plugin", str(TINY), "--set", "training.epochs=30",
    "--set", "head.projection=8", "--set", "head.hidden=8", "--set", "head.mlp=[8,8,8]", *STRIDES,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(lam_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("trained")
    undisturbed(training(lam_tree, out, *HEAD), out)
    return weights_of(out)


@pytest.mark.parametrize(("sent", "status"), SENT)
def test_run(lam_tree: Path, tmp_path: Path, trained: dict, sent: list[int], status: int) -> None:
    """An epoch that no checkpoint was due after is kept too, and nothing lies about but that."""
    begun = lambda: list(tmp_path.glob("trainings/*/.lock"))  # noqa: E731
    found = interrupted(training(lam_tree, tmp_path, *HEAD), tmp_path, begun, sent)
    check(found, "run", status)
    if len(sent) == 1:
        assert [path.name for path in tmp_path.glob("trainings/*/seed*/*")] == ["checkpoint.safetensors"]
    undisturbed(training(lam_tree, tmp_path, *HEAD), tmp_path)
    assert weights_of(tmp_path) == trained
    assert not [path for path in tmp_path.rglob(".*") if path.suffix in (".part", ".lock")]


PIXELS = (
    "--recipe", "gazelstm", "--backbone", "tiny_trunk", "--plugin", str(TRUNK), "--seeds", "2",
    "--set", "training.epochs=6", "--set", "training.batch_size=64", "--set", "backbone.frozen=false", *STRIDES,
)  # fmt: skip


@pytest.mark.parametrize(("sent", "status"), SENT)
def test_seeds_side_by_side(lam_tree: Path, tmp_path: Path, sent: list[int], status: int) -> None:
    """Both workers finish their epochs and end; they say nothing."""
    begun = lambda: len(list(tmp_path.glob("trainings/*/seed*/checkpoint.safetensors"))) == 2  # noqa: E731
    nap = {"TINY_TRUNK_NAP": "0.1"}
    found = interrupted(training(lam_tree, tmp_path, *PIXELS), tmp_path, begun, sent, **nap)
    check(found, "run", status)
    undisturbed(training(lam_tree, tmp_path, *PIXELS), tmp_path)
    undisturbed(training(lam_tree, tmp_path / "other", *PIXELS), tmp_path / "mark")
    assert weights_of(tmp_path) == weights_of(tmp_path / "other")


def test_workers_that_are_only_starting(lam_tree: Path, tmp_path: Path) -> None:
    """They have no handler yet when the terminal's signal reaches them."""
    begun = lambda: sum("spawn_main" in line for line in alive(tmp_path)) >= 2  # noqa: E731
    found = interrupted(training(lam_tree, tmp_path, *PIXELS), tmp_path, begun, [signal.SIGINT])
    check(found, "run", 130)


def ego4d(root: Path, frames: int, clips: int = 4) -> Path:
    """Annotations of a few clips with one track each, and their videos."""
    content = []
    for clip in (f"clip{number}" for number in range(clips)):
        make(root / "videos" / f"{clip}.mp4", frames)
        boxes = [{"frame": frame, "x": 8, "y": 8, "width": 64, "height": 64} for frame in range(1, frames + 1)]
        paths = [{"track_id": "t", "track": boxes}]
        persons = [
            {"person_id": "0", "camera_wearer": True, "tracking_paths": []},
            {"person_id": "1", "camera_wearer": False, "tracking_paths": paths},
        ]
        looks = [{"person": "1", "start_frame": 3, "end_frame": 9}]
        content.append({"clip_uid": clip, "persons": persons, "social_segments_looking": looks})
    (root / "json").mkdir()
    videos = {"videos": [{"clips": content}]}
    (root / "json" / "av_train.json").write_text(json.dumps(videos))
    return root


@pytest.mark.parametrize(("sent", "status"), SENT)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_prepare(tmp_path: Path, sent: list[int], status: int, workers: str) -> None:
    root = ego4d(tmp_path / "root", 400)
    line = [sys.executable, "bench.py", "prepare", "--root", root, "--split-lists", "official", "--workers", workers]
    found = interrupted(line, tmp_path, lambda: list(root.glob("face_imgs/*/*/face_*.jpg")), sent)
    check(found, "prepare", status)
    assert len(list(root.glob("face_imgs/*/*/face_*.jpg"))) < 4 * 400, "there was nothing to interrupt"
    undisturbed(line, tmp_path)
    assert len(list(root.glob("face_imgs/*/*/face_*.jpg"))) == 4 * 400
    assert not list(root.rglob(".*"))


@pytest.mark.parametrize(("sent", "status"), SENT)
def test_predict(tmp_path: Path, sent: list[int], status: int) -> None:
    make(tmp_path / "walk.mp4", 300)
    boxes = "".join(f"{frame},a,20,20,80,80\n" for frame in range(300))
    (tmp_path / "faces.csv").write_text("frame,track,x1,y1,x2,y2\n" + boxes)

    def line(out: Path) -> list[str | Path]:
        return [
            sys.executable, "bench.py", "predict", tmp_path / "walk.mp4", "--model", "internlstm_nano", "--device",
            "cpu", "--faces", tmp_path / "faces.csv", "-o", out,
        ]  # fmt: skip

    out = tmp_path / "out"
    seen = out / "unfinished" / "seen.jsonl"
    when = lambda: seen.exists() and seen.stat().st_size > 2000  # noqa: E731
    found = interrupted(line(out), tmp_path, when, sent)
    check(found, "predict", status)
    assert not (out / "frames.csv").exists(), "there was nothing to interrupt"
    undisturbed(line(out), tmp_path)
    undisturbed(line(tmp_path / "other"), tmp_path / "mark")
    assert names_that_differ(out, tmp_path / "other") == []


def test_two_runs_on_one_folder(lam_tree: Path, tmp_path: Path, trained: dict) -> None:
    """The second waits for what the first does, and finds it done."""
    (tmp_path / "mark").mkdir()
    runs = [start(training(lam_tree, tmp_path, *HEAD), mark) for mark in (tmp_path, tmp_path / "mark")]
    assert [run.wait(timeout=600) for run in runs] == [0, 0]
    said = (tmp_path / "stderr").read_text() + (tmp_path / "mark" / "stderr").read_text()
    assert said.count("1 training done, 0 reused") == 1
    assert weights_of(tmp_path) == trained
    assert not list(tmp_path.rglob(".lock"))
