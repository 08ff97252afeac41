"""The published models that `import` knows: their tensors, and how those are named in the zoo's files."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backbones.gaze_resnet import PREFIX as TRUNK
from registry import BACKBONES, HEADS

WINDOW = 7  # frames, in all published models; no tensor's shape shows it

_UNLICENSED = "unknown: the repository has no licence"


@dataclass(frozen=True)
class Tensors:
    """The tensors of a published checkpoint.

    Attributes:
        wanted: published name -> tensor of the right shape and dtype, without data.
        renamed: published name -> name in the zoo's file. Tensors without an entry are dropped.
        backbone: configuration of the backbone in the file, None if there is none.
        head: configuration of the head in the file, None if there is no complete one.
    """

    wanted: dict[str, Tensor]
    renamed: dict[str, str]
    backbone: dict[str, Any] | None
    head: dict[str, Any] | None


@dataclass(frozen=True)
class Published:
    """One published model.

    Attributes:
        title: title of the imported model's card.
        licence: licence of the checkpoints.
        tensors: takes the shapes in a checkpoint, by published name; returns the tensors of a model of these sizes.
        card: description and training, for the card.
    """

    title: str
    licence: str
    tensors: Callable[[Mapping[str, tuple[int, ...]]], Tensors]
    card: dict[str, str]


def _size(shapes: Mapping[str, tuple[int, ...]], name: str, axis: int, otherwise: int, rank: int = 2) -> int:
    """Return one dimension of a tensor; `otherwise` if there is no tensor of that name and rank."""
    shape = shapes.get(name, ())
    return shape[axis] if len(shape) == rank else otherwise


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str, start: int, otherwise: int) -> int:
    """Count the tensors numbered consecutively from `start`; `otherwise` if there are none."""
    number = start
    while pattern.format(number) in shapes:
        number += 1
    return number - start or otherwise


def _head(config: dict[str, Any]) -> dict[str, Tensor]:
    """Return a head's tensors, without data."""
    with torch.device("meta"):
        return HEADS.build(config).state_dict()


@functools.cache
def _trunk() -> dict[str, Tensor]:
    """Return the tensors of the ResNet-18 trunk by published name, without data."""
    with torch.device("meta"):
        state = BACKBONES.build({"type": "gaze_resnet18"}).network.state_dict()
    return {f"base_model.{name}": tensor for name, tensor in state.items()}


def _internlstm(shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    layers = _count(shapes, "last_layer{}.weight", 1, 4)
    usual = (1024, 512, 512)
    mlp = [
        _size(shapes, f"last_layer{index + 1}.weight", 0, usual[min(index, len(usual) - 1)])
        for index in range(layers - 1)
    ]
    head = {
        "type": "lstm",
        "feature_dim": _size(shapes, "fc1.weight", 1, 3200),
        "window": WINDOW,
        "projection": _size(shapes, "fc1.weight", 0, 1000),
        "hidden": _size(shapes, "lstm.weight_hh_l0", 1, 1000),
        "layers": _count(shapes, "lstm.weight_ih_l{}", 0, 2),
        "mlp": mlp,
        "dropout": 0.5,
    }
    wanted = _head(head)
    return Tensors(wanted, {name: name for name in wanted}, None, head)


def _with_trunk(head: dict[str, Any]) -> Tensors:
    """Return the tensors of a model made of the trunk and a head."""
    wanted = _head(head)
    renamed = {name: TRUNK + name.removeprefix("base_model.") for name in _trunk()}
    renamed |= {name: f"head.{name}" for name in wanted}
    return Tensors({**_trunk(), **wanted}, renamed, {"type": "gaze_resnet18"}, head)


def _gazelstm(shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """Ego4D's baseline has two linear layers after the LSTM, that of GazePose's authors has one."""
    single = shapes.get("last_layer.weight") == (2, 512)
    return _with_trunk(
        {"type": "gazelstm", "feature_dim": 256, "window": WINDOW, **({"bottleneck": None} if single else {})}
    )


def _gazepose(shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    layers = "transformer.{}.layers.{{}}.linear1.weight"
    return _with_trunk(
        {
            "type": "gazepose",
            "feature_dim": 256,
            "window": WINDOW,
            "width": _size(shapes, "headpos_emeb", 1, 256),
            "feed_forward": _size(shapes, layers.format("encoder").format(0), 0, 2048),
            "encoder_layers": _count(shapes, layers.format("encoder"), 0, 6),
            "decoder_layers": _count(shapes, layers.format("decoder"), 0, 6),
            "pose_bins": _size(shapes, "yaw_embed.weight", 0, 91),
            "grid": math.isqrt(_size(shapes, "joint_embed.weight", 0, 1681)),
            "confidence_bins": _size(shapes, "c_embed.weight", 0, 11),
        }
    )


def _gaze360(shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """Keep the trunk, and the LSTM under the names of a head; drop the layer that predicts gaze angles."""
    whole = _gazelstm(shapes)
    kept = {name: renamed for name, renamed in whole.renamed.items() if not name.startswith("last_layer")}
    wanted = {name: whole.wanted[name] for name in kept}
    gaze = {"last_layer.weight": (3, 512), "last_layer.bias": (3,)}
    wanted |= {name: torch.empty(shape, device="meta") for name, shape in gaze.items()}
    return Tensors(wanted, kept, whole.backbone, None)


@functools.cache
def tensor_names(kind: str) -> frozenset[str]:
    """Return the published names of a model's tensors at its published size."""
    return frozenset(PUBLISHED[kind].tensors({}).wanted)


PUBLISHED = {
    "internlstm": Published(
        "InternLSTM's head, imported",
        _UNLICENSED,
        _internlstm,
        {
            "description": "The bidirectional LSTM head of InternLSTM, for features of a frozen InternViT-6B. "
            "Read it with zoo.weights.read_head.",
            "training": "Ego4D Looking-At-Me, by the author of the checkpoint; lamzoo trained nothing.",
        },
    ),
    "gazelstm": Published(
        "GazeLSTM, imported",
        _UNLICENSED,
        _gazelstm,
        {
            "description": "Ego4D's Looking-At-Me baseline: a ResNet-18 trunk and a bidirectional LSTM. "
            "Read both with zoo.model.read_model, or only the trunk with backbone gaze_resnet18.",
            "training": "Ego4D Looking-At-Me, by the author of the checkpoint; lamzoo trained nothing.",
        },
    ),
    "gazepose": Published(
        "GazePose, imported",
        _UNLICENSED,
        _gazepose,
        {
            "description": "GazePose: a ResNet-18 trunk, a bidirectional LSTM, and a transformer queried by head pose "
            "and facial landmarks. Read all of it with zoo.model.read_model, or only the trunk with backbone "
            "gaze_resnet18. It was trained on head poses of deep-head-pose and landmarks of MediaPipe Pose; priors of "
            "other estimators give other scores.",
            "training": "Ego4D Looking-At-Me, by the author of the checkpoint; lamzoo trained nothing.",
        },
    ),
    "gaze360": Published(
        "Gaze360's trunk, imported",
        "Gaze360 research licence: non-commercial research only",
        _gaze360,
        {
            "description": "The ResNet-18 trunk of Gaze360's gaze estimator, for backbone gaze_resnet18. The file "
            "also holds its LSTM, with the tensor names of the heads gazelstm and gazepose.",
            "training": "Gaze direction on Gaze360, by its authors; lamzoo trained nothing.",
        },
    ),
}
