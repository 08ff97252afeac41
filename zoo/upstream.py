"""Imports published checkpoints into the zoo's format, after checking every tensor's name, shape and dtype."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from backbones.checksums import file_sha256
from backbones.foreign import read_checkpoint
from registry import UserError
from zoo.cards import load_card
from zoo.files.atomic import write_json
from zoo.foreign import figures, is_plain
from zoo.published import PUBLISHED, Tensors, tensor_names
from zoo.weights import write_weights

# Keys under which training programs store the state dict, the most likely first.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")


@dataclass(frozen=True)
class Imported:
    """Summary of an import.

    Attributes:
        tensors: number of tensors kept.
        numbers: number of elements in them.
        prefix: prefix stripped from every name.
        converted: original dtype -> number of tensors converted from it to float32.
        dropped: published names of the tensors that were dropped.
        card: path of the card.
    """

    tensors: int
    numbers: int
    prefix: str
    converted: dict[str, int]
    dropped: list[str]
    card: Path


def import_checkpoint(source: Path, kind: str, output: Path) -> Imported:
    """Convert a published checkpoint to a safetensors file and a card beside it (same name, suffix .json).

    Args:
        source: file written by ``torch.save`` or safetensors.
        kind: key of `PUBLISHED`.
        output: a ``.safetensors`` file. Equal checkpoints give equal bytes.

    Raises:
        UserError: the file cannot be read, holds objects other than tensors and plain values, or is not a checkpoint
            of `kind`.
    """
    card = output.with_suffix(".json")
    if output.suffix != ".safetensors":
        raise UserError(f"-o {output}: the file must end in .safetensors")
    for path in (output, card):
        if path.exists() and source.exists() and path.samefile(source):
            raise UserError(f"-o {output} would overwrite the checkpoint; choose another name")
    if card.exists():
        try:
            load_card(card)
        except UserError:
            raise UserError(f"-o {output}: {card} exists and is not a model card; choose another name") from None

    content = read_checkpoint(source)
    prefix, state, tensors = _find(content, kind, str(source))
    kept: dict[str, Tensor] = {}
    converted: dict[str, int] = {}
    for name, renamed in tensors.renamed.items():
        dtype = tensors.wanted[name].dtype
        if state[name].dtype != dtype:
            before = str(state[name].dtype).removeprefix("torch.")
            converted[before] = converted.get(before, 0) + 1
        kept[renamed] = state[name].detach().to(dtype, copy=True)  # copy: stored views share memory
        if not kept[renamed].isfinite().all():
            raise UserError(f"{source}: tensor '{prefix}{name}' has values that are not finite; use another checkpoint")
    dropped = sorted(tensors.wanted.keys() - tensors.renamed.keys())

    published = PUBLISHED[kind]
    source_sha256 = file_sha256(source)
    parts = {"backbone": tensors.backbone, "head": tensors.head}
    about = {key: part for key, part in parts.items() if part is not None}
    sha256 = write_weights(
        output, kept, {**about, "kind": kind, "licence": published.licence, "source_sha256": source_sha256}
    )
    limits = [
        "The tensors are the published ones; whether they reach the published figures was not measured.",
        *([f"Not imported from the checkpoint: {', '.join(dropped)}."] if dropped else []),
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


# -- finding the model in it --------------------------------------------------------------------------------------


def _find(content: Any, kind: str, where: str) -> tuple[str, dict[str, Tensor], Tensors]:
    """Find the state dict of a model in a checkpoint.

    Returns:
        The prefix of its names, its tensors without that prefix, and the model's tensors and parts.

    Raises:
        UserError: no state dict fits; gives the differences, and the name of another published model that fits.
    """
    candidates = list(_state_dicts(content))
    if not candidates:
        found = ", ".join(map(repr, content)) if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise UserError(f"checkpoint {where} holds no named tensors (found: {found[:200] or 'nothing'})")
    problems = {}
    for model in (kind, *(other for other in PUBLISHED if other != kind)):
        names = tensor_names(model)
        # Take the state dict with the most matching names, the first of equals.
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
        except (UserError, ValueError, RuntimeError) as error:  # sizes that the model cannot have
            problems[model] = f"its sizes do not fit {model}: {error}"
            continue
        problem = _mismatch(stripped | others, tensors.wanted)
        if problem is None:
            if model == kind:
                return prefix, stripped, tensors
            hint = f"; it fits --as {model}"
            raise UserError(f"checkpoint {where} does not fit --as {kind}: {problems[kind]}{hint}")
        stripping = f", '{prefix}' stripped" if prefix else ""
        problems[model] = (
            f"expected {len(tensors.wanted)} tensors ({_outline(tensors.wanted)}), "
            f"found {len(state)} ({_outline(stripped | others)}{stripping}): {problem}"
        )
    raise UserError(f"checkpoint {where} does not fit --as {kind}: {problems[kind]}")


def _state_dicts(content: Any, depth: int = 3) -> Iterator[dict[str, Tensor]]:
    """Yield the named tensors of every dict in a checkpoint, the most likely dict first."""
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
    """Return the prefix under which most of a model's names are found, the longest of equals."""
    hits = {"": 0}
    for found in state:
        parts = found.split(".")
        for count in range(len(parts)):
            if ".".join(parts[count:]) in names:
                prefix = "".join(f"{part}." for part in parts[:count])
                hits[prefix] = hits.get(prefix, 0) + 1
    return max(hits, key=lambda prefix: (hits[prefix], len(prefix)))


def _mismatch(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """Describe how a checkpoint's tensors differ from a model's, the first of each kind; None if they fit."""
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
            problems.append(f"'{name}' has dtype {one.dtype}, expected {other.dtype}".replace("torch.", ""))
        elif not is_plain(one):
            problems.append(f"'{name}' is not a plain tensor ({one.dtype}, {one.layout}, {one.device})")
        else:
            continue
        break
    return "; ".join(problems) or None


def _outline(tensors: Mapping[str, Any]) -> str:
    """Shorten a list of tensor names to their first parts: `fc1, lstm, last_layer1, ...`."""
    first = list(dict.fromkeys(name.partition(".")[0] for name in tensors))
    return ", ".join(first[:4]) + (", ..." if len(first) > 4 else "")
