"""What every step of a pretraining needs: schedule, batches, loss and running average."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH = 64
DECAY = 0.999  # of the running average


@dataclass(frozen=True)
class Schedule:
    """Length, learning rate and seed of a pretraining.

    Attributes:
        minutes: of training. Time, not epochs, sets the schedule, so that a run on a busy machine ends on time.
        peak: highest learning rate.
        warm_up: share of the training in which the learning rate rises.
        seed: of weights, order and augmentation.
        every: minutes between two reports.
    """

    minutes: float
    peak: float
    warm_up: float
    seed: int = 0
    every: float = 5

    def rate(self, spent: float) -> float:
        """Return the learning rate after ``spent`` minutes: linear warm-up, then cosine to zero."""
        progress = spent / self.minutes
        if progress < self.warm_up:
            return self.peak * progress / self.warm_up
        return self.peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - self.warm_up) / (1 - self.warm_up))))


def batches(count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the row numbers of one epoch in random order, in full batches."""
    order = torch.randperm(count, generator=generator)
    yield from order[: count - count % BATCH].split(BATCH) if count >= BATCH else [order]


def huber(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Return the Huber loss of each number, quadratic up to a third."""
    return functional.huber_loss(predicted.float(), wanted, reduction="none", delta=1 / 3)


class Average:
    """Running average of a model's state: the weights that are shipped."""

    def __init__(self, model: nn.Module) -> None:
        self.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self.steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards ``model``; early steps count for more."""
        self.steps += 1
        share = 1 - min(DECAY, (1 + self.steps) / (10 + self.steps))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.state[name].lerp_(tensor, share)
            else:  # a count
                self.state[name].copy_(tensor)
