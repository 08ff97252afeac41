"""InternViT's network. Modules have the names of the published checkpoints, so their tensors load unchanged.

OpenGVLab's own code comes with the checkpoints and is never executed. `transformers` has the same network as
``InternVLVisionModel``. Here qkv is one matrix product, the last layer computes the CLS token only, and all layers
share one compiled function.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from backbones.encoding import Encoder, Graphed, dtype_named, dtype_of, in_passes, inference, moved
from registry import first_sentences

CACHED = 4 << 20  # bytes of a layer's widest activation that still fit a CPU's cache


class RMSNorm(nn.Module):
    """Root mean square norm over the last dimension."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)  # they differ under autocast, and the fused norm refuses mixed dtypes
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


NORMS: dict[str, Callable[[int, float], nn.Module]] = {"rms_norm": RMSNorm, "layer_norm": nn.LayerNorm}


class Embeddings(nn.Module):
    """Images ``(B, 3, H, W)`` -> tokens ``(B, 1 + patches, D)``, CLS first; incomplete patches are cut off."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, patch = config["hidden_size"], config["patch_size"]
        self.side = config["image_size"] // patch
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, width))
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch)
        self.position_embedding = nn.Parameter(torch.zeros(1, 1 + self.side**2, width))

    def forward(self, images: Tensor) -> Tensor:
        weight, bias = self.patch_embedding.weight, self.patch_embedding.bias
        width, channels, patch, _ = weight.shape
        rows, columns = images.shape[2] // patch, images.shape[3] // patch
        # Patches do not overlap, so the convolution is one matrix product; channels last, like the decoded pixels.
        pixels = images.to(weight.dtype).permute(0, 2, 3, 1)[:, : rows * patch, : columns * patch]
        pixels = pixels.reshape(len(images), rows, patch, columns, patch, channels).transpose(2, 3)
        pixels = pixels.reshape(len(images), rows * columns, patch * patch * channels)
        patches = functional.linear(pixels, weight.permute(0, 2, 3, 1).reshape(width, -1), bias)
        tokens = torch.cat([self.class_embedding.expand(len(images), -1, -1), patches], dim=1)
        return tokens + self.positions(rows, columns)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return position embeddings ``(1, 1 + rows * columns, D)``, bicubically resized if the grid differs."""
        if rows == columns == self.side:
            return self.position_embedding
        cls, patches = self.position_embedding.float().split([1, self.side**2], dim=1)
        grid = patches.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([cls, grid.flatten(2).transpose(1, 2)], dim=1).to(self.position_embedding.dtype)


class Attention(nn.Module):
    """Self-attention, with queries and keys optionally normalised over the whole width."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.heads = config["num_attention_heads"]
        self.qkv = nn.Linear(width, 3 * width, bias=config["qkv_bias"])
        self.proj = nn.Linear(width, width)
        self.q_norm = RMSNorm(width, eps) if config["qk_normalization"] else nn.Identity()
        self.k_norm = RMSNorm(width, eps) if config["qk_normalization"] else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self._attend(*self.qkv(x).chunk(3, dim=-1))

    def cls(self, x: Tensor) -> Tensor:
        """Return the CLS token of `forward`, ``(B, 1, D)``: all keys and values, one query."""
        width = x.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        q = functional.linear(x[:, :1], weight[:width], None if bias is None else bias[:width])
        kv = functional.linear(x, weight[width:], None if bias is None else bias[width:])
        return self._attend(q, *kv.chunk(2, dim=-1))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shape = (self.heads, -1)
        q, k, v = (part.unflatten(-1, shape).transpose(1, 2) for part in (self.q_norm(q), self.k_norm(k), v))
        attended = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with a GELU in between."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config["hidden_size"], config["intermediate_size"])
        self.fc2 = nn.Linear(config["intermediate_size"], config["hidden_size"])

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Layer(nn.Module):
    """Pre-norm transformer layer with LayerScale: ``(B, N, D)`` -> the same."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, norm = config["hidden_size"], NORMS[config["norm_type"]]
        self.norm1 = norm(width, config["layer_norm_eps"])
        self.norm2 = norm(width, config["layer_norm_eps"])
        self.attn = Attention(config)
        self.mlp = MLP(config)
        self.ls1 = nn.Parameter(torch.full((width,), 0.1))
        self.ls2 = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.addcmul(x, self.ls1, self.attn(self.norm1(x)))
        return torch.addcmul(x, self.ls2, self.mlp(self.norm2(x)))

    def cls(self, x: Tensor) -> Tensor:
        """Return the CLS token of `forward`, ``(B, D)``, at a sixth of the cost."""
        cls = torch.addcmul(x[:, :1], self.ls1, self.attn.cls(self.norm1(x)))
        return torch.addcmul(cls, self.ls2, self.mlp(self.norm2(cls)))[:, 0]


def run_layer(layer: Layer, x: Tensor) -> Tensor:
    """Apply ``layer`` to all tokens. This function is compiled, once for all layers of a network."""
    return layer(x)


class InternViTNetwork(nn.Module):
    """Images ``(B, 3, H, W)`` -> the CLS token of the last layer ``(B, D)``, without a final norm.

    Args:
        config: result of `backbones.internvit.read_config`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))}
        )

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers, first to last."""
        return cast(Sequence[Layer], self.encoder["layers"])

    def forward(self, images: Tensor, run: Callable[[Layer, Tensor], Tensor] = run_layer) -> Tensor:
        """Return the CLS token; ``run`` applies a layer to all tokens, compiled or not."""
        x = self.embeddings(images)
        for layer in self.layers[:-1]:
            x = run(layer, x)
        return self.layers[-1].cls(x)

    @property
    def flops(self) -> float:
        """Floating point operations of `forward` in matrix products, per image of the native size."""
        tokens, width = self.embeddings.position_embedding.shape[1:]
        attention, linears = 2 * tokens * width, 4 * width**2 + 2 * width * self.layers[-1].mlp.fc1.out_features
        patches = (tokens - 1) * self.embeddings.patch_embedding.weight.numel()
        last = (tokens - 1) * 2 * width**2 + attention + linears  # keys and values of the other tokens
        return 2.0 * (patches + (len(self.layers) - 1) * tokens * (attention + linears) + last)

    def tokens(self, images: Tensor) -> Tensor:
        """Return all tokens of the last layer, ``(B, 1 + patches, D)``, CLS first."""
        x = self.embeddings(images)
        for layer in self.layers:
            x = layer(x)
        return x


def make_encoder(
    network: InternViTNetwork, normalise: Callable[[Tensor], Tensor], device: torch.device, dtype: str | None = None
) -> Encoder:
    """Return the fastest function from pixels to features on ``device``; see `backbones.base.Backbone.encoder`.

    On a GPU, layers are compiled and the whole network is a CUDA graph.

    Args:
        network: the network; not modified.
        normalise: ``(B, H, W, 3)`` uint8 -> ``(B, 3, H, W)`` float32.
        device: device of pixels and features.
        dtype: name of the dtype; None for that of the weights.
    """
    network = moved(network, device, dtype_of(network) if dtype is None else dtype_named(dtype))
    wanted = dtype_of(network)
    run = compiled_layer(network) if device.type == "cuda" else run_layer

    def encode(pixels: Tensor) -> Tensor:
        return network(normalise(pixels).to(wanted), run)

    if device.type == "cuda":
        return Encoder(Graphed(encode), network.flops)
    tokens, widest = network.embeddings.position_embedding.shape[1], network.layers[-1].mlp.fc1.out_features
    fitting = CACHED // (tokens * widest * wanted.itemsize)
    size = next(size for size in (16, 8, 4, 2, 1) if size <= max(fitting, 1))
    return Encoder(in_passes(encode, size), network.flops)


_compiled: dict[tuple[Any, ...], Callable[[Layer, Tensor], Tensor]] = {}  # kind of layer -> `run_layer` for it


def compiled_layer(network: InternViTNetwork) -> Callable[[Layer, Tensor], Tensor]:
    """Return `run_layer`, compiled for any number of images; where that fails, log it and return `run_layer` itself.

    Compiling needs a C compiler and Python.h, so it is tried here, on two images. Networks whose layers have the same
    sizes share the result, whichever way it went.
    """
    layer, tokens = network.layers[0], network.embeddings.position_embedding.detach()
    sizes = ((name, tensor.shape) for name, tensor in layer.state_dict().items())
    kind = (tokens.device, tokens.dtype, layer.attn.heads, *sizes)
    if kind not in _compiled:
        # torch counts compilations per code object, and refuses the ninth.
        own = FunctionType(run_layer.__code__.replace(), run_layer.__globals__, run_layer.__name__)
        run = torch.compile(own, fullgraph=True, dynamic=True)
        try:
            with inference():
                run(layer, tokens.repeat(2, 1, 1))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of any type, from the compilers
            logging.getLogger(__name__).warning(
                "torch.compile fails here (%s: %s); norms and GELU are not fused, InternViT is slower; it needs gcc "
                "and Python.h (apt install gcc python3-dev)",
                type(error).__name__,
                first_sentences(error),
            )
            run = run_layer
        _compiled[kind] = run
    return _compiled[kind]
