"""The checkpoint of an unfinished training: data of a run's folder, which whoever can write there may have put there.

It is taken for what this very training would have written, tensor by tensor and number by number, and for nothing else.
mmengine's own way to go on would download what looks like an address, make any object where torch lets it, and run the
text that a checkpoint calls its configuration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner
from torch import Tensor

from backbones.checkpoints import load_checkpoint
from registry import UserError

# Settings of optimizers and schedules that are other numbers in the middle of a training than at its start.
_MOVING = ("lr", "last_step", "_global_step", "_last_value")


def go_on(runner: Runner, path: Path, device: torch.device) -> None:
    """Bring a runner that is about to start to where a checkpoint of its training was written.

    Raises:
        UserError: the checkpoint is damaged, or of another training.
    """
    schedulers = runner.param_schedulers or []
    try:
        found = load_checkpoint(path, map_location=device)
        place = found["meta"]["epoch"], found["meta"]["iter"]
        if any(type(number) is not int for number in place) or not 0 < place[0] < runner.max_epochs or place[1] < 0:
            raise ValueError(f"its epoch and step are {place}")
        check_alike(found["state_dict"], runner.model.state_dict(), "state_dict")
        _check_optimizer(found["optimizer"], runner.optim_wrapper.optimizer)
        states = found["param_schedulers"] if schedulers else []
        check_alike(states, [each.state_dict() for each in schedulers], "param_schedulers")
        runner.call_hook("after_load_checkpoint", checkpoint=found)
    except Exception as error:  # on bytes that are no checkpoint of this training, torch fails in any way
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} cannot be gone on from ({type(error).__name__}: {reason}); delete {path.parent}, and the training "
            "starts anew"
        ) from error
    runner.model.load_state_dict(found["state_dict"])
    runner.optim_wrapper.load_state_dict(found["optimizer"])
    for scheduler, state in zip(schedulers, states, strict=True):
        scheduler.load_state_dict(state)
    runner.train_loop._epoch, runner.train_loop._iter = place


def check_alike(found: Any, own: Any, where: str, moving: bool = False) -> None:
    """Check that what a checkpoint holds is what this training has there: tensors of these shapes, these settings.

    Args:
        found: in the checkpoint.
        own: of this training.
        where: it was found, for the message.
        moving: other numbers will do.

    Raises:
        ValueError: it is not.
    """
    if isinstance(own, Mapping):
        if not isinstance(found, Mapping) or found.keys() != own.keys():
            raise ValueError(f"{where} has other entries than this training's")
        for key, value in own.items():
            check_alike(found[key], value, f"{where}.{key}", moving or key in _MOVING)
    elif isinstance(own, (list, tuple)):
        if not isinstance(found, (list, tuple)) or len(found) != len(own):
            raise ValueError(f"{where} is not of this training's length")
        for number, (one, other) in enumerate(zip(found, own, strict=True)):
            check_alike(one, other, f"{where}.{number}", moving)
    elif isinstance(own, Tensor):
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (own.shape, own.dtype):
            raise ValueError(f"{where} is no tensor like this training's")
    elif moving:
        if type(found) not in (int, float) or not math.isfinite(found):
            raise ValueError(f"{where} is {found!r:.50}")
    elif type(found) is not type(own) or found != own:
        raise ValueError(f"{where} is {found!r:.50}, this training's is {own!r:.50}")


def _check_optimizer(found: Any, optimizer: torch.optim.Optimizer) -> None:
    """Check an optimizer's state: its settings, and for each parameter Adam's step and two averages."""
    own = optimizer.state_dict()
    check_alike(found["param_groups"], own["param_groups"], "optimizer.param_groups")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    wanted = {
        number: {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
        for number, parameter in enumerate(parameters)
        if number in found["state"]  # what took no gradient has none
    }
    check_alike(found["state"], wanted, "optimizer.state")
