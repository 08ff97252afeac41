"""oriented_gradients fulfils lamzoo's contract of backbones, and its histograms are those of edges drawn by hand."""

import lamzoo_oriented_gradients
import pytest
import torch

from registry import BACKBONES, UserError
from tests.contracts import check_backbone


@pytest.mark.parametrize("arguments", [{}, {"size": 32, "bins": 6}])
def test_contract(arguments: dict) -> None:
    """The checks that every backbone of lamzoo passes."""
    check_backbone(dict(type="oriented_gradients", **arguments))


@pytest.mark.parametrize(("upright", "direction"), [(True, 0), (False, 2)])
def test_an_edge_votes_for_its_own_direction(upright: bool, direction: int) -> None:
    """One edge from black to white within the left, or the upper, cells. Four directions of 45 degrees."""
    image = torch.zeros(1, 3, 16, 16)
    image[..., 5:] = 1  # the gradient points right, which is direction 0; transposed down, which is direction 2
    image = image if upright else image.transpose(2, 3)
    found = lamzoo_oriented_gradients.Histograms(4)(image).view(4, 4)  # directions, cells by rows
    # Two of four cells have the edge, with equal votes: each is 1 / sqrt(2) after normalising, 0.2 after clipping, and
    # 1 / sqrt(2) after normalising again.
    wanted = torch.zeros(4, 4)
    wanted[direction, [0, 2] if upright else [0, 1]] = 0.5**0.5
    torch.testing.assert_close(found, wanted)


def test_arguments_are_checked() -> None:
    """A size that no cell fits."""
    with pytest.raises(UserError, match="argument 'size' must be"):
        BACKBONES.build(dict(type="oriented_gradients", size=60))
