"""InternViT: OpenGVLab's 6B and 300M, the small one shipped with lamzoo, and other checkpoints in the same format.

A checkpoint is a folder as on the hub: ``config.json``, safetensors files with or without an index, and optionally
``preprocessor_config.json``. Python files in it are never executed. Tensors are memory-mapped and ``.to(device)`` moves
them one by one, so the host's memory holds at most one file at a time.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from backbones.base import Backbone, Preprocessing, WeightsInfo, check_state
from backbones.checkpoints import at_most, most_tensors
from backbones.checksums import file_sha256
from backbones.clip_processor import read_clip_processor
from backbones.encoding import Encoder
from backbones.hub import download_command, download_snapshot, is_hub_id
from backbones.internvit_network import NORMS, InternViTNetwork, make_encoder
from backbones.opening import read_small_json
from backbones.snapshots import read_tensors, weight_files
from registry import BACKBONES, UserError

NANO_FOLDER = Path(__file__).resolve().parent.parent / "zoo" / "weights" / "internvit_nano"
VERSION = 2  # of the computation; increased when the same weights give other bits

_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "image_size", "patch_size")
_SWITCHES = ("qkv_bias", "qk_normalization")
_LARGEST = 1_000_000  # limit of all sizes
# Keys that the first official configurations lack.
_DEFAULTS = {"norm_type": "rms_norm", "hidden_act": "gelu", "layer_norm_eps": 1e-6, "num_channels": 3}
_CHOICES: dict[str, Sequence[Any]] = {"norm_type": tuple(NORMS), "hidden_act": ("gelu",), "num_channels": (3,)}
FILES = ("config.json", "preprocessor_config.json", "model.safetensors.index.json", "*.safetensors")  # downloaded


def read_config(folder: Path) -> dict[str, Any]:
    """Read and validate the ``config.json`` of a checkpoint.

    Returns:
        The keys that determine the computation.

    Raises:
        UserError: the folder or file does not exist, is not JSON, lacks a key, or has an invalid value.
    """
    path = folder / "config.json"
    if not path.is_file():
        problem = "has no config.json" if folder.is_dir() else "does not exist"
        raise UserError(f"InternViT folder {folder} {problem}; it must hold config.json and the safetensors files")
    try:
        config = {**_DEFAULTS, **read_small_json(path)}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    for key in (*_SIZES, *_SWITCHES):
        if key not in config:
            raise UserError(f"{path} lacks '{key}'; it is not the configuration of an InternViT")
    for key in _SIZES:
        if type(config[key]) is not int or not 1 <= config[key] <= _LARGEST:
            raise UserError(f"{path}: {key} is {config[key]!r}; it must be a whole number from 1 to {_LARGEST:,}")
    for key in _SWITCHES:
        if type(config[key]) is not bool:
            raise UserError(f"{path}: {key} is {config[key]!r}; it must be true or false")
    if type(config["layer_norm_eps"]) is not float or not 0 < config["layer_norm_eps"] < 1:
        raise UserError(f"{path}: layer_norm_eps is {config['layer_norm_eps']!r}; it must be between 0 and 1")
    for key, choices in _CHOICES.items():
        if config[key] not in choices:
            raise UserError(f"{path}: {key} is {config[key]!r}; it must be {' or '.join(map(str, choices))}")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise UserError(
            f"{path}: hidden_size {config['hidden_size']} is not a multiple of num_attention_heads "
            f"{config['num_attention_heads']}"
        )
    return {key: config[key] for key in (*_SIZES, *_SWITCHES, "norm_type", "hidden_act", "layer_norm_eps")}


def read_preprocessing(folder: Path, config: Mapping[str, Any]) -> Preprocessing:
    """Read ``preprocessor_config.json``, written for CLIP's image processor.

    Without the file, the shorter edge is resized to the network's size.

    Raises:
        UserError: `Preprocessing` does not support the configuration, or its size is not the network's.
    """
    path, size = folder / "preprocessor_config.json", config["image_size"]
    return read_clip_processor(path, size) if os.path.lexists(path) else Preprocessing(size=size, resize=size)


def load_weights(network: nn.Module, files: Sequence[Path]) -> None:
    """Replace the parameters of ``network`` by a checkpoint's tensors, in their stored dtype, memory-mapped.

    Args:
        network: an `InternViTNetwork`, possibly on the meta device.
        files: safetensors files that together hold each tensor once.

    Raises:
        UserError: a file is damaged, or a tensor is missing, unknown, in two files, of the wrong shape, or of another
            dtype than the rest.
    """
    state = read_tensors(files)
    where = str(files[0]) if len(files) == 1 else f"{files[0].parent} ({len(files)} files)"
    check_state(state, network.state_dict(), where)
    dtype = next(iter(state.values())).dtype
    for key, tensor in state.items():
        if tensor.dtype != dtype or not tensor.is_floating_point():
            kinds = f"{tensor.dtype}, others {dtype}".replace("torch.", "")
            raise UserError(f"{where}: tensor '{key}' is {kinds}; all must have the same floating point dtype")
    network.load_state_dict(state, assign=True)


@BACKBONES.register_module(name="internvit")
class InternViT(Backbone):
    """InternViT from a folder or repository in OpenGVLab's format; the feature is the last layer's CLS token.

    There is no final norm. Weights keep their stored dtype (bfloat16 for the 6B, 11 GB).

    Args:
        model: the folder, or ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` on the hub; short form ``internvit:DIR``.
        frozen: exclude the network from training.

    Raises:
        UserError: the folder is incomplete or damaged (names file and tensor), or the repository is unavailable.
    """

    network: InternViTNetwork

    def __init__(self, model: str, frozen: bool = True) -> None:
        self._load(model, frozen)

    def _load(self, model: str, frozen: bool, name: str | None = None, licence: str = "unknown") -> None:
        if is_hub_id(model):
            folder, repository, commit = download_snapshot(model, FILES)
            name, origin = repository, f"hub:{repository}@{commit}"
            licence = "MIT" if repository.startswith("OpenGVLab/InternViT-") else licence
        else:
            folder = Path(model)
            name, origin = name or folder.resolve().name, model
        config = read_config(folder)
        files = weight_files(folder)
        with at_most(most_tensors(files), 0, str(folder)), torch.device("meta"):
            network = InternViTNetwork(config)
        load_weights(network, files)
        super().__init__(
            network,
            architecture={"name": "InternViT", "version": VERSION, **config},
            feature="CLS token of the last layer, no final norm",
            feature_dim=config["hidden_size"],
            preprocessing=read_preprocessing(folder, config),
            weights_info=WeightsInfo(name, origin, file_sha256(*files), licence),
            frozen=frozen,
        )

    def encoder(self, device: str | torch.device, dtype: str | None = None) -> Encoder:
        """Return the fastest function from pixels to features, as in `Backbone.encoder`."""
        return make_encoder(self.network, self.preprocessing.normalise, torch.device(device), dtype)


@BACKBONES.register_module(name="internvit_nano")
class InternViTNano(InternViT):
    """The small InternViT shipped with lamzoo: the InternLSTM recipes run with it offline on two cores.

    It stands in for InternViT-6B but is not comparable to it; tables that use it say so.
    """

    def __init__(self, frozen: bool = True) -> None:
        self._load(str(NANO_FOLDER), frozen, "internvit_nano", "Apache-2.0")


class _Published(InternViT):
    """A published InternViT. Its weights are large, so they are downloaded only on request."""

    repository: str
    gigabytes: float
    sizes: tuple[int, int]  # layers and width

    def __init__(self, weights: str | None = None, frozen: bool = True) -> None:
        if not weights:
            raise UserError(
                f"{self.repository} needs weights: give weights=DIR with a copy "
                f"({download_command(self.repository)}), or weights={self.repository} to download "
                f"{self.gigabytes} GB to the hub's cache"
            )
        self._load(weights, frozen)
        sizes = (self.architecture["num_hidden_layers"], self.feature_dim)
        if sizes != self.sizes:
            note = f"{sizes[0]} layers x {sizes[1]}, published are {self.sizes[0]} x {self.sizes[1]}"
            self.weights_info = replace(self.weights_info, name=f"{self.weights_info.name} ({note})")


@BACKBONES.register_module(name="internvit_6b")
class InternViT6B(_Published):
    """InternViT-6B-448px-V1-5, the backbone of InternLSTM: 45 layers, 3200 features per face, 11 GB of weights.

    Sizes come from the ``config.json`` beside the weights. Records name the weights after their folder.

    Args:
        weights: folder with a copy of OpenGVLab/InternViT-6B-448px-V1-5, or that name to download it.
        frozen: exclude the network from training.
    """

    repository = "OpenGVLab/InternViT-6B-448px-V1-5"
    gigabytes = 11
    sizes = (45, 3200)


@BACKBONES.register_module(name="internvit_300m")
class InternViT300M(_Published):
    """InternViT-300M-448px, distilled from the 6B: 24 layers, 1024 features per face.

    Sizes come from the ``config.json`` beside the weights. Records name the weights after their folder.

    Args:
        weights: folder with a copy of OpenGVLab/InternViT-300M-448px, or that name to download it.
        frozen: exclude the network from training.
    """

    repository = "OpenGVLab/InternViT-300M-448px"
    gigabytes = 0.6
    sizes = (24, 1024)
