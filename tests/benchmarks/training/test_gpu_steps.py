"""A training epoch on fake tensors on `cuda`: nothing is copied from the host within a step."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.config.recipe import Training
from benchmarks.features.windows import FeatureData
from benchmarks.training.job import TrainingJob
from benchmarks.training.loop import Loop
from registry import HEADS
from tests.pretended import on_fake_gpu

TRAINING = Training(epochs=1, batch_size=8, lr=1e-3, weight_decay=0.0, class_weight=None, seed=0)


class HostUses(TorchDispatchMode):
    """Lists operations that bring host tensors with numbers to the GPU: copies, and gathers by numbers on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [each for each in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.ndim}
        result = func(*args, **(kwargs or {}))
        to_gpu = isinstance(result, torch.Tensor) and result.device.type == "cuda" and devices == {"cpu"}
        if devices == {"cpu", "cuda"} or to_gpu:
            self.found.append(str(func))
        return result


class NoOptimizer:
    """An optimiser that changes nothing; gradients need a driver."""

    param_groups: list[dict[str, float]] = [{"lr": 0.0}]

    def step(self) -> None:
        """Do nothing."""

    def zero_grad(self) -> None:
        """Do nothing."""


def test_an_epochs_order_goes_to_the_gpu_once(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (1 << 30, 1 << 30))
    rows, labels = np.arange(14).reshape(2, 7).repeat(20, 0), np.tile([0, 1], 20)
    head = HEADS.build({"type": "probe", "feature_dim": 8})
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        data = FeatureData(torch.zeros(14, 8), rows, labels)
        job = TrainingJob(
            head_config={"type": "probe"}, backbone_config=None, training=TRAINING, data=data,
            validation=data, weights=torch.ones(2), to_score={}, folder=tmp_path, device="cuda", name="made up",
        )  # fmt: skip
        loop = Loop(on_fake_gpu(head, mode), job, 0)
        loop.optimizer = NoOptimizer()
        assert loop.data.rows.device.type == "cuda"
        with HostUses() as uses:
            losses = loop.train_epoch(0)
    assert losses.shape == (5,)  # 40 windows in batches of 8
    assert uses.found == ["aten._to_copy.default"]
