"""Make SynthLAM: render its clips, write the archive that ships, and the data card.

    python -m tools.synthlam --out benchmarks/data/synthlam --seed 1 --workers 2
    python -m tools.synthlam card
    python -m tools.synthlam pretraining --count 60000 --seed 1 --out RENDERS --workers 2
    python -m tools.synthlam clips --seed 2 --times 2 --out CLIPS --workers 2

`clips` writes training and validation clips of other people, in SynthLAM's layout, to pretrain a backbone on; it learns
more from a few frames of many clips (`--times 7 --every 10`). All but `card` need the extra `synth`. Finished
clips are kept in `--work`, so the same command continues after an interruption. The archive is reproducible with the
same seed, machine and versions; other graphics drivers round pixels differently.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from benchmarks.data import synthlam
from benchmarks.data.cache import cache_folder
from tools.synthlam.card import write_card
from tools.synthlam.dataset import NAME, Order, make_files, pack, versions
from tools.synthlam.pretraining import render_pretraining
from zoo.files.atomic import replacing, write_json


def write_archive(order: Order, out: Path) -> None:
    """Render the data set, and write its archive and record to `out`."""
    files = make_files(order)
    content = pack(files)
    record = dict(
        archive=f"{NAME}.tar.xz",
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        files=len(files),
        crops=sum(path.endswith(".jpg") for path in files),
        seed=order.seed,
        made_with=versions(),
    )
    with replacing(out / f"{NAME}.tar.xz") as temporary:
        temporary.write_bytes(content)
    write_json(out / f"{NAME}.json", record)


def write_folder(order: Order, out: Path) -> None:
    """Render the data set, and write its files to `out`."""
    for name, content in make_files(order).items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.synthlam", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", nargs="?", default="dataset", choices=("dataset", "card", "pretraining", "clips"))
    parser.add_argument("--out", type=Path, default=synthlam.ARCHIVE.parent, help="folder to write to")
    parser.add_argument("--work", type=Path, default=cache_folder() / "renders", help="folder of finished clips")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=60_000, help="pretraining: number of crops")
    parser.add_argument("--times", type=int, default=1, help="clips: multiply SynthLAM's number of training clips")
    parser.add_argument("--every", type=int, default=1, help="clips: render every n-th training frame")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.what == "pretraining":
        render_pretraining(args.count, args.seed, args.out, args.workers)
    elif args.what == "clips":
        order = Order(args.seed, args.work, args.workers, args.times, args.every, splits=("train", "val"))
        write_folder(order, args.out)
    else:
        if args.what == "dataset":
            write_archive(Order(args.seed, args.work, args.workers), args.out)
        write_card(args.out)


if __name__ == "__main__":
    main()
