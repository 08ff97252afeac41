"""Faults of the machine: the compiled `preload.c`, the file that controls it, and small disks."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

COUNT, SIGNAL, FAIL, CLOCK = range(4)
ONCE, LASTING, ALL = range(3)  # failure of one operation; of all later ones that need space; of all later changes


class State(ctypes.Structure):
    """The layout of `struct state` in preload.c.

    Attributes:
        armed: operations are counted.
        count: operations so far.
        at: operation of the fault, from 1.
        action: COUNT, SIGNAL, FAIL or CLOCK.
        number: signal or errno.
        lasting: ONCE, LASTING or ALL.
        group: send the signal to the whole process group.
        fired: the fault has happened.
        shift: seconds that the clock moves.
        calls: calls that need memory so far, counted by `memory.py`.
        calls_at: call that fails.
        folder: operations below it count.
    """

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("armed", "count", "at", "action", "number", "lasting", "group")),
        *((name, ctypes.c_int64) for name in ("fired", "shift", "calls", "calls_at")),
        ("folder", ctypes.c_char * 1024),
    ]


def compile_preload(folder: Path) -> Path:
    """Compile preload.c into a folder, unless it is there.

    Raises:
        FileNotFoundError: there is no C compiler.
    """
    library = folder / "preload.so"
    if not library.exists():
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise FileNotFoundError("fault injection needs a C compiler; install one, such as gcc")
        part = folder / f"preload.{os.getpid()}.so"
        source = Path(__file__).with_name("preload.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O0", "-o", part, source, "-ldl"], check=True)
        part.replace(library)
    return library


class Machine:
    """Control over the processes that were started with `environment`.

    Args:
        folder: for the compiled library and the shared file.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"state.{os.getpid()}"
        self._path.write_bytes(bytes(ctypes.sizeof(State)))
        library = compile_preload(folder)
        self.environment = {"LD_PRELOAD": str(library), "LAMZOO_FAULTS": str(self._path)}
        self._map()

    @classmethod
    def of_this_process(cls) -> Machine:
        """Return the machine that this process was started on."""
        machine = cls.__new__(cls)
        machine._path = Path(os.environ["LAMZOO_FAULTS"])
        machine.environment = {key: os.environ[key] for key in ("LD_PRELOAD", "LAMZOO_FAULTS")}
        machine._map()
        return machine

    def _map(self) -> None:
        with self._path.open("rb+") as file:
            self._memory = mmap.mmap(file.fileno(), ctypes.sizeof(State))
        self.state = State.from_buffer(self._memory)

    def arm(self, folder: Path, **what: int) -> None:
        """Count the operations below a folder from now on; `what` are fields of State that describe the fault."""
        self.disarm()
        self.state.folder = str(folder).encode()
        for name, value in what.items():
            setattr(self.state, name, value)
        self.state.armed = 1

    def disarm(self) -> int:
        """Stop counting; return the number of operations."""
        self.state.armed, count = 0, self.state.count
        ctypes.memset(ctypes.byref(self.state), 0, ctypes.sizeof(State))
        return count


@contextlib.contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[bool]:
    """Mount a small disk at a folder; yield False if this process may not mount one."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", folder], check=True)


def remount(folder: Path, options: str) -> None:
    """Change the options of a mounted disk."""
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True, capture_output=True)


def size_of(folder: Path) -> int:
    """Return the bytes that a folder takes on a tmpfs."""
    return sum(-(-path.stat().st_size // 4096) * 4096 if path.is_file() else 4096 for path in folder.rglob("*"))
