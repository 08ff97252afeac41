"""Checkpoints of unfinished trainings: one safetensors file, read as untrusted data.

A checkpoint is accepted only if this training could have written it: equal names, shapes and dtypes of tensors, and
numbers within their limits.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from backbones.checkpoints import all_finite
from benchmarks.config.recipe import Training
from registry import UserError, first_sentences
from zoo.files.atomic import replacing
from zoo.files.untrusted import checked, read_bytes

CHECKPOINT = "checkpoint.safetensors"  # in the seed's folder, while a training is unfinished
_AVERAGES = ("exp_avg", "exp_avg_sq")  # Adam's state per parameter, besides the step


class Epoch(TypedDict):
    """One epoch in a training's history."""

    epoch: int
    """From 1."""
    loss: float
    """Mean of the steps' losses."""
    val_mAP: float
    """Validation mAP, a fraction."""


@dataclass
class TrainingProgress:
    """Progress of a training.

    Attributes:
        lr: learning rate of the next step.
        epoch: number of finished epochs.
        best_epoch: the epoch with the best validation mAP, from 1; 0 before the first.
        best_map: validation mAP of the best epoch.
        best_state: weights of the best epoch, on the CPU.
        history: one entry per finished epoch.
    """

    lr: float
    epoch: int = 0
    best_epoch: int = 0
    best_map: float = -1.0
    best_state: dict[str, Tensor] = field(default_factory=dict)
    history: list[Epoch] = field(default_factory=list)

    def keep(self, loss: float, val_map: float, model: nn.Module) -> None:
        """Add a finished epoch; keep the model's weights if it is the best so far."""
        self.epoch += 1
        self.history.append({"epoch": self.epoch, "loss": loss, "val_mAP": val_map})
        if val_map > self.best_map:
            self.best_epoch, self.best_map = self.epoch, val_map
            self.best_state = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}

    @property
    def note(self) -> str:
        """The best validation mAP, for the progress bar."""
        return f"val mAP {100 * self.best_map:.2f}" if self.best_epoch else ""


class _Numbers(TypedDict):
    """A checkpoint's metadata: `TrainingProgress` without the weights."""

    epoch: int
    lr: float
    best_epoch: int
    best_map: float
    history: list[Epoch]


def save_state(folder: Path, model: nn.Module, optimizer: Optimizer, progress: TrainingProgress) -> None:
    """Write a checkpoint atomically: weights, Adam's state, best epoch, history, learning rate."""
    numbers = {name: getattr(progress, name) for name in _Numbers.__annotations__}
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in progress.best_state.items()}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})  # none for a parameter that never had a gradient
        tensors |= {f"adam.{key}.{name}": value for key, value in state.items()}
    write_state(folder / CHECKPOINT, tensors, numbers)


def write_state(path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Write tensors and numbers atomically, with a checksum."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(numbers)
    with replacing(path) as temporary:
        # Not save_file: it writes another temporary file, which a killed process would leave behind.
        temporary.write_bytes(safetensors.torch.save(tensors, {"training": text, "crc32": _crc32(text, tensors)}))


def resume(
    folder: Path, model: nn.Module, optimizer: Optimizer, progress: TrainingProgress, training: Training
) -> None:
    """Restore a training from its checkpoint, if there is one.

    Args:
        folder: of the seed.
        model: receives the weights.
        optimizer: Adam over the model's parameters; receives its state.
        progress: receives the epoch, the best epoch and the history.
        training: settings of the training.

    Raises:
        UserError: the checkpoint is damaged, or of another training.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return
    try:
        tensors, numbers = read_state(path)
        _check_numbers(numbers, training)
        _check_tensors(tensors, model)
    except Exception as error:  # safetensors fails in many ways on foreign bytes
        raise UserError(
            f"cannot resume from {path} ({type(error).__name__}: {first_sentences(error)}); delete it to restart this "
            "training"
        ) from error
    model.load_state_dict(_part(tensors, "model."))
    progress.best_state = _part(tensors, "best.")
    for name, value in numbers.items():
        setattr(progress, name, value)
    state = {}
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if f"adam.step.{name}" in tensors:
            # Copied into tensors with the memory format of the parameter.
            averages = {key: torch.empty_like(parameter).copy_(tensors[f"adam.{key}.{name}"]) for key in _AVERAGES}
            state[number] = {"step": tensors[f"adam.step.{name}"], **averages}
    groups = optimizer.state_dict()["param_groups"]
    groups[0]["lr"] = numbers["lr"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def read_state(path: Path) -> tuple[dict[str, Tensor], _Numbers]:
    """Read tensors and numbers that `write_state` wrote.

    Raises:
        Exception: of any type, from safetensors; the file is damaged, or is not a checkpoint.
    """
    content = read_bytes(path, "a checkpoint")
    tensors = safetensors.torch.load(content)
    # Parsed from the bytes, because safe_open would wait forever for a named pipe.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header.get("__metadata__", {})
    if metadata.get("crc32") != _crc32(metadata["training"], tensors):
        raise ValueError("damaged, its checksum differs")
    return tensors, checked(json.loads(metadata["training"]), _Numbers)


def _check_numbers(numbers: _Numbers, training: Training) -> None:
    """Raise a ValueError if this training could not have written the numbers."""
    if not 0 < numbers["epoch"] < training.epochs or len(numbers["history"]) != numbers["epoch"]:
        raise ValueError(f"it has {numbers['epoch']} epochs of {training.epochs}")
    if not 0 < numbers["best_epoch"] <= numbers["epoch"] or not 0 <= numbers["best_map"] <= 1:
        raise ValueError(f"its best epoch is {numbers['best_epoch']}, with mAP {numbers['best_map']}")
    if not 0 <= numbers["lr"] <= training.lr:
        raise ValueError(f"its learning rate is {numbers['lr']}")


def _check_tensors(tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    """Raise a ValueError if a training of this model could not have written the tensors."""
    state = model.state_dict()
    wanted = {f"{part}.{name}": tensor for part in ("model", "best") for name, tensor in state.items()}
    for name, parameter in model.named_parameters():
        if f"adam.step.{name}" in tensors:
            wanted |= {f"adam.{key}.{name}": parameter for key in _AVERAGES}
            wanted[f"adam.step.{name}"] = torch.zeros(())
    if tensors.keys() != wanted.keys():
        raise ValueError(f"tensor {min(tensors.keys() ^ wanted.keys())} is missing, or not of this training")
    for name, own in wanted.items():
        if (tensors[name].shape, tensors[name].dtype) != (own.shape, own.dtype):
            raise ValueError(f"tensor {name} has another shape or dtype than in this training")
        if not name.startswith("adam.") and not all_finite(tensors[name]):
            raise ValueError(f"tensor {name} has values that are NaN or infinite")


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _crc32(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Checksum of a checkpoint; safetensors files have none."""
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"
