"""Run the commands of docs/quickstart.md and write their output below them.

`python -m tools.transcripts` copies the checkout to a temporary folder, runs the `$` lines of each marked block there
and replaces the output below them. The commands run in the environment of --python (default: this one). With --install
they run in a new environment, set up by the page's own `pip` lines (minutes, 6 GB). Progress bars are left out; long
lines and the middle of long outputs are cut.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from zoo.files.atomic import write_text

HOME = Path(__file__).resolve().parent.parent
PAGE = HOME / "docs" / "quickstart.md"
BLOCK = re.compile(
    r"(?P<begin><!-- transcript: .*? -->\n\n```console\n)(?P<text>.*?)(?P<end>```\n\n<!-- end of transcript -->)",
    re.DOTALL,
)
WIDTH = 118  # characters per line
LINES = 10  # per command


def copy_checkout(folder: Path) -> None:
    """Copy all files that git tracks or would add."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=HOME, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (HOME / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(HOME / name, folder / name)


def printed(output: str, folder: Path) -> list[str]:
    """Return the lines to show: no progress bars, no paths of this machine, nothing long."""
    lines = []
    for line in output.splitlines():
        line = line.rpartition("\r")[2].replace(f"{folder}/", "").rstrip()
        if line and "it/s]" not in line and not re.search(r"\d+%\|", line):
            lines.append(line if len(line) <= WIDTH else f"{line[: WIDTH - 1].rstrip()}…")
    if len(lines) > LINES:
        lines = [*lines[: LINES // 2], f"… ({len(lines) - LINES + 1} lines more)", *lines[1 - LINES // 2 :]]
    return lines


def run(command: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Run a command and return its output.

    Raises:
        SystemExit: the command failed.
    """
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{command}: exit status {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


def render(text: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Run the blocks of a page again, in order, in one folder; errors as in `run`."""

    def again(block: re.Match[str]) -> str:
        lines = []
        for line in block["text"].splitlines():
            if line.startswith("$ "):
                lines += [line, *printed(run(line.removeprefix("$ "), folder, environment), folder)]
        return block["begin"] + "".join(f"{line}\n" for line in lines) + block["end"]

    return BLOCK.sub(again, text)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.transcripts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--install", action="store_true", help="run in a new virtual environment")
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="interpreter of the environment to run in"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, programs = Path(scratch) / "lamzoo", args.python.absolute().parent
        folder.mkdir()
        copy_checkout(folder)
        from tools.check_video import RATE, clips_of, make_video

        make_video(folder / "walk.mp4", clips_of("test"), frames=10 * RATE)  # for the page's own video
        if args.install:
            subprocess.run([args.python, "-m", "venv", folder / "venv"], check=True)
            programs = folder / "venv" / "bin"
        environment = {**os.environ, "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]), "COLUMNS": "118"}
        environment.pop("PYTHONPATH", None)
        text = PAGE.read_text(encoding="utf-8")
        if args.install:
            for command in re.findall(r"^\$ (pip .*)$", text, flags=re.MULTILINE):
                run(command, folder, environment)
        write_text(PAGE, render(text, folder, environment))


if __name__ == "__main__":
    main()
