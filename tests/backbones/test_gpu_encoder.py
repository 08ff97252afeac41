"""The GPU's side of encoders, without a GPU: compilation, recorded kernels, float32."""

import logging
import subprocess
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

from backbones import encoding, internvit_network
from backbones.encoding import Encoder, Graphed
from backbones.internvit_network import InternViTNetwork, make_encoder, run_layer
from tests.pretended import pretended_gpu

CONFIG: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 28,
    "patch_size": 14,
    "qkv_bias": False,
    "qk_normalization": True,
    "norm_type": "rms_norm",
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
}


def network(**changes: Any) -> InternViTNetwork:
    return InternViTNetwork({**CONFIG, **changes}).requires_grad_(False).eval()


def as_images(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 255


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """Counts compilations, which are done without a compiler of C."""
    torch._dynamo.reset()
    backend = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return backend


def test_one_compilation_serves_every_batch_size(counter: CompileCounterWithBackend) -> None:
    one = network(intermediate_size=97)
    run = internvit_network.compiled_layer(one)
    images = torch.zeros(16, 3, 28, 28)
    with encoding.inference():
        assert torch.equal(one(images, run), one(images))
        for count in (32, 8, 5, 2):
            one(images[:1].expand(count, -1, -1, -1), run)
    assert counter.frame_count == 1
    assert internvit_network.compiled_layer(network(intermediate_size=97)) is run  # a second encoder


@torch._dynamo.config.patch(recompile_limit=2)
def test_many_networks_in_one_process(counter: CompileCounterWithBackend) -> None:
    """Compiling one function for all of them exceeds torch's limit (eight, here two), an error with fullgraph."""
    others = [network(intermediate_size=100 + number) for number in range(4)]
    shared = torch.compile(run_layer, fullgraph=True)
    x = torch.zeros(2, 5, 64)
    with torch.inference_mode(), pytest.raises(Exception, match="fullgraph|recompile_limit"):
        for one in others:
            shared(one.layers[0], x)
    before = counter.frame_count
    for one in others:
        run = internvit_network.compiled_layer(one)
        with encoding.inference():  # in which an encoder's tokens are made
            x = torch.zeros(2, 5, 64)
            assert torch.equal(run(one.layers[0], x), run_layer(one.layers[0], x))
    assert counter.frame_count == before + len(others)


def test_a_compiler_without_pythons_headers(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Triton fails at the first call, although gcc is there. The whole encoder runs on fake tensors on `cuda`."""
    tried = []

    def without_headers(function: Any, **options: Any) -> Any:
        def run(*arguments: Any) -> None:
            tried.append(function)
            raise subprocess.CalledProcessError(1, ["gcc", "main.c"], "Python.h: No such file or directory")

        return run

    monkeypatch.setattr(torch, "compile", without_headers)
    monkeypatch.setattr(internvit_network, "Graphed", lambda encode: encode)
    monkeypatch.setenv("CC", "gcc")
    with FakeTensorMode(), caplog.at_level(logging.WARNING):
        with torch.device("cuda"):
            one = network(intermediate_size=98)
        for count in (1, 3):
            encode = make_encoder(one, as_images, torch.device("cuda"))
            features = encode(torch.zeros(count, 28, 28, 3, dtype=torch.uint8, device="cuda"))
            assert features.device.type == "cuda" and features.shape == (count, 64)
    assert len(tried) == 1
    (record,) = caplog.records
    assert "torch.compile fails here (CalledProcessError" in record.getMessage()
    assert "apt install gcc python3-dev" in record.getMessage() and "\n" not in record.getMessage()


def test_memory_that_runs_out_does_not_switch_compilation_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(torch, "compile", lambda function, **options: full)
    with pytest.raises(torch.OutOfMemoryError):
        internvit_network.compiled_layer(network(intermediate_size=99))


class Recording:
    """`torch.cuda.graph`; its end fails too once its body has."""

    def __init__(self) -> None:
        self.arguments: list[dict[str, Any]] = []

    @contextmanager
    def __call__(self, graph: Any, **arguments: Any) -> Any:
        self.arguments.append(arguments)
        try:
            yield
        except RuntimeError:
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904 - as torch does


class Graph:
    """`torch.cuda.CUDAGraph`, whose replay computes nothing."""

    def replay(self) -> None:
        """Do nothing."""


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Recording:
    recording = Recording()
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    return recording


def test_kernels_are_recorded_on_their_own_stream_beside_other_threads(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pretended_gpu(monkeypatch):
        Graphed(lambda pixels: pixels.float())(torch.zeros(3, 2))
    (arguments,) = recording.arguments
    assert arguments["stream"] is not None and arguments["capture_error_mode"] == "thread_local"


def test_memory_that_runs_out_while_recording_is_not_hidden(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        if len(calls) == 3:  # after two for warming up
            raise torch.OutOfMemoryError("no room")
        return pixels.float()

    with pretended_gpu(monkeypatch):
        graphed = Graphed(encode)
        with pytest.raises(torch.OutOfMemoryError, match="no room"):
            graphed(torch.zeros(4, 2))
        assert graphed(torch.zeros(2, 2)).shape == (2, 2)


def test_float32_is_float32_on_a_gpu() -> None:
    flags = []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        flags.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return pixels

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with FakeTensorMode():
            Encoder(encode)(torch.zeros(2, device="cuda"))
        assert flags == [(False, False)]
        assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (before, True)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
