"""Weights as 8-bit integers with one scale per output channel: a quarter of the size of float32."""

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = ".scale"  # appended to a tensor's name


def to_int8(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round the matrices and convolutions of a state dict; biases, normalisations and counts stay as they are.

    Returns:
        For each rounded tensor ``(C, ...)`` its integers in [-127, 127], and as ``NAME.scale`` the ``(C,)`` float32
        numbers to multiply them with. No value moves by more than half its channel's scale.

    Example:
        >>> stored = to_int8({"weight": torch.tensor([[127.0, -31.8], [0.0, 254.0]])})
        >>> stored["weight"].tolist(), stored["weight.scale"].tolist()
        ([[127, -32], [0, 127]], [1.0, 2.0])
    """
    stored = {}
    for name, tensor in state.items():
        if tensor.ndim < 2 or not tensor.is_floating_point():
            stored[name] = tensor
            continue
        scale = tensor.float().abs().flatten(1).amax(1).clamp_min(1e-30) / 127
        stored[name] = (tensor / _along(scale, tensor)).round().to(torch.int8)
        stored[name + SCALE] = scale
    return stored


def from_int8(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return float32 tensors for those that `to_int8` rounded, and all others as they are."""
    scales = {
        name: stored[name + SCALE]
        for name, tensor in stored.items()
        if tensor.dtype == torch.int8 and name + SCALE in stored and stored[name + SCALE].shape == tensor.shape[:1]
    }
    state = {name: tensor for name, tensor in stored.items() if name.removesuffix(SCALE) not in scales}
    return state | {name: stored[name].float() * _along(scale, stored[name]) for name, scale in scales.items()}


def _along(scale: Tensor, tensor: Tensor) -> Tensor:
    """Return ``scale (C,)`` in a shape that multiplies the channels of ``tensor (C, ...)``."""
    return scale.view(-1, *[1] * (tensor.ndim - 1))
