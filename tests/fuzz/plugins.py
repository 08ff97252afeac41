"""Plug-ins."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from tests.fuzz.harness import Kind
from tests.fuzz.values import file_of, place

DECORATED = "from registry import HEADS\n@HEADS.register_module(name='{own}')\n"
PLUGINS = (
    "def broken(:",
    "raise ValueError('a\\nb')",
    "raise SystemExit",
    "import nothing_of_that_name",
    "1 / 0",
    "x = " + "(" * 300,
    "import sys; sys.exit(3)",
    "raise Exception",
    "raise RuntimeError('\\x1b[2J')",
    "exit()",
    "from registry import HEADS\nHEADS.register_module(name='lstm')(int)",
    "from registry import HEADS\nHEADS.register_module(name='a:b')(int)",
    "from registry import HEADS\nHEADS.register_module(name='')(int)",
    "from registry import HEADS\nHEADS.register_module(name=3)(int)",
    "from registry import HEADS\nHEADS.register_module(name='{own}')(3)",
    "from registry import HEADS\nHEADS.register_module(name='{own}', module=int)",
    "from registry import HEADS\nHEADS.register_module(name='{own}', module=object)",
    f"{DECORATED}class A:\n    def __init__(self, feature_dim, window=7): pass",
    f"{DECORATED}def make(feature_dim: int, window: int = 7):\n    return 3",
    f"{DECORATED}class A:\n    def __init__(self, feature_dim, window=7): 1 / 0",
    "from registry import HEADS\n@HEADS.register_module(name='{own}')\nclass A:\n    def __init__(self): pass",
    "from registry import HEADS\nHEADS.register_module(name='{own}' + 'x' * 100_000)(int)",
    "from registry import HEADS\n" + "HEADS.register_module(name='x\\x1b[2J')(int)",
    "from registry import *\nHEADS.register_module(name='../x')(int)",
    "#" * 100_000,
    "\x00",
    "\ufeffx = 1",
    "# -*- coding: nothing -*-",
    "x = '\\ud800'",
    "import {own}_missing.part",
)


def use_plugin(folder: Path, case: object) -> None:
    from benchmarks.config.resolve import resolve
    from registry import HEADS, load_plugin
    from zoo.weights import build_head

    own = own_name(case)  # a module is imported once per path
    load_plugin(folder / f"{own}.py")
    if own in HEADS:
        resolve("internlstm", head=own)
        build_head({"type": own, "feature_dim": 4, "window": 7}, {"x": torch.zeros(1)}, str(folder / "x.safetensors"))


def own_name(case: object) -> str:
    """Return a name that no other case registers."""
    return f"own_{hashlib.sha256(repr(case).encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def write_plugin(folder: Path, case: Any) -> None:
    own = own_name(case)
    if isinstance(case, str):
        case = case.replace("{own}", own).encode("utf-8", "surrogatepass")
    place(folder / f"{own}.py", case)


KINDS = (Kind("plug-in", st.sampled_from(PLUGINS) | file_of(st.binary(max_size=60)), write_plugin, use_plugin),)
