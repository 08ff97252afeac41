"""Workers of torchrun and Ray, killed while they extract features."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import HOME, RAY_WORKERS
from tests.faults.cases import Case
from tests.faults.running import Ended
from tests.faults.scenarios import slow_extract

MARKER = "LAMZOO_FAULTS_CASE"
LIMIT = 240  # seconds


def kill_a_worker(case: Case, inputs: Path, work: Path) -> Ended:
    """Extract with torchrun or Ray and kill a worker some seconds after the first batch."""
    ray, drawn = case.kind == "ray", case.drawn
    line = slow_extract(inputs, work)
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--max-restarts={drawn['restarts']}"]
    hidden = ("LD_PRELOAD", "LAMZOO_FAULTS", "OMP_NUM_THREADS")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *([*line, "--engine", "ray"] if ray else [*torchrun, *line])],
        cwd=HOME,
        env={**environment, MARKER: str(work)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not list((work / "store").glob(".*.part")):
        time.sleep(0.02)
    time.sleep(drawn["wait"])
    workers = [pid for pid in _marked(work, RAY_WORKERS if ray else (b"bench.py",)) if pid != process.pid]
    if not ray:
        workers = [pid for pid in workers if b"torch.distributed" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    if workers:
        os.kill(workers[int(drawn["share"] * len(workers))], signal.SIGKILL)
    trouble = ""
    try:
        errors = process.communicate(timeout=LIMIT)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        errors, trouble = process.communicate()[1], f"hang: still running after {LIMIT} s"
    lines = [line for line in errors.splitlines() if line.strip()]
    seconds = time.monotonic() - started
    return Ended(process.returncode, seconds, lines[-1] if lines else "", trouble, bool(workers))


def _marked(work: Path, names: Sequence[bytes]) -> list[int]:
    """Return the processes of a case that have one of the names in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            ours = f"{MARKER}={work}".encode() in (entry / "environ").read_bytes().split(b"\0")
            if ours and any(name in (entry / "cmdline").read_bytes() for name in names):
                found.append(int(entry.name))
    return sorted(found)
