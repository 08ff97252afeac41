"""Progress bars and messages on stderr."""

from __future__ import annotations

import os
import re
import sys
from types import TracebackType

from tqdm import tqdm

from benchmarks.system.terminal import columns, fitted
from registry import printable

# Environment variable of programs that start bench.py: `lines` asks for bars that `read_progress` understands.
PROGRESS = "LAMZOO_PROGRESS"
_LINE = "progress {n}/{total} {desc}"
_LINE_READ = re.compile(r"progress (\d+)/(\d+|None) (.*)")


class Progress:
    """A progress bar on stderr that appears after two seconds; for another program, lines at once.

    Args:
        what: label.
        total: number of units; raised if more are done.
        unit: singular noun.
        show: False in all but one of several processes.
    """

    def __init__(self, what: str, total: int, unit: str, show: bool = True) -> None:
        # Each redraw is a new line in a log file, so it redraws less often there.
        interval = 0.2 if sys.stderr.isatty() else 10.0
        lines = os.environ.get(PROGRESS) == "lines"
        self._bar = tqdm(
            desc=what,
            total=total,
            unit=f" {unit}s",
            file=sys.stderr,
            delay=0 if lines else 2,
            mininterval=0.3 if lines else interval,
            bar_format=_LINE if lines else None,
            leave=False,
            dynamic_ncols=True,
            disable=not show,
        )

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count finished units; `note` is shown at the end of the bar."""
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        if self._bar.total is not None:
            self._bar.total = max(self._bar.total, self._bar.n + count)
        self._bar.update(count)

    def rate(self) -> float | None:
        """Recent units per second, as shown; None at the start."""
        return self._bar.format_dict["rate"]

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


def read_progress(text: str) -> tuple[str, int, int] | None:
    """Label, finished units and total of a bar that was written as a line; None for any other text.

    Lines end with a carriage return. A total of 0 is unknown.

    Example:
        >>> read_progress("progress 12/300 walk.mp4")
        ('walk.mp4', 12, 300)
    """
    found = _LINE_READ.fullmatch(text.strip())
    return found and (found[3], int(found[1]), int(found[2]) if found[2] != "None" else 0)


def say(line: str) -> None:
    """Print a line to stderr, above a running progress bar; a terminal gets it in lines that fit."""
    tqdm.write(fitted(printable(line), columns(sys.stderr)), file=sys.stderr)


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    Example:
        >>> plural(1, "seed"), plural(1200, "crop")
        ('1 seed', '1,200 crops')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
