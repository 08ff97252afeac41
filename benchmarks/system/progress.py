"""Progress bars and messages on stderr."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm

from benchmarks.system.terminal import columns, fitted
from registry import printable


class Progress:
    """A progress bar on stderr that appears after two seconds.

    Args:
        what: label.
        total: number of units; raised if more are done.
        unit: singular noun.
        show: False in all but one of several processes.
    """

    def __init__(self, what: str, total: int, unit: str, show: bool = True) -> None:
        # Each redraw is a new line in a log file, so it redraws less often there.
        interval = 0.2 if sys.stderr.isatty() else 10.0
        self._bar = tqdm(
            desc=what,
            total=total,
            unit=f" {unit}s",
            file=sys.stderr,
            delay=2,
            mininterval=interval,
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
