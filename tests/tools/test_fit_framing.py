"""The layer that reframes crops: the scorer inverts its targets."""

import numpy as np
import pytest

pytest.importorskip("av")

from benchmarks.video.scorer import reframed  # noqa: E402
from tools.fit_framing import fit, off  # noqa: E402


def test_the_targets_move_crops_onto_their_boxes() -> None:
    random = np.random.default_rng(0)
    crops, boxes = (random.uniform(0, 8, (50, 4)) + [0, 0, 60, 80] for _ in range(2))
    moves = off(crops, boxes)
    assert np.abs(moves).max() < 0.3  # the limit of `reframed`
    np.testing.assert_allclose([reframed(*pair) for pair in zip(crops, moves, strict=True)], boxes)


def test_a_linear_law_is_recovered() -> None:
    random = np.random.default_rng(1)
    known = random.normal(3, [1, 10, 0.1], (4000, 3))
    law = np.array([[1.0, 0.05, 0], [-0.5, 0, 2], [0, 0.1, 0], [0, 0, -3]])
    noise = random.normal(0, 0.2, (4000, 4))
    groups = [f"clip {row // 100}" for row in range(4000)]
    weight, bias, left = fit(known, known @ law.T + [1, 2, 3, 4] + noise, groups)
    np.testing.assert_allclose(weight, law, atol=0.15)
    np.testing.assert_allclose(known @ weight.T + bias, known @ law.T + [1, 2, 3, 4], atol=0.15)
    np.testing.assert_allclose(left.std(axis=0), 0.2, atol=0.02)


def test_residuals_are_those_of_held_out_groups() -> None:
    """A law per group does not help on other groups."""
    random = np.random.default_rng(2)
    group = np.arange(160) // 10
    own = random.normal(0, 1, (16, 2))[group]
    known = np.eye(16)[group]
    _, _, left = fit(known, own, [str(each) for each in group])
    assert left.std() > 0.7
