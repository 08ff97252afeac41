"""A pretended GPU: code that asks for `cuda` computes on the CPU, and CUDA's streams and events do nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode


class PretendedGPU(TorchFunctionMode):
    """Sends tensors for `cuda` to the CPU.

    Args:
        before: called before each allocation on the GPU or of pinned memory with the name of the function; may raise.
    """

    def __init__(self, before: Callable[[str], None] = lambda name: None) -> None:
        super().__init__()
        self._before = before

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        pinned = kwargs.pop("pin_memory", False) or name == "pin_memory"
        on_gpu = any(_is_gpu(each) for each in (*args[1:], kwargs.get("device")))
        if pinned or on_gpu:
            self._before(name)
        if name == "pin_memory":
            return args[0]
        if _is_gpu(kwargs.get("device")):
            kwargs["device"] = torch.device("cpu")
        others = (torch.device("cpu") if _is_gpu(each) else each for each in args[1:])
        return func(*args[:1], *others, **kwargs)


def _is_gpu(value: Any) -> bool:
    return (isinstance(value, torch.device) and value.type == "cuda") or (
        isinstance(value, str) and value.startswith("cuda")
    )


class Event:
    """An event; the class lists those that were made with their arguments."""

    made: list[dict[str, Any]] = []

    def __init__(self, **arguments: Any) -> None:
        Event.made.append(arguments)

    def record(self, stream: Any = None) -> None:
        """Do nothing."""

    def synchronize(self) -> None:
        """Do nothing."""


class Stream:
    """A stream."""

    def __init__(self, device: Any = None) -> None: ...

    def wait_stream(self, stream: Any) -> None:
        """Do nothing."""

    def record_event(self) -> Event:
        """Return an event as torch makes it, without blocking."""
        return Event()


@contextmanager
def pretended_gpu(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[str], None] = lambda name: None
) -> Iterator[PretendedGPU]:
    """Replace what needs a driver, and send tensors for `cuda` to the CPU."""
    Event.made.clear()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream())
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    with PretendedGPU(before) as mode:
        yield mode


def on_fake_gpu(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Put fake tensors on `cuda` in place of a module's parameters; torch's own `to` cannot."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            fake = mode.from_tensor(parameter.detach()).to("cuda")
            setattr(part, name, nn.Parameter(fake, parameter.requires_grad))
    module.to = lambda device: module  # type: ignore[method-assign, assignment]
    return module
