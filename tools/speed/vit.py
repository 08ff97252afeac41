"""InternViT with random weights, ours and transformers'. The weights do not affect the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from backbones.base import Backbone, Preprocessing, WeightsInfo
from backbones.internvit import InternViT
from backbones.internvit_network import InternViTNetwork

TINY: dict[str, Any] = dict(
    hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, image_size=224, patch_size=16,
    qkv_bias=True, qk_normalization=False, norm_type="layer_norm", hidden_act="gelu", layer_norm_eps=1e-6,
)  # fmt: skip
FULL: dict[str, Any] = dict(
    hidden_size=3200, num_hidden_layers=45, num_attention_heads=25, intermediate_size=12800, image_size=448,
    patch_size=14, qkv_bias=False, qk_normalization=True, norm_type="rms_norm", hidden_act="gelu", layer_norm_eps=1e-6,
)  # fmt: skip


class RandomInternViT(InternViT):
    """An untrained InternViT."""

    def __init__(self, config: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with device:
                network = InternViTNetwork(config)
                # Token and positions have the spread of published ones; layers keep torch's initial values.
                torch.nn.init.normal_(network.embeddings.class_embedding, std=0.02)
                torch.nn.init.normal_(network.embeddings.position_embedding, std=0.02)
        finally:
            torch.set_default_dtype(before)
        Backbone.__init__(
            self,
            network,
            architecture={"name": "random InternViT", **config},
            feature="CLS token",
            feature_dim=config["hidden_size"],
            preprocessing=Preprocessing(size=config["image_size"], resize=config["image_size"]),
            weights_info=WeightsInfo("random", "made", "0" * 64, "Apache-2.0", random_init=True),
        )


def plain_model(network: InternViTNetwork, config: Mapping[str, Any]) -> torch.nn.Module:
    """Return transformers' network with the same weights."""
    from transformers.models.internvl.configuration_internvl import InternVLVisionConfig
    from transformers.models.internvl.modeling_internvl import InternVLVisionModel

    names = dict(qkv_bias="attention_bias", qk_normalization="use_qk_norm")
    arguments: dict[str, Any] = {names.get(key, key): value for key, value in config.items()}
    # mean pooling switches off the final norm, which InternViT lacks; the mean is not used
    arguments |= dict(use_mean_pooling=True, attn_implementation="sdpa")
    model_config = InternVLVisionConfig(**arguments)
    with torch.device("meta"):
        model = InternVLVisionModel(model_config)
    renames = {
        "embeddings.class_embedding": "embeddings.cls_token",
        "embeddings.patch_embedding.": "embeddings.patch_embeddings.projection.",
        "embeddings.position_embedding": "embeddings.position_embeddings",
        "encoder.layers.": "encoder.layer.",
        ".attn.proj.": ".attention.projection_layer.",
        ".attn.": ".attention.",
        ".norm1.": ".layernorm_before.",
        ".norm2.": ".layernorm_after.",
        ".ls1": ".lambda_1",
        ".ls2": ".lambda_2",
    }
    state = {}
    for name, tensor in network.state_dict().items():
        for ours, theirs in renames.items():
            name = name.replace(ours, theirs)
        if ".attention.qkv." in name:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace(".qkv.", f".{part}_proj.")] = rows
        else:
            state[name] = tensor
    model.load_state_dict(state, assign=True)
    return model.eval()
