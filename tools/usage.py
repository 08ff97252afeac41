"""What a process used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

# A process's largest memory includes what its parent had when it was started, so a small parent starts it.
_STARTER = """
import json, os, resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
os.write(int(sys.argv[1]), json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]).encode())
sys.exit(code != 0)
"""


def used_by(command: Sequence[str], **options: Any) -> tuple[float, float]:
    """Run a command; return the seconds of all its threads and its largest resident memory in MB.

    Args:
        command: program and arguments.
        options: of `subprocess.run`.

    Raises:
        SystemExit: it failed.
    """
    reader, writer = os.pipe()
    with os.fdopen(reader, encoding="utf-8") as report:
        try:
            starter = [sys.executable, "-c", _STARTER, str(writer), *command]
            done = subprocess.run(starter, pass_fds=[writer], **options)
        finally:
            os.close(writer)
        if done.returncode:
            raise SystemExit(f"failed: {' '.join(command)}")
        processor, megabytes = json.load(report)
    return processor, megabytes
