"""Lines that fit the terminal they are printed on."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import TextIO

NARROWEST = 40  # columns; in a narrower terminal lines wrap


def columns(stream: TextIO) -> int | None:
    """Width of the terminal behind a stream, in characters; None if there is no terminal."""
    try:
        if not stream.isatty():
            return None
        wide = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 80
    return max(NARROWEST, wide or 80)  # a terminal without a size says 0


def fitted(text: str, width: int | None) -> str:
    r"""Break the lines of a text between words, with a hanging indent; None leaves them as they are.

    Example:
        >>> print(fitted("- two words\nshort", 8))
        - two
          words
        short
    """
    if width is None:
        return text
    lines = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        parts = textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )  # fmt: skip
        lines += parts if len(line) > width else [line]
    return "\n".join(lines)


def tell(text: str) -> None:
    """Print on stdout; on a terminal no line is wider than it, unless a single word is."""
    print(fitted(text, columns(sys.stdout)))
