"""The arithmetic of docs/scale.md, by hand, and the simulation of preemption against first order."""

import math
from pathlib import Path

import pytest

from tests.conftest import HOME
from tools import scale
from tools.scale import Inputs, Preemption, need, simulate

PAGE = HOME / "docs" / "scale.md"


def test_the_page_is_what_the_tool_prints() -> None:
    shown = PAGE.read_text(encoding="utf-8").partition("<!-- scale: printed by tools/scale.py -->")[2]
    assert shown.partition("<!-- end of scale -->")[0].strip() == scale.tables()


def test_a_million_frames_by_hand() -> None:
    """10 TFLOP per image on a GPU that does 500 a second: 50 images/s, so two million images take 40,000 s."""
    one = need(1_000_000, Inputs(flop=10e12, peak=1000e12, share=0.5))
    assert one.gpu_hours == pytest.approx(40_000 / 3600)
    assert one.features == 2_000_000 * (3200 * 2 + 40 + 6)
    assert one.crops == 1_000_000 * 10_000
    # 25 frames/s of 10 kB and 50 vectors/s
    assert scale.network_per_gpu(Inputs(flop=10e12, peak=1000e12, share=0.5)) == 25 * 10_000 + 50 * 6_446
    assert scale.cores_per_gpu(Inputs(flop=10e12, peak=1000e12, share=0.5)) == pytest.approx(25 / 300)


def test_the_6bs_flop() -> None:
    """Two per weight and token in 44 layers, attention, and the last layer's keys and values."""
    tokens, width, inner = 1025, 3200, 12800
    layer = tokens * (2 * (4 * width**2 + 2 * width * inner) + 4 * tokens * width)
    assert scale.flop_of_6b() == pytest.approx(44 * layer, rel=0.01)
    assert Inputs(flop=scale.flop_of_6b()).rate == pytest.approx(45.2, abs=0.05)


def test_memory_of_the_list_of_work(tmp_path: Path) -> None:
    assert scale.backlog_bytes(5000, tmp_path / "store") == pytest.approx(Inputs(flop=1).memory, rel=0.3)


def test_without_losses_there_is_no_overhead() -> None:
    assert simulate(Preemption(8, math.inf, 180, 1.5, 60), clips=80, seed=0) == 0


def test_a_loss_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker, lost after 25 s: two batches of 10 s are kept, resuming takes 100 s, 40 of 60 s are left."""
    times = iter([[25.0], 1e9])

    class Random:
        def exponential(self, mean: float, count: int | None = None) -> object:
            return next(times)

    monkeypatch.setattr(scale.np.random, "default_rng", lambda seed: Random())
    assert simulate(Preemption(1, 1.0, 100, 10, 60), clips=1, seed=0) == pytest.approx((25 + 100 + 40) / 60 - 1)


def test_the_simulation_agrees_with_first_order() -> None:
    """For rare losses and many clips, where the tail does not count."""
    case = Preemption(workers=8, hours_between=2.0, resume=180, batch=1.5, clip=20)
    found = sum(simulate(case, clips=8 * 3000, seed=seed) for seed in range(4)) / 4
    assert found == pytest.approx(case.expected, rel=0.15)
