"""Single kernels and whole encoders on a device against the CPU, and a training step of an LSTM head."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import cosine_similarity

from backbones.encoding import inference
from backbones.internvit_network import InternViTNetwork, compiled_layer, make_encoder, run_layer
from heads.base import Window
from registry import BACKBONES, HEADS
from tools.check_gpu.steps import require

LIMITS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # of the largest difference, in shares of the largest value
TOKENS, WIDTH, HEADS_OF_6B = 1025, 3200, 25  # of InternViT-6B


def kernels(device: torch.device) -> dict[str, Any]:
    """Compare attention, RMSNorm and LayerScale, at the 6B's sizes for one image, with float64 on the CPU."""
    random = torch.Generator().manual_seed(0)
    x, y = (torch.randn(1, TOKENS, WIDTH, generator=random) for _ in range(2))
    scale = torch.rand(WIDTH, generator=random)
    given = device, x, y, scale
    found = {
        "attention": _differences(lambda x, y, scale: _attend(x, y), *given),
        "rms_norm": _differences(lambda x, y, scale: functional.rms_norm(x, scale.shape, scale, 1e-6), *given),
        "layer_scale": _differences(lambda x, y, scale: torch.addcmul(x, scale, y), *given),
    }
    for name, differences in found.items():
        for dtype, difference in zip(LIMITS, differences, strict=True):
            require(difference <= LIMITS[dtype], f"{name} in {dtype} differs from the CPU's by {difference:.1e}")
    return {name: " and ".join(f"{each:.0e}" for each in of) for name, of in found.items()}


def convolution(device: torch.device) -> dict[str, Any]:
    """Compare a convolution in float32 with the CPU's: TF32 would differ by a thousandth."""
    random = torch.Generator().manual_seed(0)
    images, weight = torch.randn(4, 64, 56, 56, generator=random), torch.randn(64, 64, 3, 3, generator=random)
    expected = functional.conv2d(images.double(), weight.double(), padding=1)
    with inference():
        found = functional.conv2d(images.to(device), weight.to(device), padding=1)
    difference = ((found.cpu().double() - expected).abs().max() / expected.abs().max()).item()
    require(difference < 1e-5, f"a convolution in float32 differs from the CPU's by {difference:.1e}; is TF32 on?")
    return {"difference": f"{difference:.0e}"}


def compilation(device: torch.device) -> dict[str, Any]:
    """Compile a layer, and compare it with the plain one."""
    network = nano().to(device)
    run = compiled_layer(network)
    require(run is not run_layer, "torch.compile fails; the line above says why")
    x = torch.randn(5, *network.embeddings.position_embedding.shape[1:], generator=torch.Generator().manual_seed(0))
    with inference():
        close = torch.allclose(
            run(network.layers[0], x.to(device)), run_layer(network.layers[0], x.to(device)), atol=1e-4
        )
    require(close, "the compiled layer differs from the plain one")
    return {}


def encoder(device: torch.device) -> dict[str, Any]:
    """Compare the small encoder with the CPU's: the recorded batch, other pixels, fewer images, more images."""
    network, backbone = nano(), BACKBONES.build({"type": "internvit_nano"})
    normalise, size = backbone.preprocessing.normalise, backbone.preprocessing.size
    pixels = torch.randint(0, 256, (40, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = make_encoder(network, normalise, torch.device("cpu"), "float32")(pixels)
    facts = {}
    for dtype, least in (("float32", 1 - 1e-6), ("bfloat16", 0.999)):
        encode = make_encoder(network, normalise, device, dtype)
        first = encode(pixels[:16].to(device))
        kept = first.clone()
        batches = {"recorded": (first, slice(16)), "other pixels": (encode(pixels[16:32].to(device)), slice(16, 32))}
        require(torch.equal(first, kept), "a later batch changed the features of an earlier one")
        batches["fewer"] = encode(pixels[:5].to(device)), slice(5)
        require(torch.equal(batches["fewer"][0], kept[:5]), "an image has other bits in a batch of fewer images")
        batches["more"] = encode(pixels.to(device)), slice(40)
        worst = 1.0
        for name, (found, where) in batches.items():
            cosine = cosine_similarity(found.cpu().float(), expected[where]).min().item()
            require(cosine >= least, f"features in {dtype} ({name}): cosine {cosine:.6f} with the CPU's, not {least}")
            worst = min(worst, cosine)
        facts[dtype] = f"cosine {worst:.7f}"
    return facts


def lstm_step(device: torch.device) -> dict[str, Any]:
    """Compare the gradients of an LSTM head with the CPU's in float32, and under autocast to bfloat16."""
    torch.manual_seed(0)
    head = HEADS.build(
        {"type": "lstm", "feature_dim": 64, "projection": 64, "hidden": 64, "mlp": (64,), "dropout": 0.0}
    )
    window = Window(torch.randn(32, 7, 64), torch.ones(32, 7, dtype=torch.bool))
    labels = torch.arange(32) % 2
    expected = _gradient(copy.deepcopy(head), window, labels, torch.device("cpu"), None)
    facts = {}
    for name, dtype, least in (("float32", None, 0.99999), ("bfloat16", torch.bfloat16, 0.99)):
        found = _gradient(copy.deepcopy(head), window, labels, device, dtype)
        require(bool(found.isfinite().all()), f"gradients in {name} are not finite")
        cosine = cosine_similarity(found.double(), expected.double(), dim=0).item()
        require(cosine >= least, f"gradients in {name}: cosine {cosine:.5f} with the CPU's, not {least}")
        facts[name] = f"cosine {cosine:.5f}"
    return facts


def nano() -> InternViTNetwork:
    """The small network that ships, in float32."""
    network: InternViTNetwork = BACKBONES.build({"type": "internvit_nano"}).network
    return network.float()


def _attend(x: Tensor, y: Tensor) -> Tensor:
    q, k = (each.unflatten(-1, (HEADS_OF_6B, -1)).transpose(1, 2) for each in (x, y))
    return functional.scaled_dot_product_attention(q, k, k)


def _differences(kernel: Callable[..., Tensor], device: torch.device, *given: Tensor) -> list[float]:
    """Largest difference from float64 on the CPU by dtype, in shares of the largest value."""
    found = []
    for dtype in LIMITS:
        rounded = [each.to(dtype) for each in given]
        expected = kernel(*(each.double() for each in rounded))
        with inference():
            result = kernel(*(each.to(device) for each in rounded)).cpu().double()
        found.append(((result - expected).abs().max() / expected.abs().max()).item())
    return found


def _gradient(head: Any, window: Window, labels: Tensor, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    """All gradients of one step as one vector, on the CPU."""
    head = head.to(device)
    with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        found = head(window.to(device))
    functional.cross_entropy(found.float(), labels.to(device)).backward()
    return torch.cat([parameter.grad.float().flatten().cpu() for parameter in head.parameters()])
