"""Links, pipes and devices under the names that a run reads and writes: nothing outside is written, nothing hangs."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from benchmarks.config.recipe import Recipe
from benchmarks.config.resolve import resolve
from benchmarks.data.dataset import Ego4D
from benchmarks.pipeline import run as pipeline
from benchmarks.pipeline.session import Session
from registry import UserError

SENTINEL = b"a file of somebody else's\n"
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def row() -> Recipe:
    settings = ["windows.stride.train=6", "windows.stride.val=6", "training.epochs=1", "head.hidden=4", "head.mlp=[4]"]
    return resolve("internlstm", "ego4d", backbone="tiny_means", settings=[*settings, "head.projection=4"])


def run(tree: Path, out: Path) -> None:
    pipeline.run([row()], Session(Ego4D(tree), out=out))


class Recorder:
    """Records the paths below a folder that this process opens for writing, as an audit hook."""

    def __init__(self) -> None:
        self.folder = ""
        self.names: set[str] = set()
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open" and self.folder and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.fsdecode(arguments[0])
            if path.startswith(self.folder) and arguments[2] is not None and arguments[2] & WRITES:
                self.names.add(os.path.relpath(path, self.folder))


@pytest.fixture(scope="module")
def finished(lam_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """The output folder of a run, and every name below it that the run opened for writing."""
    out = tmp_path_factory.mktemp("finished") / "runs"
    recorder = Recorder()
    recorder.folder = f"{out}{os.sep}"
    try:
        run(lam_tree, out)
    finally:
        recorder.folder = ""
    return out, recorder.names


def refused_or_done(tree: Path, out: Path) -> None:
    try:
        run(tree, out)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.slow
def test_no_file_is_written_through_a_link(finished: tuple, lam_tree: Path, tmp_path: Path) -> None:
    _, names = finished
    assert {Path(name).name for name in names} >= {".lock"}
    assert any(name.endswith(".log.jsonl") for name in names)
    assert any(name.endswith(f"result.json.{os.getpid()}.part") for name in names)
    outside = tmp_path / "outside"
    for number, name in enumerate(one_of_each(map(Path, names))):
        out = tmp_path / str(number)
        (out / name).parent.mkdir(parents=True)
        outside.write_bytes(SENTINEL)
        (out / name).symlink_to(outside)
        refused_or_done(lam_tree, out)
        assert outside.read_bytes() == SENTINEL, name
        shutil.rmtree(out)


def test_nothing_is_written_into_a_folder_behind_a_link(finished: tuple, lam_tree: Path, tmp_path: Path) -> None:
    """Below the folder of a store, a training or a row. The folders above may be links to a larger disk."""
    done, _ = finished
    folders = [path.relative_to(done) for path in done.rglob("*") if path.is_dir()]
    inside = one_of_each(path for path in folders if not is_unit(path))
    assert {path.name for path in inside} >= {"original", "seed3407"}
    for number, name in enumerate(inside):
        out, outside = tmp_path / str(number), tmp_path / f"outside{number}"
        outside.mkdir()
        (out / name).parent.mkdir(parents=True)
        (out / name).symlink_to(outside)
        refused_or_done(lam_tree, out)
        assert list(outside.iterdir()) == [], name


def is_unit(path: Path) -> bool:
    """Whether a folder is that of a whole store, row or training, or above one."""
    return len(path.parts) <= (2 if path.parts[0] == "trainings" else 3)


def one_of_each(paths: Iterable[Path]) -> list[Path]:
    """The first of the paths that differ in digits only."""
    kinds = {re.sub(r"\d+", "0", path.name): path for path in sorted(paths, reverse=True)}
    return sorted(kinds.values())


def endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize(
    "replace",
    [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir, endless],
    ids=["pipe", "device", "folder", "endless"],
)
def test_no_file_that_is_read_may_be_special(
    replace: Callable[[Path], None], finished: tuple, lam_tree: Path, tmp_path: Path
) -> None:
    """Each file of a finished run in turn; a row whose files are damaged is made again, or a line says what to do."""
    done, _ = finished
    for number, path in enumerate(one_of_each(path for path in done.rglob("*") if path.is_file())):
        out = tmp_path / str(number)
        shutil.copytree(done, out)
        place = out / path.relative_to(done)
        place.unlink()
        try:
            replace(place)
        except OSError:
            pytest.skip("this file system has no such files")
        refused_or_done(lam_tree, out)
        shutil.rmtree(out)
