"""What all pages share: head, style, headings, and parts that are built again when what they show has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from inspect import isawaitable
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from registry import UserError

SECONDS = 0.5  # between two looks at what has changed

# The library sorts tables by mouse alone.
_KEYS = """<script>
new MutationObserver(() => {
  for (const head of document.querySelectorAll("th.sortable:not([tabindex])")) head.tabIndex = 0;
}).observe(document.documentElement, { childList: true, subtree: true });
document.addEventListener("keydown", event => {
  if (!["Enter", " "].includes(event.key) || !event.target.matches("th.sortable")) return;
  event.preventDefault();
  event.target.click();
});
</script>"""
_STYLE = Path(__file__).with_name("style.css")


def framed(current: str) -> AbstractContextManager:
    """Begin a page; its content goes into the returned element.

    Args:
        current: address of the page that the navigation marks.
    """
    from nicegui import ui

    ui.add_head_html(_KEYS)
    ui.add_css(_STYLE.read_text(encoding="utf-8"))
    ui.colors(primary="#0b5cad", negative="#c01c28", dark_page="#14171b", dark="#1d2228")
    with ui.element("header"):
        markup("lamzoo", "span", "name")
        with ui.element("nav").props('aria-label="pages"'):
            for address, words in (("/", "Videos"), ("/table", "Comparison")):
                mark = Markup(' aria-current="page"') if address == current else ""
                markup(Markup('<a href="{}"{}>{}</a>').format(address, mark, words), "span")
    return ui.element("main")


def markup(content: str, tag: str = "p", kind: str = "") -> Any:
    """An element of HTML; whatever is not Markup is escaped."""
    from nicegui import ui

    return ui.html(str(escape(content)), sanitize=False, tag=tag).classes(kind)


def element(tag: str, kind: str = "") -> Any:
    """An element that others go into."""
    from nicegui import ui

    return ui.element(tag).classes(kind)


def button(words: str, act: Callable[[], Any], kind: str = "plain") -> Any:
    """A button; what it does may be a coroutine, and its UserErrors are shown.

    Args:
        words: on it.
        act: what it does.
        kind: `plain`, `main` or `danger`.
    """
    from nicegui import ui

    async def pressed() -> None:
        try:
            if isawaitable(done := act()):
                await done
        except UserError as error:
            ui.notify(str(error), type="negative", timeout=0, close_button="Close")

    return ui.button(words, on_click=pressed, color=None).props("no-caps unelevated").classes(kind)


def table(columns: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], page: int = 0) -> Any:
    """A table that is sorted by a press on a heading.

    Args:
        columns: as NiceGUI's; all are sortable.
        rows: with a unique `id`.
        page: rows per page; 0 for all on one.
    """
    from nicegui import ui

    paged = 0 < page < len(rows)
    made = ui.table(
        rows=[*rows], columns=[*columns], column_defaults={"sortable": True}, pagination=page if paged else 0
    )
    return made.props("flat bordered dense" + " hide-pagination" * (not paged)).classes("wide")


class Watched:
    """A part of a page that is built again when its signature has changed, and not otherwise, so that focus stays.

    Args:
        signature: returns what the part depends on.
        build: fills the part.
        kind: class of its element.
    """

    def __init__(self, signature: Callable[[], Any], build: Callable[[], None], kind: str = "") -> None:
        from nicegui import ui

        self._signature, self._build, self._shown = signature, build, object()
        self._box = ui.element("section").classes(kind)
        self.update()

    def update(self) -> None:
        """Build it again if need be."""
        found = self._signature()
        if found != self._shown:
            self._shown = found
            self._box.clear()
            with self._box:
                self._build()


def watch(*parts: Watched) -> None:
    """Look after parts as long as the page is open."""
    from nicegui import ui

    def update() -> None:
        for part in parts:
            part.update()

    ui.timer(SECONDS, update)
