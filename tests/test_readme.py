"""The README is what people follow: its commands, its table and its names must be the program's."""

import re
from pathlib import Path

import pytest

import bench
from tools.update_docs import BEGIN, END, README, render_readme

HOME = Path(__file__).resolve().parent.parent
TEXT = README.read_text(encoding="utf-8")


def test_table_is_that_of_the_committed_records() -> None:
    assert BEGIN in TEXT
    assert END in TEXT
    assert render_readme(TEXT) == TEXT


def test_ci_finds_both_commands() -> None:
    blocks = re.findall(r"^```shell\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert [block.strip() for block in blocks] == [
        "pip install . && python bench.py --recipe internlstm_flip_tta",
        'pip install ".[test]" && pytest',
    ]


@pytest.mark.parametrize("line", re.findall(r"^\$ (python bench\.py .*)$", TEXT, flags=re.MULTILINE))
def test_commands_are_spelt_as_the_program_wants_them(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed, not run."""
    import importlib

    name, arguments = bench.command_of(line.partition("#")[0].split()[2:])
    monkeypatch.setattr(importlib.import_module(f"benchmarks.commands.{name}"), "run", lambda args: 0)
    assert bench.main([name, *arguments]) == 0


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("http") or (HOME / target).exists(), target
