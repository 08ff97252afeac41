"""The soak test's summary of known growth, and a short soak."""

from pathlib import Path

import numpy as np
import pytest

from tests.soak import JUDGED, MEASURES, soak, summary


def test_growth_is_distinguished_from_outliers() -> None:
    """100 rounds in an hour: memory grows by 5 % of its middle value, with one spike; all else is flat."""
    hours = np.linspace(0.01, 1.0, 100)
    middle = 0.625  # half-way between the end of the warm-up, a quarter of the time, and the end
    memory = 1e9 * (1 + 0.05 * (hours - middle))
    memory[70] *= 3
    memory[:5] *= 0.5  # the warm-up
    samples = {"hours": hours.tolist()} | {name: [7.0] * 100 for name in MEASURES} | {"rss": memory.tolist()}
    found = summary(samples)
    assert found["grows"] == ["rss"]
    assert found["measures"]["rss"]["growth"] == pytest.approx(0.05, rel=1e-3)
    assert found["measures"]["rss"]["low"] <= 0.05 <= found["measures"]["rss"]["high"]
    assert (found["rounds"], found["minutes"], found["warm-up"]) == (100, 60.0, 15.0)
    assert found["measures"]["threads"] == dict(first=7, last=7, growth=0.0, low=0.0, high=0.0)


@pytest.mark.slow
def test_rounds_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts are equal after the second and the last round; memory may still settle."""
    for name in ("TMPDIR", "LAMZOO_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))  # restores both afterwards
    monkeypatch.setattr("tempfile.tempdir", None)
    samples = soak(tmp_path / "soak", 120)
    assert len(samples["hours"]) >= 5
    for name in JUDGED[2:]:
        assert samples[name][-1] == samples[name][1], name
    for name in JUDGED[:2]:
        a_round = (samples[name][-1] - samples[name][1]) / (len(samples[name]) - 2)
        assert a_round < 2e6, f"{name} grows by {a_round / 1e6:.1f} MB a round"
