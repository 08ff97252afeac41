"""The small InternViT with linear layers that regress the renderer's parameters."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from backbones.base import Preprocessing
from backbones.internvit_network import InternViTNetwork
from tools.pretraining.renders import NAMES
from tools.pretraining.steps import huber

CONFIG: dict[str, Any] = {
    "architectures": ["InternVisionModel"],
    "model_type": "intern_vit_6b",
    "hidden_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "image_size": 112,
    "patch_size": 14,
    "num_channels": 3,
    "qkv_bias": False,
    "qk_normalization": True,
    "norm_type": "rms_norm",
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
}
SIDE = CONFIG["image_size"] // CONFIG["patch_size"]  # patches per side
# Crops show the whole head with its hair. The middle three quarters hold the face and show the small eyes larger.
PREPROCESSING = Preprocessing(size=CONFIG["image_size"], resize=144)
EYES = ("left_eye_yaw", "left_eye_pitch", "right_eye_yaw", "right_eye_pitch")
EYE_WEIGHT = 4.0  # the eyes are a hundredth of the pixels, and without them there is no gaze


def sine_positions(side: int, width: int) -> Tensor:
    """Return initial position embeddings ``(1, 1 + side**2, width)``: sines of row and column, zero for CLS.

    Embeddings that know their neighbours from the first step shorten a training (Beyer et al. 2022, "Better plain ViT
    baselines for ImageNet-1k").
    """
    frequency = 1 / 10000 ** (torch.arange(width // 4) / (width // 4 - 1))
    angle = torch.arange(side)[:, None] * frequency
    waves = torch.cat([angle.sin(), angle.cos()], 1)  # (side, width / 2)
    rows, columns = waves[:, None].expand(side, side, -1), waves[None].expand(side, side, -1)
    return torch.cat([torch.zeros(1, width), torch.cat([rows, columns], 2).flatten(0, 1)])[None]


@torch.no_grad()
def whiten_patches(network: Any, images: Tensor, floor: float = 0.03) -> None:
    """Set the patch embedding so that its outputs on ``images (N, 3, S, S)`` are uncorrelated and of similar size.

    An iris that moves by a pixel is a ten-thousandth of a patch's variance; brightness is nine tenths. From a random
    start the network sees only brightness for its first hundred thousand crops. The idea comes from the whitening layer
    of Page's and Jordan's fast CIFAR-10 trainings.

    Args:
        network: its patch embedding is set.
        images: normalised.
        floor: directions of less variance than this are noise and are not scaled up to full size.
    """
    projection = network.embeddings.patch_embedding
    size = projection.kernel_size[0]
    patches = functional.unfold(images, size, stride=size).transpose(1, 2).flatten(0, 1).double()
    mean = patches.mean(0)
    variances, directions = torch.linalg.eigh(torch.cov(patches.T))
    kept = slice(-projection.out_channels, None)  # in ascending order
    weight = (directions[:, kept] / (variances[kept] + floor).sqrt()).T
    projection.weight.copy_(weight.reshape(projection.weight.shape))
    projection.bias.copy_(-weight @ mean)


def parameter_loss(everything: Tensor, local: Tensor, targets: Tensor, wanted: Tensor) -> Tensor:
    """Return the Huber loss, in standard deviations, of all targets and of the eye angles where the eyes are.

    Args:
        everything: ``(B, len(NAMES))`` predicted, standardised.
        local: ``(B, side * side, len(EYES))`` predicted by each cell of a square map, standardised.
        targets: ``(B, len(NAMES))``; NaN if unknown.
        wanted: the same, standardised.
    """
    side = math.isqrt(local.shape[1])
    columns = [NAMES.index(name) for name in EYES]
    # An eye three pixels wide teaches nothing.
    detail = (targets[:, NAMES.index("log_size")].exp() / 60).clamp(max=2)[:, None]
    given = wanted.isfinite()
    weights = given.to(wanted.dtype)
    weights[:, columns] *= EYE_WEIGHT * detail
    loss = (huber(everything, wanted.nan_to_num()) * weights).sum() / given.sum()
    eyes = wanted[:, columns]
    for eye in ("left_eye", "right_eye"):
        at = targets[:, [NAMES.index(f"{eye}_x"), NAMES.index(f"{eye}_y")]]
        inside = ((at >= 0) & (at < 1)).all(1)
        column, row = (at[inside] * side).long().unbind(1)
        errors = huber(local[inside, row * side + column], eyes[inside]) * detail[inside]
        loss = loss + errors.sum() / max(1, errors.numel())
    return loss


class Regressor(nn.Module):
    """The backbone's network, with linear layers from its last hidden state to standardised targets.

    ``readout`` predicts all targets from the CLS token. ``local`` predicts the eye angles from the patches that show
    the eyes: given these places, the patches learn eyes long before the CLS token would find them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = InternViTNetwork(CONFIG)
        for name, parameter in self.network.named_parameters():
            if parameter.ndim > 1 and "embeddings" not in name:
                for part in parameter.data.chunk(3) if ".qkv." in name else [parameter]:
                    nn.init.xavier_uniform_(part)
            elif name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif name.endswith((".ls1", ".ls2")):
                nn.init.ones_(parameter)  # InternViT's 0.1 is for 45 layers
        embeddings = self.network.embeddings
        nn.init.trunc_normal_(embeddings.class_embedding, std=0.02)
        embeddings.position_embedding.data.copy_(sine_positions(SIDE, CONFIG["hidden_size"]))
        self.readout = nn.Linear(CONFIG["hidden_size"], len(mean))
        self.local = nn.Linear(CONFIG["hidden_size"], len(EYES))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return standardised predictions for normalised ``images (B, 3, S, S)``.

        Returns:
            ``(B, len(NAMES))`` from the CLS token and ``(B, patches, len(EYES))`` from the patches.
        """
        hidden = self.network.tokens(images)
        return self.readout(hidden[:, 0]), self.local(hidden[:, 1:])

    def loss(self, images: Tensor, targets: Tensor, forward: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """Return the Huber loss, in standard deviations, of the CLS token and the patches of the eyes.

        Args:
            images: ``(B, 3, S, S)`` normalised.
            targets: ``(B, len(NAMES))``.
            forward: this module, or a compiled version of it.
        """
        with torch.autocast("cpu", torch.bfloat16):
            everything, local = forward(images)
        return parameter_loss(everything, local, targets, (targets - self.mean) / self.std)
