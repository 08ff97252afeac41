"""The time that a video will take, from its first frames."""

from pathlib import Path

from benchmarks.video.annotate import seconds_per_frame
from benchmarks.video.forecast import Forecast
from tests.benchmarks.video.parts import make


def test_the_rest_is_extrapolated_and_said_once() -> None:
    now = 0.0
    forecast = Forecast(1000, lambda: 0.02, clock=lambda: now)
    said = []
    for number in range(100):
        now += 9.0 if number == 0 else 0.1  # the first frame includes what happens once in a run
        said.append(forecast.after(number))
    # Frames 1 to 30 take 3.0 seconds, though rounding may need one more; then 969 x 0.1 + 1000 x 0.02 s are left.
    lines = [line for line in said if line]
    assert said[:30] == [None] * 30 and len(lines) == 1
    assert lines[0].startswith("1,000 frames will take about 2 minutes (10 per second now")


def test_nothing_is_said_of_a_video_without_an_end_or_one_that_is_soon_done() -> None:
    now = 0.0
    unknown, short = (Forecast(frames, lambda: 0.02, clock=lambda: now) for frames in (0, 20))
    for number in range(20):
        now += 1.0
        assert unknown.after(number) is None
        assert short.after(number) is None


def test_a_resumed_run_counts_from_its_own_first_frame() -> None:
    now = 0.0
    forecast = Forecast(200, lambda: 0.0, clock=lambda: now)
    lines = []
    for number in range(100, 200):
        now += 0.1
        lines += [line] if (line := forecast.after(number)) else []
    assert len(lines) == 1 and "about 7 seconds" in lines[0]


def test_without_an_annotated_copy_only_the_scores_take_time() -> None:
    now = 0.0
    forecast = Forecast(200, lambda: None, clock=lambda: now)
    lines = []
    for number in range(200):
        now += 0.1
        lines += [line] if (line := forecast.after(number)) else []
    assert len(lines) == 1 and lines[0].endswith("about 17 seconds (10 per second now)")


def test_the_annotated_copy_is_measured_on_a_video(tmp_path: Path) -> None:
    assert 0 < seconds_per_frame(make(tmp_path / "a.mp4", 8), count=5) < 5
