"""InternViT's encoder against transformers' InternVLVisionModel, with the small weights and made-up ones."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cosine_similarity
from torch.utils.flop_counter import FlopCounterMode

from backbones.base import Preprocessing
from backbones.internvit_network import InternViTNetwork, make_encoder, run_layer
from registry import BACKBONES, UserError
from tools.speed.vit import plain_model

SYNTHLAM = Path(__file__).parents[2] / "benchmarks" / "data" / "synthlam" / "synthlam-2.tar.xz"
CONFIG: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 160,
    "image_size": 45,  # three pixels fill no patch
    "patch_size": 14,
    "qkv_bias": False,
    "qk_normalization": True,
    "norm_type": "rms_norm",
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-3,
}
STYLES = {"6b": {}, "300m": {"qkv_bias": True, "qk_normalization": False, "norm_type": "layer_norm"}}
PREPROCESSING = Preprocessing(size=45, resize=45)


def made_up(**changes: Any) -> InternViTNetwork:
    """Return a network in which every tensor affects the output: no zeros, no ones."""
    network = InternViTNetwork({**CONFIG, **changes})
    random = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=random)
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        parameter.data = noise / fan_in**0.5 if parameter.ndim in (2, 4) else 0.5 + 0.2 * noise
    return network.requires_grad_(False).eval()


def pixels_of(size: int, count: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def reference(network: InternViTNetwork, config: dict[str, Any]) -> nn.Module:
    """Return transformers' network with the same weights."""
    pytest.importorskip("transformers.models.internvl.modeling_internvl")
    model: Any = plain_model(network, config)
    for layer in model.encoder.layer:  # always 1e-6 there; the official code takes it from the configuration
        for norm in (layer.attention.q_norm, layer.attention.k_norm):
            norm.variance_epsilon = config["layer_norm_eps"]
    return model


@pytest.mark.parametrize("style", STYLES)
@torch.no_grad()
def test_the_last_layer_for_the_cls_token(style: str) -> None:
    """Every feature against transformers' forward pass, which computes all tokens of all layers."""
    network = made_up(**STYLES[style])
    model = reference(network, {**CONFIG, **STYLES[style]})
    pixels = pixels_of(45)
    hidden = model(pixel_values=PREPROCESSING.normalise(pixels)).last_hidden_state
    features = make_encoder(network, PREPROCESSING.normalise, torch.device("cpu"))(pixels)
    assert hidden[:, 0].std() > 0.1
    torch.testing.assert_close(features, hidden[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(network.tokens(PREPROCESSING.normalise(pixels)), hidden, atol=1e-5, rtol=0)


@torch.no_grad()
def test_larger_and_oblong_images_get_transformers_positions() -> None:
    network = made_up(image_size=42)
    model = reference(network, {**CONFIG, "image_size": 42})
    for height, width in ((56, 56), (42, 84), (28, 42)):
        images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2))
        hidden = model(pixel_values=images).last_hidden_state
        torch.testing.assert_close(network(images), hidden[:, 0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_nano_on_the_shipped_weights() -> None:
    nano = BACKBONES.build({"type": "internvit_nano"})
    config = {key: value for key, value in nano.architecture.items() if key not in ("name", "version")}
    model = reference(nano.network, config)
    pixels = pixels_of(112, 3)
    images = nano.preprocessing.normalise(pixels)
    features = nano.encoder("cpu")(pixels)
    torch.testing.assert_close(features, model(pixel_values=images).last_hidden_state[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(features, nano(images), atol=1e-5, rtol=0)
    assert features.shape == (3, 128)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_features_do_not_depend_on_the_batch(dtype: str) -> None:
    encode = make_encoder(made_up(), PREPROCESSING.normalise, torch.device("cpu"), dtype)
    pixels = pixels_of(45, 37)
    whole = encode(pixels)
    for size in (1, 5, 16, 36):
        assert torch.equal(torch.cat([encode(batch) for batch in pixels.split(size)]), whole)
    assert torch.equal(encode(pixels.flip(0)).flip(0), whole)
    assert encode(pixels[:0]).shape == (0, 64)


def test_dtypes() -> None:
    network = made_up()
    pixels = pixels_of(45)

    def features(dtype: str | None, network: InternViTNetwork = network) -> torch.Tensor:
        return make_encoder(network, PREPROCESSING.normalise, torch.device("cpu"), dtype)(pixels)

    exact = features(None)
    assert torch.equal(exact, features("float32"))
    for dtype in (torch.bfloat16, torch.float16):
        rounded = features(str(dtype).removeprefix("torch."))
        assert rounded.dtype == dtype
        torch.testing.assert_close(rounded.float(), exact, atol=0.1, rtol=0.02)
        assert torch.equal(features(None, copy.deepcopy(network).to(dtype)), rounded)
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    with pytest.raises(UserError, match="unknown dtype 'double'"):
        features("double")


def test_flops_are_those_that_torch_counts() -> None:
    network = made_up()
    # Attention written out: torch 2.6 does not count a CPU's own kernel for it.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network(torch.zeros(3, 3, 45, 45))
    assert counter.get_total_flops() == 3 * network.flops
    assert make_encoder(network, PREPROCESSING.normalise, torch.device("cpu")).flops == network.flops


def test_one_compilation_serves_all_layers() -> None:
    torch._dynamo.reset()  # other tests compile layers too
    network = made_up(num_hidden_layers=9)
    counter = CompileCounterWithBackend("aot_eager")
    run = torch.compile(run_layer, fullgraph=True, backend=counter)
    images = torch.zeros(16, 3, 45, 45)
    with torch.inference_mode():
        assert torch.equal(network(images, run), network(images))
        assert counter.frame_count == 1
        for count in (8, 4, 2):  # a second one for all other sizes of the batch
            network(images[:count], run)
    assert counter.frame_count == 2


def test_it_trains() -> None:
    network = made_up().requires_grad_(True)
    network(torch.ones(2, 3, 45, 45)).square().sum().backward()
    assert all(parameter.grad is not None for name, parameter in network.named_parameters())


# -- on a GPU -----------------------------------------------------------------------------------------------------


@pytest.mark.gpu("a CUDA device with 2 GB free; gcc and Python.h, or it tests the layers uncompiled")
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("dtype", "cosine"), [("float32", 1 - 1e-6), ("bfloat16", 0.999)])
def test_gpu_features_are_the_cpus(style: str, dtype: str, cosine: float) -> None:
    size, preprocessing = 112, Preprocessing(size=112, resize=112)
    network = made_up(**STYLES[style], hidden_size=256, intermediate_size=1024, image_size=size)
    pixels = pixels_of(size, 24)
    expected = make_encoder(network, preprocessing.normalise, torch.device("cpu"))(pixels)
    encode = make_encoder(network, preprocessing.normalise, torch.device("cuda"), dtype)
    features = encode(pixels[:16].cuda())
    kept = features.clone()
    assert cosine_similarity(features.cpu().float(), expected[:16]).min() >= cosine
    # A smaller batch is filled up, a larger one recorded again; what was returned before stays as it is.
    assert torch.equal(encode(pixels[:5].cuda()), features[:5])
    assert cosine_similarity(encode(pixels.cuda()).cpu().float(), expected).min() >= cosine
    assert torch.equal(features, kept)
