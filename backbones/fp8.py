"""Linear layers in 8 bits: weights and inputs as E4M3 numbers with one scale a row, products added up in float32.

One scale a row, because one for a whole tensor drowns everything else in the few channels that a large ViT lets grow.
On a GPU the product is the tensor cores' own. Elsewhere the same rounded numbers are multiplied in float32: what 8 bits
cost can be measured on any machine, what they save cannot.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from registry import UserError

LARGEST = 448.0  # torch.finfo(torch.float8_e4m3fn).max
CAPABILITY = (8, 9)  # of the first GPUs with such products


def check_device(device: torch.device) -> None:
    """Raise a UserError where ``device`` is a GPU that cannot multiply 8 bit numbers."""
    if device.type == "cuda" and (found := torch.cuda.get_device_capability(device)) < CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise UserError(f"{name} (compute capability {found[0]}.{found[1]}) has no fp8; it takes 8.9: use bfloat16")


def quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Round ``rows (M, K)`` to E4M3 such that the largest of each row becomes the largest there is.

    Returns:
        ``(M, K)`` float8_e4m3fn and the scales ``(M, 1)`` float32; their product is about ``rows``.
    """
    rows = rows.float()
    scale = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / LARGEST
    # Clamped because the division may round up, and what lies beyond the largest becomes NaN.
    return (rows / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale


def multiply(a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return ``a @ b.T + bias`` for quantised ``a (M, K)`` and ``b (N, K)``: ``(M, N)`` in ``dtype``."""
    if a.is_cuda:
        return torch._scaled_mm(
            a, b.T, scale_a=a_scale, scale_b=b_scale.T, bias=bias, out_dtype=dtype, use_fast_accum=True
        )
    product = functional.linear(a.float(), b.float()) * (a_scale * b_scale.T)
    return (product if bias is None else product + bias.float()).to(dtype)


class Linear(nn.Module):
    """A linear layer whose weight is quantised once and whose input at every call.

    Args:
        linear: what it stands in for; its widths are multiples of 16, in bfloat16.

    Raises:
        UserError: the widths are not.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        if linear.in_features % 16 or linear.out_features % 16:
            raise UserError(
                f"fp8 takes layers whose widths are multiples of 16, not {linear.in_features} and "
                f"{linear.out_features}: use bfloat16"
            )
        weight, scale = quantise(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        rows, scale = quantise(x.flatten(0, -2))
        return multiply(rows, scale, self.weight, self.scale, self.bias, x.dtype).unflatten(0, x.shape[:-1])
