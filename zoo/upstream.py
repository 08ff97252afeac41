"""Checkpoints of the published programs -> the zoo's format: read without executing anything, checked name by name."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.checksums import file_sha256
from backbones.gaze_resnet import PREFIX as TRUNK
from registry import BACKBONES, HEADS, UserError
from zoo.cards import load_card
from zoo.files.atomic import write_json
from zoo.foreign import figures, is_plain, read_checkpoint
from zoo.weights import write_weights

WINDOW = 7  # frames; no tensor's shape tells, all published models have it

# Names that training programs give to the state dict, the likeliest first.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
_UNLICENSED = "unknown: the repository has no licence"


@dataclass(frozen=True)
class Tensors:
    """What a published model's checkpoint holds, and what becomes of it.

    Attributes:
        wanted: published name -> tensor of the right shape and dtype, without data.
        renamed: published name -> name in the zoo's file; a tensor that is not among them is dropped.
        backbone: configuration of the backbone in the file, if it holds one.
        head: configuration of the head in the file, if it holds a whole one.
    """

    wanted: dict[str, Tensor]
    renamed: dict[str, str]
    backbone: dict[str, Any] | None
    head: dict[str, Any] | None


@dataclass(frozen=True)
class Published:
    """One published model.

    Attributes:
        title: of its card.
        licence: of its checkpoints.
        tensors: shapes found, by published name -> what a checkpoint of these sizes holds.
        card: further words for its card: description and training.
    """

    title: str
    licence: str
    tensors: Callable[[Mapping[str, tuple[int, ...]]], Tensors]
    card: dict[str, str]


@dataclass(frozen=True)
class Imported:
    """What an import came to, for the command's line.

    Attributes:
        tensors: how many were kept.
        numbers: how many numbers they have.
        prefix: what was stripped off every name.
        converted: dtype -> how many tensors became float32 from it.
        dropped: published names that were left out.
        card: the card's file.
    """

    tensors: int
    numbers: int
    prefix: str
    converted: dict[str, int]
    dropped: list[str]
    card: Path


def import_checkpoint(source: Path, kind: str, output: Path) -> Imported:
    """Turn a published checkpoint into a safetensors file and its card, the same name with the suffix .json.

    Args:
        source: file that ``torch.save`` or safetensors wrote.
        kind: key of `PUBLISHED`.
        output: a ``.safetensors`` file; equal checkpoints give equal bytes.

    Raises:
        UserError: the file cannot be read, holds more than tensors and plain values, or is not a checkpoint of `kind`.
    """
    card = output.with_suffix(".json")
    if output.suffix != ".safetensors":
        raise UserError(f"-o {output}: the file must end in .safetensors")
    for path in (output, card):
        if path.exists() and source.exists() and path.samefile(source):
            raise UserError(f"-o {output} would overwrite the checkpoint itself; give another name")
    if card.exists():
        try:
            load_card(card)
        except UserError:
            raise UserError(f"-o {output}: {card} is there and no card; give another name") from None

    content = read_checkpoint(source)
    prefix, state, tensors = _find(content, kind, str(source))
    kept: dict[str, Tensor] = {}
    converted: dict[str, int] = {}
    for name, renamed in tensors.renamed.items():
        dtype = tensors.wanted[name].dtype
        if state[name].dtype != dtype:
            before = str(state[name].dtype).removeprefix("torch.")
            converted[before] = converted.get(before, 0) + 1
        kept[renamed] = state[name].detach().to(dtype, copy=True)  # a copy: stored views share memory
        if not kept[renamed].isfinite().all():
            raise UserError(f"{source}: tensor '{prefix}{name}' has numbers that are not finite; the file is no use")
    dropped = sorted(tensors.wanted.keys() - tensors.renamed.keys())

    published = PUBLISHED[kind]
    source_sha256 = file_sha256(source)
    parts = {"backbone": tensors.backbone, "head": tensors.head}
    about = {key: part for key, part in parts.items() if part is not None}
    sha256 = write_weights(
        output, kept, {**about, "kind": kind, "licence": published.licence, "source_sha256": source_sha256}
    )
    limits = [
        "The checkpoint's tensors are as published; that they reach the published figures was not measured here.",
        *([f"Left out of the checkpoint: {', '.join(dropped)}."] if dropped else []),
    ]
    if tensors.backbone is not None:
        parts["backbone"] = {**tensors.backbone, "weights": output.name}
    elif tensors.head is not None and tensors.head["feature_dim"] == 3200:
        parts["backbone"] = {"type": "internvit_6b"}
    write_json(
        card,
        {
            "title": published.title,
            **published.card,
            **parts,
            "limits": limits,
            "weights": [
                {
                    "file": output.name,
                    "origin": f"imported from {source.name}, sha256 {source_sha256}",
                    "sha256": sha256,
                    "licence": published.licence,
                }
            ],
            "figures": [
                {"metric": name, "value": value, "split": "validation", "source": "the checkpoint"}
                for name, value in figures(content).items()
            ],
        },
    )
    return Imported(len(kept), sum(tensor.numel() for tensor in kept.values()), prefix, converted, dropped, card)


# -- reading without executing ------------------------------------------------------------------------------------


def _find(content: Any, kind: str, where: str) -> tuple[str, dict[str, Tensor], Tensors]:
    """Find the state dict of a model in a checkpoint.

    Returns:
        The prefix of its names, its tensors without that prefix, and what the model is made of.

    Raises:
        UserError: there is none, or it does not fit; says how, and which other model it fits.
    """
    candidates = list(_state_dicts(content))
    if not candidates:
        found = ", ".join(map(repr, content)) if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise UserError(f"checkpoint {where} holds no tensors by name (found: {found[:200] or 'nothing'})")
    problems = {}
    for model in (kind, *(other for other in PUBLISHED if other != kind)):
        names = tensor_names(model)
        # Of several state dicts the one that fits best; of equals the first.
        prefix, state = max(
            ((_prefix(state, names), state) for state in candidates),
            key=lambda each: sum(each[0] + name in each[1] for name in names),
        )
        stripped = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        others = {
            f"{name} without '{prefix}'" if name in stripped else name: tensor
            for name, tensor in state.items()
            if not name.startswith(prefix)
        }
        shapes = {name: tuple(tensor.shape) for name, tensor in stripped.items()}
        try:
            tensors = PUBLISHED[model].tensors(shapes)
        except (UserError, ValueError, RuntimeError) as error:  # sizes that no such model has
            problems[model] = f"its sizes make no {model}: {error}"
            continue
        problem = _difference(stripped | others, tensors.wanted)
        if problem is None:
            if model == kind:
                return prefix, stripped, tensors
            hint = f"; it fits --as {model}"
            raise UserError(f"checkpoint {where} is no {kind} checkpoint: {problems[kind]}{hint}")
        stripping = f", '{prefix}' stripped" if prefix else ""
        problems[model] = (
            f"expected {len(tensors.wanted)} tensors ({_outline(tensors.wanted)}), "
            f"found {len(state)} ({_outline(stripped | others)}{stripping}): {problem}"
        )
    raise UserError(f"checkpoint {where} is no {kind} checkpoint: {problems[kind]}")


def _state_dicts(content: Any, depth: int = 3) -> Iterator[dict[str, Tensor]]:
    """The tensors by name of every dict in a checkpoint, the likeliest dict first."""
    if not isinstance(content, Mapping):
        return
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    inner = [name for name in content if isinstance(content[name], Mapping)]
    inner.sort(key=lambda name: _WRAPPERS.index(name) if name in _WRAPPERS else len(_WRAPPERS))
    if depth:
        for name in inner:
            yield from _state_dicts(content[name], depth - 1)
    if tensors:
        yield tensors


def _prefix(state: Mapping[str, Tensor], names: frozenset[str]) -> str:
    """The prefix under which a state dict has most of a model's names; the longest where several have as many."""
    hits = {"": 0}
    for found in state:
        parts = found.split(".")
        for count in range(len(parts)):
            if ".".join(parts[count:]) in names:
                prefix = "".join(f"{part}." for part in parts[:count])
                hits[prefix] = hits.get(prefix, 0) + 1
    return max(hits, key=lambda prefix: (hits[prefix], len(prefix)))


def _difference(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """What distinguishes a checkpoint's tensors from a model's, the first of each kind, or None."""
    problems = []
    for verb, names in (("lacks", wanted.keys() - found.keys()), ("has unknown", found.keys() - wanted.keys())):
        if names:
            shown = [f"'{name}' {tuple({**wanted, **found}[name].shape)}" for name in sorted(names)[:2]]
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            problems.append(f"it {verb} {', '.join(shown)}{more}")
    for name in sorted(wanted.keys() & found.keys()):
        one, other = found[name], wanted[name]
        if one.shape != other.shape:
            problems.append(f"'{name}' has shape {tuple(one.shape)}, expected {tuple(other.shape)}")
        elif one.is_floating_point() != other.is_floating_point() or one.is_complex():
            problems.append(f"'{name}' is of {one.dtype}, expected {other.dtype}".replace("torch.", ""))
        elif not is_plain(one):
            problems.append(f"'{name}' is not a plain tensor ({one.dtype}, {one.layout}, {one.device})")
        else:
            continue
        break
    return "; ".join(problems) or None


def _outline(tensors: Mapping[str, Any]) -> str:
    """The first parts of tensor names: `fc1, lstm, last_layer1, ...`."""
    first = list(dict.fromkeys(name.partition(".")[0] for name in tensors))
    return ", ".join(first[:4]) + (", ..." if len(first) > 4 else "")


# -- the published models -----------------------------------------------------------------------------------------


def _size(shapes: Mapping[str, tuple[int, ...]], name: str, axis: int, otherwise: int, rank: int = 2) -> int:
    """One side of a tensor, or the usual number where there is no such tensor."""
    shape = shapes.get(name, ())
    return shape[axis] if len(shape) == rank else otherwise


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str, start: int, otherwise: int) -> int:
    """How many tensors there are of consecutive numbers, or the usual number where there is none."""
    number = start
    while pattern.format(number) in shapes:
        number += 1
    return number - start or otherwise


def _head(config: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a head, without data."""
    with torch.device("meta"):
        return HEADS.build(config).state_dict()


@functools.cache
def _trunk() -> dict[str, Tensor]:
    """The tensors of the ResNet-18 trunk, without data, by published name."""
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
    """A model that is the trunk and a head."""
    wanted = _head(head)
    renamed = {name: TRUNK + name.removeprefix("base_model.") for name in _trunk()}
    renamed |= {name: f"head.{name}" for name in wanted}
    return Tensors({**_trunk(), **wanted}, renamed, {"type": "gaze_resnet18"}, head)


def _gazelstm(shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    return _with_trunk({"type": "gazelstm", "feature_dim": 256, "window": WINDOW})


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
    """The trunk, and the LSTM as a head would have it; the layer that gives gaze angles is left out."""
    whole = _gazelstm(shapes)
    kept = {name: renamed for name, renamed in whole.renamed.items() if not name.startswith("last_layer")}
    wanted = {name: whole.wanted[name] for name in kept}
    gaze = {"last_layer.weight": (3, 512), "last_layer.bias": (3,)}
    wanted |= {name: torch.empty(shape, device="meta") for name, shape in gaze.items()}
    return Tensors(wanted, kept, whole.backbone, None)


@functools.cache
def tensor_names(kind: str) -> frozenset[str]:
    """The names of a model's tensors at its published size."""
    return frozenset(PUBLISHED[kind].tensors({}).wanted)


PUBLISHED = {
    "internlstm": Published(
        "InternLSTM's head, imported",
        _UNLICENSED,
        _internlstm,
        {
            "description": "The bidirectional LSTM head of InternLSTM, over the features of a frozen InternViT-6B. "
            "zoo.weights.read_head reads it.",
            "training": "Ego4D Looking-At-Me, by whoever wrote the checkpoint; nothing was trained here.",
        },
    ),
    "gazelstm": Published(
        "GazeLSTM, imported",
        _UNLICENSED,
        _gazelstm,
        {
            "description": "Ego4D's Looking-At-Me baseline: a ResNet-18 trunk and a bidirectional LSTM. "
            "zoo.model.read_model reads both; backbone gaze_resnet18 takes the trunk alone.",
            "training": "Ego4D Looking-At-Me, by whoever wrote the checkpoint; nothing was trained here.",
        },
    ),
    "gazepose": Published(
        "GazePose, imported",
        _UNLICENSED,
        _gazepose,
        {
            "description": "GazePose: a ResNet-18 trunk, a bidirectional LSTM, and a transformer queried by head pose "
            "and facial landmarks. zoo.model.read_model reads both; backbone gaze_resnet18 takes the trunk alone.",
            "training": "Ego4D Looking-At-Me, by whoever wrote the checkpoint; nothing was trained here.",
        },
    ),
    "gaze360": Published(
        "Gaze360's trunk, imported",
        "Gaze360 research licence: non-commercial research only",
        _gaze360,
        {
            "description": "The ResNet-18 trunk of Gaze360's gaze estimator, for the backbone gaze_resnet18; its LSTM "
            "is in the file too, named as GazeLSTM's and GazePose's heads have it.",
            "training": "Gaze direction on Gaze360, by its authors; nothing was trained here.",
        },
    ),
}
