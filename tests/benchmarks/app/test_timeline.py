"""The timeline: what is drawn where, by the numbers of the tables."""

import re

import pytest

from benchmarks.app.timeline import clock, look_timeline, ticks

PEOPLE = [
    {"track": "1", "first": "0.0", "last": "20.0", "looking_seconds": "6.0"},
    {"track": "<b>2</b>", "first": "10.0", "last": "40.0", "looking_seconds": "0.0"},
]
LOOKS = [{"track": "1", "start": "4.0", "end": "8.0"}, {"track": "1", "start": "10.0", "end": "12.0"}]


def bars(drawn: str, kind: str) -> list[tuple[float, float, float]]:
    """Left and width in per cent, and top."""
    found = re.findall(rf'<rect x="([\d.]+)%" width="([\d.]+)%" y="(\d+)" height="\d+" rx="2" class="{kind}"', drawn)
    return [(float(x), float(width), float(y)) for x, width, y in found]


def test_bars_are_where_the_tables_say() -> None:
    drawn = str(look_timeline(PEOPLE, LOOKS, 40.0))
    assert [bar[:2] for bar in bars(drawn, "seen")] == [(0.0, 50.0), (25.0, 75.0)]
    assert [bar[:2] for bar in bars(drawn, "look")] == [(10.0, 10.0), (25.0, 5.0)]
    tops = [bar[2] for bar in bars(drawn, "seen")]
    assert tops[1] > tops[0] and all(abs(bar[2] - tops[0]) < 10 for bar in bars(drawn, "look"))
    assert "1: 2 looks, 6.0 s" in drawn and "0 looks, 0.0 s" in drawn
    assert "&lt;b&gt;2&lt;/b&gt;" in drawn and "<b>" not in drawn
    assert "2 looks of 2 tracks over 40.0 seconds" in drawn


@pytest.mark.parametrize("whole", [0.04, 0.9, 1.0, 9.93, 59.0, 61.0, 3599.0, 10 * 3600.0, 100 * 3600.0])
def test_ticks_are_few_and_within(whole: float) -> None:
    found = ticks(whole)
    assert found[0] == 0 and found[-1] <= whole and len(found) <= 6
    assert whole < 0.1 or len(found) >= 2
    assert len({clock(tick, whole) for tick in found}) == len(found)


def test_a_video_without_faces_has_an_axis() -> None:
    assert "0 looks of 0 tracks" in str(look_timeline([], [], 5.0))
