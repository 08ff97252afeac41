"""What stands between a command and its machine: `preload.c`, compiled, and the file by which it is told what to do."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import subprocess
from pathlib import Path

COUNT, SIGNAL, FAIL, CLOCK = range(4)
ONCE, LASTING, ALL = range(3)  # a failure of one operation; of all later ones that need space; of all that change files


class State(ctypes.Structure):
    """The layout of `struct state` in preload.c.

    Attributes:
        armed: whether operations are counted.
        count: operations so far.
        at: the one that something happens at, from 1.
        action: what happens.
        number: of the signal, or errno.
        lasting: ONCE, LASTING or ALL.
        group: the signal goes to the whole process group.
        fired: it has happened.
        shift: seconds that the clock is moved by.
        calls: of functions that need memory, as `memory.py` counts them.
        calls_at: the one that finds none.
        folder: whose files count.
    """

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("armed", "count", "at", "action", "number", "lasting", "group")),
        *((name, ctypes.c_int64) for name in ("fired", "shift", "calls", "calls_at")),
        ("folder", ctypes.c_char * 1024),
    ]


def compile_preload(folder: Path) -> Path:
    """Compile preload.c into a folder, once.

    Raises:
        FileNotFoundError: there is no C compiler.
    """
    library = folder / "preload.so"
    if not library.exists():
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise FileNotFoundError("faults are injected by a small library in C: install a compiler, such as gcc")
        part = folder / f"preload.{os.getpid()}.so"
        source = Path(__file__).with_name("preload.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O0", "-o", part, source, "-ldl"], check=True)
        part.replace(library)
    return library


class Machine:
    """Tells the processes that were started with `environment` what is to happen to them.

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
        """The machine that this process was started on, and that its children are on."""
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
        """Count the operations below a folder from now on, and do `what`, fields of State, at one of them."""
        self.disarm()
        self.state.folder = str(folder).encode()
        for name, value in what.items():
            setattr(self.state, name, value)
        self.state.armed = 1

    def disarm(self) -> int:
        """Stop counting; how many there were."""
        self.state.armed, count = 0, self.state.count
        ctypes.memset(ctypes.byref(self.state), 0, ctypes.sizeof(State))
        return count
