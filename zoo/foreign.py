"""What checkpoints of other programs hold beside a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_FIGURE = re.compile(r"map|acc|epoch|prec", re.IGNORECASE)


def figures(content: Any) -> dict[str, float]:
    """Return the numbers beside the tensors whose names mention mAP, accuracy, precision or epoch, by name."""
    found = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if not (isinstance(name, str) and _FIGURE.search(name)):
            continue
        if isinstance(value, np.number) or (isinstance(value, Tensor) and value.numel() == 1 and is_plain(value)):
            value = value.item()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15:  # not NaN
            found[name] = value
    return dict(sorted(found.items()))


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense and on the CPU: not sparse, quantised or without data."""
    return tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
