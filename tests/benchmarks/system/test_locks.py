"""Locks between processes, locks of killed processes, and file systems without locks."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import SoftFileLock

from benchmarks.system.locks import locked
from registry import UserError
from zoo.files.atomic import replacing, write_text
from zoo.files.locks import take_lock

HOME = Path(__file__).resolve().parents[3]

# Programs that hold the path in their argument until a line comes on stdin.
LOCKED = """
import sys
from pathlib import Path
from benchmarks.system.locks import locked
with locked(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    sys.stdin.readline()
"""
REPLACING = """
import sys
from pathlib import Path
from zoo.files.atomic import replacing
with replacing(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def held(path: Path, program: str) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], cwd=HOME, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_held_lock_names_its_holder_and_a_dead_process_holds_none(tmp_path: Path) -> None:
    path = tmp_path / "out" / ".lock"
    with held(path, LOCKED) as process:
        said = f"out is being written by process {process.pid} on {socket.gethostname()} since 20"
        with pytest.raises(UserError, match="wait for it to finish, or stop it") as error, locked(path, "out"):
            pass
        assert str(error.value).startswith(said)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert path.exists()
        with locked(path, "out") as left:
            assert left, "the lock of a killed process was not reported"
    assert not path.exists()
    with locked(path, "out") as left:
        assert not left


def test_a_waiting_process_continues_when_the_lock_is_released(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch
) -> None:
    monkeypatch.setattr("benchmarks.system.locks.PATIENCE", 0.0)
    with held(tmp_path / ".lock", LOCKED) as process:
        monkeypatch.setattr("benchmarks.system.locks.time.sleep", lambda _: process.communicate("\n"))
        with locked(tmp_path / ".lock", "runs/x", wait=True) as left:
            assert process.returncode == 0
            assert not left
    assert capsys.readouterr().err.startswith(f"waiting for process {process.pid} on ")


def test_a_folder_created_for_a_lock_is_removed_with_it(tmp_path: Path) -> None:
    with locked(tmp_path / "new" / ".lock", "new"):
        pass
    assert not (tmp_path / "new").exists()


WITHOUT_LOCKS = """
import errno, fcntl, sys
from pathlib import Path
from zoo.files.locks import take_lock

def none(*_):
    raise OSError(errno.ENOLCK, "No locks available")

fcntl.flock = none
lock = take_lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


def held_without_locks(path: Path):
    return held(path, WITHOUT_LOCKS)


def owner_of_another_host(owner: Path) -> str:
    """An owner file as filelock writes it on this host, with the host's name changed."""
    lock = SoftFileLock(owner)
    with lock:
        return owner.read_text().replace(socket.gethostname(), "another.host")


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "folder"])
def test_only_a_regular_file_is_locked(tmp_path: Path, kind: str) -> None:
    path, precious = tmp_path / "x", tmp_path / "precious"
    precious.write_text("as it was")
    if kind in ("link", "dangling"):
        path.symlink_to(precious if kind == "link" else tmp_path / "nothing")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError):
        take_lock(path)
    with pytest.raises(UserError, match="cannot write"), locked(path, "it"):
        pass
    assert precious.read_text() == "as it was"
    assert not (tmp_path / "nothing").exists()


def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A file with process and host stands for the lock; that of a dead process does not count."""

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    path, owner = tmp_path / "x", tmp_path / "x.owner"
    lock = take_lock(path)
    assert lock is not None
    assert take_lock(path) is None
    lock.release(remove=True)
    assert not list(tmp_path.iterdir())
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "this file system has no locks" in said

    with held_without_locks(path) as process:
        assert take_lock(path) is None
        process.kill()
        process.wait()
        lock = take_lock(path)
        assert lock is not None, "a killed process still holds it"
        lock.release()
    text = owner_of_another_host(owner)
    owner.write_text(text)
    assert take_lock(path) is None, "that process may be running"
    owner.unlink()
    write_text(tmp_path / "y", "written without locks too")


def test_a_part_file_of_a_killed_process_is_removed_by_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with held(path, REPLACING) as process:
        part = tmp_path / f".result.json.{process.pid}.part"
        assert part.read_text() == "half"
        write_text(path, "whole")
        assert part.exists(), "a part file of a living process was removed"
        process.kill()
        process.wait()
        assert part.exists()
        with replacing(path) as temporary:
            temporary.write_text("whole again")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("result.json", "whole again")]


def test_part_files_of_another_file_stay(tmp_path: Path) -> None:
    other = tmp_path / ".result.json.gz.12.part"
    other.touch()
    write_text(tmp_path / "result.json", "whole")
    assert other.exists()


def test_a_lock_file_removed_while_it_is_being_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder removes it after another process has opened it: that process must not lock the removed file."""
    path, flock, calls = tmp_path / "x", fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            path.unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    lock = take_lock(path)
    assert lock is not None and len(calls) >= 2
    assert path.exists()
    assert take_lock(path) is None
    lock.release()
