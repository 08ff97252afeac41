"""What Windows lacks is not needed to import anything, and locks work where a locked file cannot be written.

No other system is at hand, so this is what can be held on Linux: docs/troubleshooting.md says what has run where.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HOME
from tests.sources import APPLICATION, module_name, parse, python_files
from zoo.files import atomic, locks

POSIX_MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
# Of the standard library's names, those that Windows lacks.
POSIX_NAMES = {
    "os": {
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "chown", "fchmod", "fork", "getloadavg", "getuid"),
        *("killpg", "mkfifo", "pread", "pwrite", "sched_getaffinity", "setsid", "statvfs", "sysconf", "uname"),
    },
    "signal": {"SIGALRM", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "alarm", "pthread_sigmask", "setitimer"},
    "time": {"clock_gettime", "tzset"},
    "socket": {"AF_UNIX"},
}
BLOCKED = """
import importlib, importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

for name in {names}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Blocked())
for name in {modules}:
    importlib.import_module(name)
"""
FILES = python_files(*APPLICATION)


@pytest.mark.slow
def test_every_module_is_imported_without_posix_modules() -> None:
    """`posix` itself stays: on Linux, os is made of it."""
    names = [name for name in POSIX_MODULES if name != "posix"]
    modules = [module_name(path) for path in FILES if not {"plugin_templates", "recipes", "datasets"} & {*path.parts}]
    assert len(modules) > 150
    code = BLOCKED.format(names=names, modules=modules)
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_block_blocks() -> None:
    code = BLOCKED.format(names=["fcntl"], modules=["fcntl"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "No module named 'fcntl'" in done.stderr


@pytest.mark.parametrize("path", FILES, ids=str)
def test_what_windows_lacks_is_asked_for_first(path: Path) -> None:
    text = (HOME / path).read_text(encoding="utf-8")
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & {*POSIX_MODULES}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = node.value.id
            if node.attr in POSIX_NAMES.get(name, ()):
                assert re.search(rf'hasattr\({name}, "{node.attr}', text), f"{path}:{node.lineno} {name}.{node.attr}"


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks as on Windows."""
    monkeypatch.setattr(locks, "locks_beside", lambda: True)


@pytest.mark.usefixtures("beside")
def test_a_lock_beside_a_file_keeps_others_away_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "shard.part"
    lock = locks.take_lock(path)
    assert lock is not None
    assert path.read_bytes() == b""
    assert locks.take_lock(path) is None
    path.write_text("written while it is held")
    lock.release()
    assert [each.name for each in tmp_path.iterdir()] == ["shard.part"]
    again = locks.take_lock(path)
    assert again is not None
    assert path.read_text() == "written while it is held"
    again.release(remove=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("beside")
def test_files_are_replaced_and_left_over_ones_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.json.1.part").write_text("of a killed process")
    atomic.write_text(tmp_path / "a.json", "{}")
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "{}"


@pytest.mark.usefixtures("beside")
def test_extraction_without_pwrite(lam_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same store, to the byte, as with both."""
    import bench

    arguments = ["--images", str(lam_tree / "face_imgs"), "--backbone", "tiny_means"]
    assert bench.main(["extract", *arguments, "-o", str(tmp_path / "one")]) == 0
    monkeypatch.delattr(os, "pwrite")
    assert bench.main(["extract", *arguments, "-o", str(tmp_path / "two")]) == 0
    files = [path.relative_to(tmp_path / "one") for path in sorted((tmp_path / "one").rglob("*.safetensors"))]
    assert files
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    left = [path.name for path in (tmp_path / "two").rglob("*") if path.name.endswith((".lock", ".part"))]
    assert [name for name in left if name != ".lock"] == []
