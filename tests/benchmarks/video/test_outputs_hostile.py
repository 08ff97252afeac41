"""Names of tracks and models that try to inject content into subtitles, ELAN files and tables."""

import csv
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.video.bouts import Bout
from benchmarks.video.outputs import write_bouts, write_eaf, write_vtt

NAMES = (
    "a\n\n00:00:00.000 --> 00:59:59.000\nforged",
    "a --> b",
    "<b>bold</b> & <c.red>",
    '"/><ANNOTATION>',
    "]]><!--",
    "bell\x07 escape\x1b[2J nul\x00 vertical\x0b",
    "\u202e right to left",
    "&lt;",
    "=HYPERLINK(1)",
    "\x85\u2028next line",
)
HEADER = ("scores of the model a\n\n00:00.000 --> 00:09.000\nforged", "# x\ntrack,start")
CUE = re.compile(r"\d\d:\d\d:\d\d\.\d{3} --> \d\d:\d\d:\d\d\.\d{3}")


@pytest.fixture
def bouts() -> list[Bout]:
    return [Bout(name, float(number), number + 0.5, 0.75) for number, name in enumerate(NAMES)]


def test_subtitles_have_exactly_the_cues_of_the_bouts(tmp_path: Path, bouts: list[Bout]) -> None:
    write_vtt(tmp_path / "x.vtt", bouts, HEADER)
    text = (tmp_path / "x.vtt").read_bytes().decode()
    assert text.isprintable() or set(text) - {letter for letter in text if letter.isprintable()} == {"\n"}
    blocks = text.split("\n\n")
    assert (blocks[0], blocks[1][:4]) == ("WEBVTT", "NOTE")
    assert "-->" not in blocks[1]
    assert len(blocks) == 2 + len(NAMES)
    for block in blocks[2:]:
        cue, words = block.strip("\n").split("\n")
        assert CUE.fullmatch(cue)
        assert "<" not in words and "-->" not in words


def test_elan_has_one_tier_per_track(tmp_path: Path, bouts: list[Bout]) -> None:
    (tmp_path / "v<i>.mp4").write_bytes(b"x")
    video: Any = SimpleNamespace(path=tmp_path / "v<i>.mp4")
    write_eaf(tmp_path / "x.eaf", bouts, HEADER, NAMES, video)
    document = ElementTree.parse(tmp_path / "x.eaf").getroot()
    assert [tier.get("TIER_ID") for tier in document.iter("TIER")][2] == "looking: <b>bold</b> & <c.red>"
    assert len(list(document.iter("TIER"))) == len(list(document.iter("ALIGNABLE_ANNOTATION"))) == len(NAMES)


def test_a_table_has_one_row_per_bout(tmp_path: Path, bouts: list[Bout]) -> None:
    names = [name.replace("\0", "") for name in NAMES]  # no track has it, and Python 3.10 cannot write it to a CSV
    named = [bout._replace(track=name) for bout, name in zip(bouts, names, strict=True)]
    write_bouts(tmp_path / "x.csv", named, HEADER)
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        lines = file.read().split("\n")
        assert [line[:2] for line in lines[:3]] == ["# ", "# ", "tr"]
        file.seek(0)
        found = list(csv.reader(line for line in file if not line.startswith("# ")))
    assert [row[0] for row in found[1:]] == names  # unchanged
