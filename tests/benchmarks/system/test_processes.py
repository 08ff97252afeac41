"""Two and four processes through every exchange, over gloo; one of them fails at each step in turn."""

import json
import multiprocessing
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from benchmarks.system import processes

STEPS = ("join", "barrier", "gather", "first_alone", "gradients", "leave")
LIMIT = 120  # seconds; the processes start side by side, and a busy machine takes long


def work(rank: int, count: int, port: int, fails: str, out: str) -> None:
    """Go through all steps; the last process ends just before the one that fails. Writes the line of an error."""
    from benchmarks.system.shortage import shortage_message
    from registry import UserError

    os.environ |= {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    found: dict[str, Any] = {}

    def reach(step: str) -> None:
        if step == fails and rank == count - 1:
            os._exit(3)

    def exchange() -> None:
        reach("join")
        processes.join("cpu")
        reach("barrier")
        processes.barrier()
        reach("gather")
        found["gathered"] = processes.gather({"rank": processes.rank()})
        reach("first_alone")
        with processes.first_alone():
            before = time.monotonic()
            time.sleep(0.2 if rank == 0 else 0)
            found["entered"] = before
        reach("gradients")
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
        model(torch.full((1, 1), float(rank))).backward()
        found["gradient"] = model.module.weight.grad.item()
        reach("leave")
        processes.leave()
        found["left"] = not distributed.is_initialized()

    try:
        exchange()
    except (UserError, RuntimeError) as error:
        found["error"] = str(error) if isinstance(error, UserError) else shortage_message(error)
    Path(out, f"{rank}.json").write_text(json.dumps(found))
    os._exit(0)  # past gloo's threads, as the command line does


def started(count: int, fails: str, out: Path) -> list[dict[str, Any]]:
    """What each process found, without the one that fails."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch.nn.parallel", "torch._dynamo"])
    running = [context.Process(target=work, args=(rank, count, port, fails, str(out))) for rank in range(count)]
    for process in running:
        process.start()
    until = time.monotonic() + LIMIT
    for process in running:
        process.join(max(0.1, until - time.monotonic()))
    hung = [rank for rank, process in enumerate(running) if process.is_alive()]
    for process in running:
        process.kill()
    assert hung == []
    alive = range(count if not fails else count - 1)
    assert [running[rank].exitcode for rank in alive] == [0] * len(alive)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in alive]


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_exchange(count: int, tmp_path: Path) -> None:
    found = started(count, "", tmp_path)
    for each in found:
        assert "error" not in each, each
        assert each["gathered"] == [{"rank": rank} for rank in range(count)] and each["left"]
        assert each["gradient"] == pytest.approx(sum(range(count)) / count)  # the mean of the inputs
        assert each is found[0] or each["entered"] >= found[0]["entered"] + 0.2


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("fails", STEPS[1:])
def test_a_process_that_ends_at_a_step_ends_the_others(count: int, fails: str, tmp_path: Path) -> None:
    """At once and in one line, although they would wait for days if it only were slow."""
    for found in started(count, fails, tmp_path):
        assert "lost the connection to another process" in found["error"]


class Joined(Exception):
    """Raised once the arguments of a call are known."""


def test_nccl_knows_its_device_and_does_not_wait_for_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ended is noticed by gloo at once, but by NCCL only at the time-out."""
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    calls = []
    monkeypatch.setattr(processes, "rendezvous", lambda *arguments, **more: iter([(distributed.HashStore(), 1, 2)]))
    monkeypatch.setattr(distributed, "init_process_group", lambda *names, **more: calls.append((names, more)))
    monkeypatch.setattr(distributed, "new_group", lambda **more: calls.append((("new",), more)))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    processes.join("cuda:1")
    ((backend,), gradients), (_, patient) = calls
    assert backend == "nccl" and gradients["device_id"] == torch.device("cuda:1")
    assert gradients["timeout"].total_seconds() <= 3600
    assert patient["backend"] == "gloo" and patient["timeout"].days >= 1
