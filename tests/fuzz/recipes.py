"""Recipe files and settings of the command line."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.harness import Kind
from tests.fuzz.values import IDS, file_of, place, spoilt_bytes

KEYS = (
    "training.lr",
    "training.epochs",
    "training.batch_size",
    "training.seed",
    "head.hidden",
    "head.mlp",
    "head.dropout",
    "head.type",
    "head",
    "backbone.frozen",
    "backbone",
    "views.test",
    "windows.radius",
    "windows.stride.val",
    "smoothing",
    "smoothing.window",
    "smoothing.filter",
    "priors",
    "priors.type",
    "method",
    "version",
    "name",
    "",
    ".",
    "..",
    "head.",
    ".head",
    "head..hidden",
    "__class__",
    "head.__init__",
    "training",
    "limit",
)
VALUES = (
    "1",
    "-1",
    "0",
    "1e-3",
    "nan",
    "inf",
    "1e400",
    "9" * 30,
    "9" * 5000,
    "none",
    "true",
    "[]",
    "[1,2]",
    "{}",
    "{'a':1}",
    "(1,)",
    "'a'",
    "__import__('os').system('true')",
    "open('x')",
    "[" * 200,
    "(" * 5000,
    "-" * 5000 + "1",
    "lstm",
    "",
    "=",
    "a=b",
    "b'x'",
    "1_0",
    "0x1f",
    "...",
    "...*9",
    "1+1j",
    "{1:{2:{}}}",
    "\x00",
    "\ud800",
    *IDS[:12],
)

settings = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)).map("=".join) | st.sampled_from(VALUES),
    min_size=1,
    max_size=3,
)


def resolve_settings(folder: Path, case: list[str]) -> None:
    from benchmarks.config.resolve import resolve

    resolve("internlstm", settings=case).as_dict()


@functools.cache
def recipe_text() -> str:
    from benchmarks.config.resolve import resolve
    from benchmarks.rows.record import config_file

    return config_file(resolve("internlstm"), "2026-01-01")


@st.composite
def recipes(draw: st.DrawFn) -> Any:
    """The config.py of a run with spoilt bytes or a replaced line."""
    how = draw(st.sampled_from(["bytes", "line", "file"]))
    text = recipe_text()
    if how == "file":
        return draw(file_of(st.just(text.encode())))
    if how == "bytes":
        return draw(spoilt_bytes(text.encode()))
    lines = text.splitlines()
    number = draw(st.integers(0, len(lines) - 1))
    key = lines[number].partition(" ")[0]
    lines[number] = draw(
        st.sampled_from(
            [
                "",
                f"{key} = None",
                f"{key} = 1",
                f"{key} = 'x'",
                f"{key} = []",
                f"{key} = dict(type='nothing')",
                f"{key} = {{1: 2}}",
                "raise ValueError('a\\nb')",
                "raise SystemExit(3)",
                "1 / 0",
                "def f(:",
                "_base_ = 5",
                "_base_ = ['missing.py']",
                "import nothing_of_that_name",
                "x = object()",
                f"{key} = lambda: 0",
                "_base_ = __file__",
                "assert False",
                f"{key} = float('nan')",
                "exit()",
                "raise Exception",
                f"{key} = dict(type=int)",
            ]  # fmt: skip
        )
    )
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def resolve_recipe(folder: Path, case: object) -> None:
    from benchmarks.config.ensemble import resolve_row

    resolve_row(str(folder / "config.py"), "synthlam").as_dict()


KINDS = (
    Kind("settings: --set", settings, lambda folder, case: None, resolve_settings, names_file=False),
    Kind("recipe file", recipes(), lambda folder, case: place(folder / "config.py", case), resolve_recipe),
)
