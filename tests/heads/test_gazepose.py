"""GazePose's and GazeLSTM's heads against hand-made bins, a loop over positions and torch's own layers."""

import math

import pytest
import torch
from torch import nn

from heads.base import Window
from heads.gazepose import angle_bins, confidence_bins, landmark_cells, sine_positions
from registry import HEADS, UserError
from tests.contracts import check_head, made_up_inputs

SMALL = {"type": "gazepose", "width": 16, "feed_forward": 24, "encoder_layers": 2, "decoder_layers": 2}


def test_angle_bins_by_hand() -> None:
    degrees = torch.tensor([0.0, 0.99, -1.0, 17.5, -89.99, 90.0, 90.5, -400.0, math.inf, math.nan])
    assert angle_bins(degrees).tolist() == [0, 0, 1, 17, 89, 90, 90, 90, 90, 90]
    assert angle_bins(torch.tensor([[44.0, 46.0, 91.0]]), bins=3).tolist() == [[0, 1, 2]]  # 45 degrees a bin


def test_landmark_cells_by_hand() -> None:
    # x -1.95 is in column 0, x 0.05 in 20, x 1.99 in 39, x 2 and beyond in 40; the same for y.
    x = torch.tensor([-1.95, 0.05, 1.99, 2.0, 7.0, -7.0, math.nan])
    y = torch.tensor([0.05, -1.95, 0.05, 2.0, 1.99, -7.0, 0.05])
    assert landmark_cells(x, y).tolist() == [20, 400, 20 * 39 + 20, 840, 839, 0, 420]
    # The published factor is 20, not 41: column 1, row 0 and column 0, row 20 are one cell.
    assert landmark_cells(torch.tensor([-1.85]), torch.tensor([-1.95])).item() == 20


def test_confidence_bins_by_hand() -> None:
    assert confidence_bins(torch.tensor([-1.0, 0.0, 0.05, 0.55, 0.999, 1.0, 2.0, math.nan])).tolist() == [
        0, 0, 0, 5, 9, 10, 10, 0,
    ]  # fmt: skip


def test_sine_positions_by_a_loop() -> None:
    height, width, dim = 2, 3, 8
    found = sine_positions(height, width, dim)
    for row in range(height):
        for column in range(width):
            wanted = []
            for place, length in ((row, height), (column, width)):
                angle = (place + 1) / length * 2 * math.pi
                for pair in range(dim // 4):
                    value = angle / 10000 ** (2 * pair / (dim // 2))
                    wanted += [math.sin(value), math.cos(value)]
            torch.testing.assert_close(found[row * width + column], torch.tensor(wanted), atol=1e-5, rtol=0)


@torch.no_grad()
def test_without_positions_the_transformer_is_torchs_own() -> None:
    """torch's pre-norm layers have no positions; with all positions zero the two compute the same."""
    ours = HEADS.build({**SMALL, "feature_dim": 6}).eval().transformer
    for module in ours.modules():  # norms that are not the identity
        if isinstance(module, nn.LayerNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-1, 1)
    arguments = {"d_model": 16, "nhead": 8, "dim_feedforward": 24, "norm_first": True, "batch_first": True}
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**arguments), 2, nn.LayerNorm(16), False).eval()
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**arguments), 2, nn.LayerNorm(16)).eval()
    encoder.load_state_dict(ours["encoder"].state_dict())
    decoder.load_state_dict(ours["decoder"].state_dict())
    generator = torch.Generator().manual_seed(0)
    tokens, queries = torch.randn(2, 49, 16, generator=generator), torch.randn(2, 8, 16, generator=generator)
    memory = ours["encoder"](tokens, torch.zeros(49, 16))
    torch.testing.assert_close(memory, encoder(tokens), atol=1e-5, rtol=1e-5)
    found = ours["decoder"](queries, torch.zeros(2, 8, 16), memory, torch.zeros(49, 16))
    torch.testing.assert_close(found, decoder(queries, memory), atol=1e-5, rtol=1e-5)


def make(**arguments: object) -> tuple[nn.Module, Window]:
    torch.manual_seed(0)
    head = HEADS.build({**SMALL, "feature_dim": 6, **arguments}).eval()
    window = Window(torch.randn(3, 7, 6), torch.ones(3, 7, dtype=torch.bool), **made_up_inputs(head, 3))
    return head, window


@torch.no_grad()
def test_map_and_every_prior_have_an_effect() -> None:
    head, window = make()
    before = head(window)

    def differs() -> bool:
        return not torch.allclose(head(window), before, atol=1e-6)

    assert not differs()
    window.centre_map[:, :, 3, 3] += 1
    assert differs()
    window.centre_map[:, :, 3, 3] -= 1
    for column in range(3):
        window.priors["head_pose_bins"][:, column] += 1
        assert differs(), f"angle {column}"
        window.priors["head_pose_bins"][:, column] -= 1
    for column in range(15):
        kept = window.priors["landmarks"].clone()
        window.priors["landmarks"][:, column] = 0.95
        assert differs(), f"landmark number {column}"
        window.priors["landmarks"] = kept
    assert not differs()


def test_landmark_embeddings_train_or_stay() -> None:
    for train in (True, False):
        head, window = make(train_landmark_embeddings=train)
        before = {name: parameter.detach().clone() for name, parameter in head.named_parameters()}
        optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
        head(window).square().sum().backward()
        optimizer.step()
        moved = {name for name, parameter in head.named_parameters() if not torch.equal(before[name], parameter)}
        assert ({"joint_embed.weight", "c_embed.weight"} <= moved) is train
        assert {"yaw_embed.weight", "headpos_emeb", "input_proj.weight", "lstm.weight_hh_l1"} <= moved


def test_missing_inputs_are_named() -> None:
    head, window = make()
    with pytest.raises(UserError, match=r"GazePose needs the prior 'landmarks' of the key frame \(given: head_pose_b"):
        head(Window(window.features, window.present, window.centre_map, {"head_pose_bins": None}))
    with pytest.raises(UserError, match=r"needs the prior 'head_pose_bins' of the key frame \(given: none\)"):
        head(Window(window.features, window.present, window.centre_map))
    with pytest.raises(UserError, match="GazePose needs the key frame's feature map"):
        head(Window(window.features, window.present, priors=window.priors))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 20}, "width 20 is not a multiple of its 8 heads"),
        ({"grid": 1}, "argument 'grid' must be >= 2, got 1"),
    ],
)
def test_bad_sizes(change: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        HEADS.build({**SMALL, "feature_dim": 6, **change})


def test_contract_with_other_bins() -> None:
    check_head({**SMALL, "pose_bins": 91, "grid": 21, "confidence_bins": 3})
