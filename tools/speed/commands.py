"""`bench.py score`, `fuse` and `submit` on small files, as processes, against the same with torch imported first."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.rows.provenance import HOME
from benchmarks.scoring.files import write_groundtruth, write_predictions
from tools.speed.harness import Work
from tools.speed.metrics import made_up_rows

ROWS = 400

_RUN = """
import runpy, sys
{first}
sys.argv = {arguments!r}
try:
    runpy.run_path("bench.py", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
{last}
"""
_CHECK = "assert 'torch' not in sys.modules, 'torch was imported'"


@contextmanager
def small_commands(quick: bool) -> Iterator[list[Work]]:
    """The three commands; they take a second, so `quick` changes nothing."""
    del quick
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = made_up_rows(ROWS)
        test = pd.DataFrame(
            {
                "clip": table["clip"],
                "unique_id": [f"{number:08x}" for number in np.random.default_rng(0).permutation(ROWS)],
                "track": table["track"],
                "score": table["score"],
            }
        )
        write_groundtruth(folder / "truth.csv", table, "val")
        write_predictions(folder / "val.csv", table, "val")
        write_predictions(folder / "a.csv", test, "test")
        write_predictions(folder / "b.csv", test.assign(score=test["score"][::-1].to_numpy()), "test")
        out = folder / "out"
        yield [
            _work("score", ["--groundtruth", f"{folder}/truth.csv", "--predictions", f"{folder}/val.csv"], None),
            _work("fuse", [f"{folder}/a.csv", f"{folder}/b.csv", "-o", str(out)], out),
            _work("submit", [f"{folder}/a.csv", "-o", str(out)], out),
        ]


def _work(command: str, arguments: list[str], output: Path | None) -> Work:
    def run(first: str, last: str = "") -> Callable[[], tuple[str, bytes]]:
        script = _RUN.format(first=first, arguments=["bench.py", command, *arguments], last=last)

        def whole_process() -> tuple[str, bytes]:
            done = subprocess.run([sys.executable, "-c", script], cwd=HOME, check=True, capture_output=True, text=True)
            return done.stdout, output.read_bytes() if output is not None else b""

        return whole_process

    run("", _CHECK)()
    return Work(
        name=f"command_{command}",
        what=f"`bench.py {command}` on {ROWS} rows, the whole process",
        against="the same with `import torch` first",
        plain=run("import torch"),
        ours=run(""),
        differ=lambda plain, ours: None if plain == ours else f"{plain!r:.200} and {ours!r:.200}",
        seconds=1.5,
    )
