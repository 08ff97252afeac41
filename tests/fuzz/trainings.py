"""Checkpoints of interrupted trainings."""

from __future__ import annotations

import copy
import functools
import io
import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from tests.fuzz.harness import Kind
from tests.fuzz.values import ODD, PLAIN, file_of, place, spoilt_bytes

TENSORS = (torch.zeros(0), torch.zeros(1), torch.full((3, 3), torch.nan), torch.zeros(2, dtype=torch.int64))


@functools.cache
def unfinished() -> dict[str, Any]:
    """Stop a training in its fourth epoch and return the `tensors` and `numbers` of its checkpoint."""
    from benchmarks.training import loop
    from benchmarks.training.checkpoint import CHECKPOINT, read_state
    from tests.benchmarks.training.test_train import run

    loss, calls = loop.cross_entropy, []

    def stop(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 20:
            raise KeyboardInterrupt
        return loss(*arguments)

    loop.cross_entropy = stop  # type: ignore[assignment]
    try:
        with tempfile.TemporaryDirectory() as folder:
            try:
                run(Path(folder))
            except KeyboardInterrupt:
                tensors, numbers = read_state(Path(folder) / "seed1" / CHECKPOINT)
                return {"tensors": tensors, "numbers": dict(numbers)}
    finally:
        loop.cross_entropy = loss
    raise AssertionError("the training was not stopped")


@st.composite
def spoilt_content(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """Paths in a checkpoint with their new values."""
    root = copy.deepcopy(unfinished())
    changes = []
    for _ in range(draw(st.integers(1, 2))):
        holder, path = root, []
        while isinstance(holder, (dict, list)) and len(holder):
            key = draw(
                st.sampled_from(sorted(holder, key=str) if isinstance(holder, dict) else list(range(len(holder))))
            )
            path.append(key)
            if not isinstance(holder[key], (dict, list)) or not draw(st.integers(0, 3)):
                break
            holder = holder[key]
        value = draw(st.sampled_from([*PLAIN[:20], "import os", *range(len(TENSORS))]))
        changes.append((path, value))
    return changes


def write_unfinished(folder: Path, case: Any) -> None:
    from benchmarks.training.checkpoint import CHECKPOINT, write_state

    target = folder / "run" / "seed1" / CHECKPOINT
    if isinstance(case, bytes) or case in ODD:
        place(target, case)
        return
    root = copy.deepcopy(unfinished())
    for path, value in case:
        holder = root
        try:
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = TENSORS[value] if type(value) is int and 0 <= value < len(TENSORS) else value
        except (KeyError, TypeError, IndexError):
            continue
    try:
        write_state(target, root["tensors"], root["numbers"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):  # safetensors or JSON cannot hold it
        place(target, b"")


def resume(folder: Path, case: object) -> None:
    from tests.benchmarks.training.test_train import run

    unfinished()
    run(folder / "run")


@functools.cache
def unfinished_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save(unfinished(), buffer)
    return buffer.getvalue()


KINDS = (
    Kind(
        "checkpoint of an unfinished training",
        st.deferred(lambda: st.one_of(spoilt_content(), spoilt_bytes(unfinished_bytes()), file_of(st.just(b"x")))),
        write_unfinished,
        resume,
        seconds=20,
    ),
)
