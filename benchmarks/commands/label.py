"""Write one HTML page with faces of a finished `predict`, on which you mark who looks at the camera.

The page needs no network and sends nothing. It shows no scores, so marks are blind. Faces are spread over tracks, times
and scores; the same ones are chosen every time. Save labels.csv there, then run calibrate.

example:
  python bench.py label walk/
  python bench.py label walk/ --count 200
"""

from __future__ import annotations

import argparse
from pathlib import Path

MOST = 2000  # faces on a page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of predict")
    parser.add_argument(
        "--count", type=int, default=120, metavar="N", help="number of faces (default: 120, 10 minutes' work)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    from benchmarks.calibration.choice import APART
    from benchmarks.calibration.finished import read_run
    from benchmarks.calibration.page import render_label_page
    from benchmarks.system.locks import NAME, locked
    from registry import UserError, printable
    from zoo.files.atomic import check_writable, write_text

    if not 1 <= args.count <= MOST:
        raise UserError(f"--count is {args.count}; it must be between 1 and {MOST}")
    found = read_run(args.out)
    page = args.out / "label.html"
    if page.is_symlink() or (page.exists() and not page.is_file()):
        raise UserError(f"{page} is not a file that label wrote; delete it")
    check_writable(args.out)
    with locked(args.out / NAME, str(args.out)):
        text, chosen = render_label_page(found, args.count)
        write_text(page, text)
    count = len(chosen)
    fewer = f" ({args.count} were asked for; others are less than {APART} s from these)" if count < args.count else ""
    tracks = found.rows["track"].iloc[chosen].nunique()
    print(
        f"{printable(str(page))}: {count} face{'s'[: count != 1]} of {tracks} track{'s'[: tracks != 1]}{fewer}, "
        f"{page.stat().st_size / 1e6:.2f} MB; open it in a browser, mark, save labels.csv, then run calibrate"
    )
    return 0
