"""Data-parallel training on CPU cores."""

import os

import torch
from torch import distributed, nn


class Processes:
    """The processes of torchrun, or this process alone; each learns from its own share of the crops."""

    def __init__(self) -> None:
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        if self.count > 1:
            distributed.init_process_group("gloo")

    @property
    def share(self) -> slice:
        """Rows that this process learns from."""
        return slice(self.rank, None, self.count)

    def begin_alike(self, network: nn.Module) -> None:
        """Copy the weights of the first process to all."""
        if self.count > 1:
            for tensor in network.state_dict().values():
                distributed.broadcast(tensor, 0)

    def agree(self, network: nn.Module, number: float) -> float:
        """Average the gradients over all processes; also return the average of ``number``."""
        if self.count == 1:
            return number
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.tensor([number])])
        distributed.all_reduce(flat)
        flat /= self.count
        for gradient, mean in zip(gradients, flat[:-1].split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
        return float(flat[-1])
