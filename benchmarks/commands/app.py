"""Open a page in your browser for videos, marks and the comparison table, in place of typing commands.

Only this computer can open the page, and it loads nothing from elsewhere. Each video is a job with a folder of its own;
one runs at a time. Ctrl-C ends the server, and the next one resumes what was running.

example:
  python bench.py app
  python bench.py app --port 9000 --out /data/looks
"""

from __future__ import annotations

import argparse
from pathlib import Path

PORT = 8642  # fixed, because browsers keep marks of faces by address


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--port", type=int, default=PORT, metavar="N", help=f"port of the page (default: {PORT}; 0: any free one)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/app"), metavar="DIR", help="folder of the jobs (default: runs/app)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve the page."""
    from benchmarks.app.guard import ADDRESS
    from benchmarks.app.queue import JobQueue
    from benchmarks.app.server import bind, check_installed, serve
    from benchmarks.system.locks import NAME, locked
    from registry import UserError
    from zoo.files.atomic import check_writable

    if not 0 <= args.port <= 65535:
        raise UserError(f"--port is {args.port}; a port is from 0 to 65535")
    check_installed()
    out = args.out.resolve()
    with bind(args.port) as listening:
        check_writable(out)
        with locked(out / NAME, str(out)):
            print(f"http://{ADDRESS}:{listening.getsockname()[1]} (Ctrl-C ends it; jobs are in {args.out})", flush=True)
            serve(JobQueue(out), Path("runs"), listening)
    return 0
