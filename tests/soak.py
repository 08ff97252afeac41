"""Extract, train and predict repeatedly in one process, and check that no resource grows.

    python -m tests.soak --minutes 60 --record

Each round starts with empty folders and calls the commands (`bench.main`): features of a tree of crops; a head trained
on features, a backbone and head on pixels, a row without training; the export of a model; a video scored with it. After
each round, garbage is collected and the process measures itself. Growth is the Theil-Sen slope of each measure over
time, which is robust to single outliers, with its 95 % interval.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import theilslopes

HOME = Path(__file__).resolve().parent.parent
RECORD = HOME / "benchmarks" / "records" / "reliability" / "soak.json"
LEAST = 60  # minimum seconds of warm-up
WARM_UP = 0.25  # minimum share of the whole time
LIMIT = 0.01  # growth per hour
JUDGED = ("rss", "anonymous", "descriptors", "threads", "children", "temporary files", "cache files")
MEASURES = (*JUDGED, "uss", "pss")  # uss and pss also change when other processes map the same libraries
FRAMES = 45


def main() -> int:
    """Run from the command line; 0 if nothing grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--record", nargs="?", type=Path, const=RECORD, metavar="PATH", help=f"default: {RECORD}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        samples = soak(Path(folder), 60 * options.minutes, lambda line: print(line, file=sys.stderr, flush=True))
    report = summary(samples)
    for name, of in report["measures"].items():
        interval = f"{of['low']:+.2%} to {of['high']:+.2%}"
        print(f"{name}: {of['first']:,} -> {of['last']:,}, {of['growth']:+.2%} per hour ({interval})")
    print(f"{report['rounds']} rounds in {report['minutes']} minutes: {'grows' if report['grows'] else 'flat'}")
    if options.record is not None:
        from benchmarks.rows.provenance import environment
        from zoo.files.atomic import write_json

        write_json(options.record, {**report, "environment": environment("cpu"), "samples": samples})
    return int(bool(report["grows"]))


def soak(folder: Path, seconds: float, say: Callable[[str], None] = lambda line: None) -> dict[str, list[float]]:
    """Run rounds for some seconds; return one value per round of each measure, and of `hours` since the start."""
    temporary, cache = folder / "tmp", folder / "cache"
    for each in (temporary, cache):
        each.mkdir(parents=True)
    os.environ.update(TMPDIR=str(temporary), LAMZOO_CACHE=str(cache))
    tempfile.tempdir = None  # forget the cached folder
    sources = make_sources(folder / "sources")
    samples: dict[str, list[float]] = {name: [] for name in ("hours", *MEASURES)}
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        run_round(sources, folder / "round")
        shutil.rmtree(folder / "round")
        gc.collect()
        found = measure(temporary, cache)
        samples["hours"].append(round((time.monotonic() - started) / 3600, 6))
        for name in MEASURES:
            samples[name].append(found[name])
        say(
            f"round {len(samples['hours'])} after {time.monotonic() - started:.0f} s: "
            + ", ".join(f"{name} {found[name]:,}" for name in MEASURES)
        )
    return samples


def make_sources(folder: Path) -> Path:
    """Write the inputs of a round: a small data set and a video."""
    import tests.benchmarks.video.parts as video
    from registry import load_plugin
    from tests.conftest import TINY, make_lam_tree

    load_plugin(TINY)
    load_plugin(HOME / "tests" / "parts" / "tiny_trunk.py")
    make_lam_tree(folder / "lam")
    video.make(folder / "walk.mp4", FRAMES)
    return folder


def run_round(sources: Path, out: Path) -> None:
    """Run each command once."""
    data = ["--dataset", "ego4d", "--root", str(sources / "lam")]
    quick = ["--set", "training.epochs=2", "--set", "windows.stride.train=4", "--set", "windows.stride.val=4"]
    small = [*quick, "--set", "head.projection=8", "--set", "head.hidden=8", "--set", "head.mlp=[8,8,8]"]
    runs = ["--out", str(out / "runs"), "--device", "cpu"]
    row = out / "runs" / "results" / "ego4d"
    crops = ["--images", str(sources / "lam" / "face_imgs"), "--views", "original,flipped", "-o", str(out / "store")]
    command("extract", *crops, "--backbone", "tiny_means", "--device", "cpu")
    command("run", "--recipe", "internlstm_flip_tta", *data, "--backbone", "tiny_means", *small, *runs)
    command("run", "--recipe", "gazelstm", *data, "--backbone", "tiny_trunk", *quick, *runs)
    command("run", "--recipe", "probe", *data, "--backbone", "tiny_means", *quick[2:], *runs)
    (name,) = (path.name for path in row.iterdir() if path.name.startswith("internlstm_flip_tta"))
    command("export", str(row / name), "-o", str(out / "model"))
    detect = ["--detector", "bright", "--device", "cpu"]
    command("predict", str(sources / "walk.mp4"), "--model", str(out / "model"), *detect, "-o", str(out / "walk"))


def command(*arguments: str) -> None:
    """Run a command of bench.py in this process."""
    import bench

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = bench.main(arguments)
    if status:
        raise SystemExit(f"bench.py {' '.join(arguments)} failed with exit status {status}:\n{said.getvalue()}")


def measure(temporary: Path, cache: Path) -> dict[str, int]:
    """Measure memory in bytes and count descriptors, threads, children and files."""
    process = Path("/proc/self")
    memory: dict[str, int] = {}
    for line in (process / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        memory[name] = 1024 * int(value.split()[0])
    tasks = list((process / "task").iterdir())
    return {
        "rss": memory["Rss"],
        "anonymous": memory["Anonymous"],
        "uss": memory["Private_Clean"] + memory["Private_Dirty"],
        "pss": memory["Pss"],
        "descriptors": len(list((process / "fd").iterdir())),
        "threads": len(tasks),
        "children": sum(len((task / "children").read_text().split()) for task in tasks),
        "temporary files": sum(1 for _ in temporary.rglob("*")),
        "cache files": sum(1 for _ in cache.rglob("*")),
    }


def summary(samples: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Compute the growth of each measure per hour, relative to its median, after a warm-up.

    Args:
        samples: from `soak`.

    Returns:
        `minutes`, `rounds`, `warm-up` (minutes), `limit`; `measures` by name with `first` and `last` value after the
        warm-up, `growth` per hour and its 95 % interval from `low` to `high`; and `grows`, the measures above the
        limit.
    """
    hours = np.array(samples["hours"])
    start = max(WARM_UP * hours[-1], min(LEAST / 3600, hours[-1] / 2))
    kept = hours >= start
    measures = {}
    for name in MEASURES:
        values = np.array(samples[name], dtype=np.float64)[kept]
        slope, _, low, high = theilslopes(values, hours[kept], 0.95)
        middle = max(float(np.median(values)), 1.0)
        growth, low, high = (round(float(each) / middle, 6) for each in (slope, low, high))
        measures[name] = dict(first=int(values[0]), last=int(values[-1]), growth=growth, low=low, high=high)
    return {
        "minutes": round(60 * float(hours[-1]), 1),
        "rounds": len(hours),
        "warm-up": round(60 * float(start), 1),
        "limit": LIMIT,
        "measures": measures,
        "grows": [name for name in JUDGED if measures[name]["growth"] > LIMIT],
    }


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    sys.exit(main())
