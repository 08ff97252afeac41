"""An extraction killed at any moment gives the same bytes as an undisturbed one, and repeats little work."""

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tqdm import tqdm

from benchmarks.features import encoding
from benchmarks.features.extract import ExtractOptions, extract, fingerprint_of
from benchmarks.features.store import FeatureStore
from registry import BACKBONES
from tests.benchmarks.features.extracting import HOME, SLOW, make_crops, names_that_differ, stop_after

CLIPS = {"a": 23, "b": 5, "c": 1, "d": 17}
WORKERS, BATCH = 1, 4


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    root = tmp_path_factory.mktemp("crops")
    images = make_crops(root, CLIPS)
    (root / images[3]).write_bytes(b"no picture")
    return root, {"original": images, "flipped": images[2:40]}


def go(crops: tuple[Path, dict[str, list[str]]], folder: Path, delay: float = 0.0) -> int:
    """Extract; returns the number of features computed."""
    backbone = BACKBONES.build(dict(type="slow_means", delay=delay))
    store = FeatureStore(folder, backbone.fingerprint())
    return extract(backbone, *crops, store, ExtractOptions(batch_size=BATCH, skip_damaged=True)).encoded


@pytest.fixture(scope="module")
def undisturbed(crops: tuple, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    assert go(crops, folder) == 46 - 1 + 38 - 1
    return folder


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process; returns its id."""
    child = os.fork()
    if not child:
        tqdm.set_lock(threading.RLock())  # its own is shared with the parent, and would be held by the dead
        try:
            work()
        finally:
            os._exit(0)
    return child


def test_killed_at_random_moments(crops: tuple, undisturbed: Path, tmp_path: Path) -> None:
    """Some kills come before the first byte, some while the last files are written."""
    moments = random.Random(0)
    folder = tmp_path / "store"
    killed = 0
    while killed < 30:
        child = in_child(lambda: go(crops, folder, delay=0.002))
        time.sleep(moments.uniform(0.0, 0.05))
        os.kill(child, signal.SIGKILL)
        if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
            killed += 1
        else:
            assert names_that_differ(folder, undisturbed) == []
            shutil.rmtree(folder)
    go(crops, folder)
    assert names_that_differ(folder, undisturbed) == []


@pytest.mark.parametrize("stop", ["journal", "between the views", "before the journal goes", "before the manifest"])
def test_killed_between_two_file_operations(
    crops: tuple, undisturbed: Path, tmp_path: Path, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def killed() -> None:
        if stop == "journal":
            write_at = os.pwrite
            monkeypatch.setattr(
                os, "pwrite", lambda *of: die() if bytes(of[1]).startswith(b'{"end":true') else write_at(*of)
            )
        elif stop == "between the views":
            write = FeatureStore.write
            monkeypatch.setattr(FeatureStore, "write", lambda *of: die() if of[1] == "original" else write(*of))
        elif stop == "before the journal goes":
            monkeypatch.setattr(Path, "unlink", die)
        else:
            monkeypatch.setattr(FeatureStore, "finish", die)
        go(crops, folder)

    assert os.WIFSIGNALED(os.waitpid(in_child(killed), 0)[1])
    assert names_that_differ(folder, undisturbed)
    go(crops, folder)
    assert names_that_differ(folder, undisturbed) == []


def test_a_journal_cut_at_any_byte(
    crops: tuple, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All batches before the one that is cut are used."""
    folder = tmp_path / "store"
    kept = stop_after(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        go(crops, folder)
    monkeypatch.undo()
    journal = (folder / ".a.part").read_bytes()
    lengths = range(0, len(journal), 61)
    done = []
    for length in lengths:
        copy = tmp_path / f"cut{length}"
        shutil.copytree(folder, copy)
        (copy / ".a.part").write_bytes(journal[:length])
        done.append(go(crops, copy))
        assert names_that_differ(copy, undisturbed) == []
        shutil.rmtree(copy)
    total = 46 - 1 + 38 - 1
    assert done[0] == total
    assert done == sorted(done, reverse=True)
    assert min(done) <= total - sum(kept) + BATCH


def test_at_most_one_batch_is_computed_twice(crops: tuple, tmp_path: Path) -> None:
    """The trace counts the features computed before the kill."""
    folder, trace = tmp_path / "store", tmp_path / "trace"

    def traced() -> None:
        encode = encoding.Encoding.__call__

        def call(self: encoding.Encoding, pixels: object) -> object:
            computed = encode(self, pixels)
            with trace.open("a") as file:
                file.write(f"{len(pixels)}\n")
            return computed

        encoding.Encoding.__call__ = call
        go(crops, folder, delay=0.01)

    child = in_child(traced)
    while not trace.exists() or len(trace.read_text().split()) < 6:
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    computed = sum(map(int, trace.read_text().split()))
    assert go(crops, folder) <= (46 - 1 + 38 - 1) - computed + WORKERS * BATCH


def test_two_processes_share_a_store(crops: tuple, undisturbed: Path, tmp_path: Path) -> None:
    """Nothing is computed twice, and if one process is killed, the other finishes its clips."""
    folder = tmp_path / "store"
    children = [in_child(lambda: go(crops, folder, delay=0.02)) for _ in range(2)]
    for child in children:
        os.waitpid(child, 0)
    assert names_that_differ(folder, undisturbed) == []
    # A process has a line if it computed something: on a busy machine one may be done before the other begins.
    lines = [json.loads(line) for line in folder.with_name("store.log.jsonl").read_text().splitlines()]
    assert sum(line["encoded"] for line in lines) == 46 - 1 + 38 - 1

    shutil.rmtree(folder)
    children = [in_child(lambda: go(crops, folder, delay=0.02)) for _ in range(2)]
    while not list(folder.glob(".*.part")):
        time.sleep(0.001)
    os.kill(children[0], signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    assert names_that_differ(folder, undisturbed) == []


def command(root: Path, out: Path, *options: str, delay: float) -> list[str]:
    return [
        "bench.py", "extract", "--images", str(root), "--backbone", "slow_means", "--plugin", str(SLOW),
        "--device", "cpu", "--set", f"delay={delay}", "--batch-size", str(BATCH), "--skip-damaged",
        "-o", str(out), *options,
    ]  # fmt: skip


def both_views(root: Path, out: Path) -> None:
    """Extract both views of all crops without disturbance."""
    backbone = BACKBONES.build(dict(type="slow_means"))
    images = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    store = FeatureStore(out, fingerprint_of(backbone))
    extract(backbone, root, dict.fromkeys(("original", "flipped"), images), store, ExtractOptions(skip_damaged=True))


@pytest.mark.slow
def test_the_command_line_killed(crops: tuple, tmp_path: Path) -> None:
    moments = random.Random(0)
    line = [sys.executable, *command(crops[0], tmp_path / "store", "--views", "original,flipped", delay=0.03)]
    for kill in range(12):
        process = subprocess.Popen(line, cwd=HOME, stderr=subprocess.DEVNULL)
        while kill == 0 and process.poll() is None and not list((tmp_path / "store").glob(".*.part")):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5) if kill == 0 else moments.uniform(0, 5))
        process.kill()
        process.wait()
    done = subprocess.run(line, cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"1 damaged, in {tmp_path / 'store'}\n")
    both_views(crops[0], tmp_path / "undisturbed")
    assert names_that_differ(tmp_path / "store", tmp_path / "undisturbed") == []


def test_one_interrupt_keeps_the_running_batches(crops: tuple, tmp_path: Path) -> None:
    line = [sys.executable, *command(crops[0], tmp_path / "store", delay=0.2)]
    # A shell's background jobs ignore interrupts, and so does what they start.
    default_handler = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(line, cwd=HOME, stderr=subprocess.PIPE, text=True, preexec_fn=default_handler)
    while not list((tmp_path / "store").glob(".*.part")):
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert errors.count("\n") == 1
    assert "run the same command again to resume" in errors
    assert json.loads((tmp_path / "store.log.jsonl").read_text())["encoded"] > 0
