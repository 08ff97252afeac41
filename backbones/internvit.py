"""InternViT: OpenGVLab's 6B and 300M, the small one shipped with the project, and any other folder in their format.

The network is transformers' ``InternVLVisionModel``, which computes what the official code does. That code is never
executed here; it fails on transformers 5. Folders hold ``config.json``, safetensors files with the official keys, and
may hold ``preprocessor_config.json``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from backbones.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backbone,
    Preprocessing,
    WeightsInfo,
    check_state,
    file_sha256,
)
from registry import BACKBONES, UserError

NANO_FOLDER = Path(__file__).resolve().parent.parent / "zoo" / "weights" / "internvit_nano"

# key of the official config.json -> argument of transformers' InternVLVisionConfig
_CONFIG = {
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "qkv_bias": "attention_bias",
    "qk_normalization": "use_qk_norm",
    "norm_type": "norm_type",
}
_CONFIG_DEFAULTS = {"hidden_act": "gelu", "layer_norm_eps": 1e-6}

# part of an official key -> part of transformers' key
_KEYS = {
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


def build_network(config: Mapping[str, Any]) -> nn.Module:
    """Build transformers' ``InternVLVisionModel``, with random weights, from an official ``config.json``.

    ``use_mean_pooling`` is what switches the final LayerNorm off: InternViT has none, and nothing is averaged.
    """
    # Two seconds of import, so only where a network is built.
    from transformers.models.internvl.configuration_internvl import InternVLVisionConfig
    from transformers.models.internvl.modeling_internvl import InternVLVisionModel

    arguments: dict[str, Any] = {ours: config[official] for official, ours in _CONFIG.items()}
    arguments |= {key: config.get(key, default) for key, default in _CONFIG_DEFAULTS.items()}
    arguments |= {"use_mean_pooling": True, "attn_implementation": "sdpa"}
    return InternVLVisionModel(InternVLVisionConfig(**arguments))


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename official tensors to transformers' names; ``attn.qkv`` becomes three."""
    renamed = {}
    for key, tensor in state.items():
        for official, ours in _KEYS.items():
            key = key.replace(official, ours)
        if ".attention.qkv." in key:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                renamed[key.replace(".qkv.", f".{part}_proj.")] = rows
        else:
            renamed[key] = tensor
    return renamed


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename transformers' tensors to the official names; the inverse of `from_official`."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if "_proj." in key:
            if ".q_proj." not in key:
                continue
            parts = [state[key.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            key, tensor = key.replace(".q_proj.", ".qkv."), torch.cat(parts)
        for official, ours in _KEYS.items():
            key = key.replace(ours, official)
        renamed[key] = tensor
    return renamed


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check ``config.json`` of a folder in the official format.

    Raises:
        UserError: no such folder or file, no JSON, or a key that is missing.
    """
    path = folder / "config.json"
    if not path.is_file():
        problem = "has no config.json" if folder.is_dir() else "does not exist"
        raise UserError(f"InternViT folder {folder} {problem}; it must hold config.json and the safetensors files")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    for key in _CONFIG:
        if key not in config:
            raise UserError(f"{path} lacks '{key}'; it is not the configuration of an InternViT")
    return config


def read_preprocessing(folder: Path, config: Mapping[str, Any]) -> Preprocessing:
    """Read ``preprocessor_config.json``, the CLIP image processor's; without one, the shorter edge fills the network.

    Raises:
        UserError: it asks for what `Preprocessing` cannot do, or for another size than the network's.
    """
    path = folder / "preprocessor_config.json"
    size = config["image_size"]
    if not path.is_file():
        return Preprocessing(size=size, resize=size)
    try:
        data = json.loads(path.read_text())
        edges = [data.get(key, size) for key in ("crop_size", "size")]
        crop, resize = (min(edge.values()) if isinstance(edge, dict) else int(edge) for edge in edges)
        preprocessing = Preprocessing(
            size=crop,
            resize=resize,
            interpolation={2: "bilinear", 3: "bicubic"}[data.get("resample", 3)],
            mean=tuple(data.get("image_mean", IMAGENET_MEAN)),
            std=tuple(data.get("image_std", IMAGENET_STD)),
        )
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is not a configuration of CLIP's image processor: {error!r}") from error
    if not size == crop <= resize:
        raise UserError(f"{path} resizes to {resize} and crops {crop}, but the network's image_size is {size}")
    return preprocessing


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of ``folder``, sorted: those its index names, or all where it has none.

    Raises:
        UserError: there is none, or the index names one that does not exist.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            files = sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{index} is no index of safetensors files: {error!r}") from error
    else:
        files = sorted(folder.glob("*.safetensors"))
    for file in files:
        if not file.is_file():
            raise UserError(f"{index} names {file.name}, which does not exist in {folder}")
    if not files:
        raise UserError(f"InternViT folder {folder} has no *.safetensors file")
    return files


def load_weights(network: nn.Module, files: list[Path]) -> None:
    """Put official weights into ``network``, in the dtype they are stored in.

    Args:
        network: from `build_network`; may be on the meta device, its parameters are replaced.
        files: safetensors files that together hold every tensor once.

    Raises:
        UserError: a damaged file, or a tensor that is missing, unknown, twice there, or of the wrong shape.
    """
    state: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - not a dict
                    if key in state:
                        raise UserError(f"{file}: tensor '{key}' is in another file too")
                    state[key] = tensors.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is damaged or no safetensors file: {error}") from error
    wanted = {key: tuple(tensor.shape) for key, tensor in to_official(network.state_dict()).items()}
    where = str(files[0]) if len(files) == 1 else f"{files[0].parent} ({len(files)} files)"
    check_state({key: tuple(tensor.shape) for key, tensor in state.items()}, wanted, where)
    network.load_state_dict(from_official(state), assign=True)


@BACKBONES.register_module(name="internvit")
class InternViT(Backbone):
    """InternViT from a folder in OpenGVLab's format; the feature is the last layer's CLS token, with no final norm.

    The weights keep the dtype they are stored in (bfloat16 for the 6B, 11 GB); ``.to(dtype)`` changes it.

    Args:
        model: the folder; ``internvit:DIR`` for short.
        frozen: no training.

    Raises:
        UserError: the folder is not what it should be; says which tensor of which file.
    """

    def __init__(self, model: str, frozen: bool = True) -> None:
        self._load(Path(model), name=Path(model).resolve().name, licence="unknown", frozen=frozen)

    def _load(
        self, folder: Path, name: str, licence: str, frozen: bool, expected: dict[str, int] | None = None
    ) -> None:
        config = read_config(folder)
        for key, value in (expected or {}).items():
            if config[key] != value:
                raise UserError(f"{folder / 'config.json'} is not that of {name}: {key} is {config[key]}, not {value}")
        files = weight_files(folder)
        with torch.device("meta"):
            network = build_network(config)
        load_weights(network, files)
        architecture = {key: config[key] for key in _CONFIG}
        architecture |= {key: config.get(key, default) for key, default in _CONFIG_DEFAULTS.items()}
        super().__init__(
            network,
            architecture={"name": "InternViT", **architecture},
            feature="CLS token of the last layer, no final norm",
            feature_dim=config["hidden_size"],
            preprocessing=read_preprocessing(folder, config),
            weights_info=WeightsInfo(name, str(folder), file_sha256(*files), licence),
            frozen=frozen,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the CLS token ``(B, D)`` of ``images (B, 3, H, W)``; sides are multiples of the patch.

        An input of another size than ``preprocessing.size`` gets its position embeddings by bicubic interpolation.
        """
        return self.network(pixel_values=images).last_hidden_state[:, 0]


@BACKBONES.register_module(name="internvit_nano")
class InternViTNano(InternViT):
    """The small InternViT that ships with the project, so that InternLSTM's path runs offline on two cores.

    It stands in for InternViT-6B and is not it: tables that use it say so.
    """

    def __init__(self, frozen: bool = True) -> None:
        self._load(NANO_FOLDER, "internvit_nano", "Apache-2.0", frozen)


def _needs_folder(name: str, weights: str | None) -> Path:
    if not weights:
        raise UserError(
            f"{name} needs its weights: weights=DIR, a copy of OpenGVLab/{name} (config.json, *.safetensors)"
        )
    return Path(weights)


@BACKBONES.register_module(name="internvit_6b")
class InternViT6B(InternViT):
    """InternViT-6B-448px-V1-5, the backbone of InternLSTM: 45 layers, 3200 numbers a face, 11 GB of weights.

    Args:
        weights: folder with a copy of OpenGVLab's repository; it is not downloaded.
        frozen: no training.
    """

    def __init__(self, weights: str | None = None, frozen: bool = True) -> None:
        name = "InternViT-6B-448px-V1-5"
        expected = {"hidden_size": 3200, "num_hidden_layers": 45, "num_attention_heads": 25}
        self._load(_needs_folder(name, weights), name, "MIT", frozen, expected)


@BACKBONES.register_module(name="internvit_300m")
class InternViT300M(InternViT):
    """InternViT-300M-448px, distilled from the 6B: 24 layers, 1024 numbers a face.

    Args:
        weights: folder with a copy of OpenGVLab's repository; it is not downloaded.
        frozen: no training.
    """

    def __init__(self, weights: str | None = None, frozen: bool = True) -> None:
        name = "InternViT-300M-448px"
        expected = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
        self._load(_needs_folder(name, weights), name, "MIT", frozen, expected)
