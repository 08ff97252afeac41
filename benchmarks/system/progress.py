"""Progress on stderr, for work of more than two seconds."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm

from registry import printable


class Progress:
    """A bar that appears after two seconds and leaves no trace on stdout.

    Args:
        what: the work, in a word or two.
        total: number of units; the bar grows where there turn out to be more.
        unit: what is counted, in the singular.
        show: whether to show it; of several processes one does.
    """

    def __init__(self, what: str, total: int, unit: str, show: bool = True) -> None:
        # On a terminal a bar is redrawn; in a log file every redraw would be a line, so it is redrawn less often.
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
        """Count units done; `note` stands at the end of the bar."""
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        if self._bar.total is not None:
            self._bar.total = max(self._bar.total, self._bar.n + count)
        self._bar.update(count)

    def rate(self) -> float | None:
        """Units a second of late, as the bar shows them; None before it knows."""
        return self._bar.format_dict["rate"]

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


def say(line: str) -> None:
    """One line on stderr."""
    tqdm.write(printable(line), file=sys.stderr)


def plural(count: int, noun: str) -> str:
    """`1 seed`, `3 seeds`, `1,200 crops`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
