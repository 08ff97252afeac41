"""ONNX export of a model's head and, if it is small enough, its backbone, checked against torch."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heads.base import Head, Window
from registry import UserError
from zoo.files.atomic import replacing
from zoo.models import Model

OPSET = 20
TOLERANCE = 1e-5  # largest absolute difference from torch on random input
LARGEST = 500_000_000  # parameters of a backbone: ONNX files are limited to 2 GB


class _OnFeatures(nn.Module):
    """A head that takes the two tensors of a window."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        return self.head(Window(features, present))


def check_packages() -> None:
    """Check that the packages that write and run ONNX files are installed.

    Raises:
        UserError: names the missing package.
    """
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--onnx needs the package {package}: pip install '.[onnx]'")


def write_onnx(model: Model, folder: Path) -> dict[str, float]:
    """Write `head.onnx` and, for a small backbone, `backbone.onnx`, and compare both with torch.

    `backbone.onnx` maps one ``image (1, 3, size, size)``, normalised as in `preprocessing` of `config.json`, to
    ``features (1, D)``. Its batch size is fixed because some networks do not export with a variable one. `head.onnx`
    maps ``features (N, T, D)`` and ``present (N, T)`` bool to ``logits (N, 2)`` for any N.

    Returns:
        File name -> largest absolute difference from torch on random input.

    Raises:
        UserError: the head needs more than features, ONNX lacks an operator, or the outputs differ.
    """
    head, backbone = model.network.head, model.network.backbone
    if head.map_channels is not None or head.needs_priors:
        raise UserError(f"head {type(head).__name__} needs more than features and cannot be exported to ONNX")
    random = torch.Generator().manual_seed(0)

    def windows(count: int) -> dict[str, Tensor]:
        features = torch.randn(count, head.window, head.feature_dim, generator=random)
        return {"features": features, "present": torch.rand(count, head.window, generator=random) < 0.8}

    def images(count: int) -> dict[str, Tensor]:
        size = backbone.preprocessing.size
        return {"image": torch.randn(count, 3, size, size, generator=random)}

    errors = {
        "head.onnx": write_graph(
            _OnFeatures(head), windows(2), [windows(1), windows(5)], "logits", folder / "head.onnx"
        )
    }
    if sum(parameter.numel() for parameter in backbone.parameters()) <= LARGEST:
        path = folder / "backbone.onnx"
        errors[path.name] = write_graph(backbone, images(1), [images(1), images(1)], "features", path)
    return errors


def write_graph(
    part: nn.Module, example: dict[str, Tensor], inputs: Sequence[dict[str, Tensor]], output: str, path: Path
) -> float:
    """Export one module and compare it with torch.

    The batch size is variable if `example` holds more than one.

    Returns:
        The largest absolute difference from torch over `inputs`.
    """
    # torch's newer exporter takes minutes to unroll a recurrent head. This one takes seconds, but lacks rms_norm.
    torch.onnx.register_custom_op_symbolic("aten::rms_norm", _rms_norm, OPSET)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # ONNX has no fused attention layer
    is_open = {name: {0: "N"} for name in (*example, output)} if len(next(iter(example.values()))) > 1 else {}
    try:
        with replacing(path) as temporary, torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecation of the exporter, and sizes that are the same in all windows
            torch.onnx.export(
                part.eval(),
                tuple(example.values()),
                str(temporary),
                input_names=[*example],
                output_names=[output],
                dynamic_axes=is_open,
                opset_version=OPSET,
                dynamo=False,
            )
            error = max(_difference(part, each, temporary) for each in inputs)
            if not error <= TOLERANCE:
                raise UserError(f"{path.name} would differ from torch by {error:.1e}; it was not written")
    except torch.onnx.errors.OnnxExporterError as error:
        raise UserError(f"{path.name} cannot be written: {str(error).partition(chr(10))[0]}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return error


@torch.onnx.symbolic_helper.parse_args("v", "is", "v", "f")
def _rms_norm(graph: Any, x: Any, shape: Sequence[int], weight: Any, eps: float) -> Any:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last axis."""
    square = graph.op("ReduceMean", graph.op("Mul", x, x), graph.op("Constant", value_t=torch.tensor([-1])))
    root = graph.op("Sqrt", graph.op("Add", square, graph.op("Constant", value_t=torch.tensor(eps))))
    return graph.op("Mul", graph.op("Div", x, root), weight)


def _difference(part: nn.Module, inputs: dict[str, Tensor], path: Path) -> float:
    """Return the largest absolute difference between onnxruntime and torch; infinity if onnxruntime fails."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    try:
        (found,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    except Exception:  # the exporter fixed the number of windows in the graph
        return math.inf
    return float(np.abs(found - part(*inputs.values()).numpy()).max())
