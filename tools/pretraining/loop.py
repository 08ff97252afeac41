"""The loop of all pretrainings: a step, the schedule by the clock, resuming, reports, and the command line."""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tools.pretraining.processes import Processes
from tools.pretraining.renders import Renders, together
from tools.pretraining.steps import Average, Schedule, batches
from zoo.files.atomic import replacing, write_json

WEIGHT_DECAY = 0.05


class Training:
    """A pretraining in progress; subclasses say what its `loss` is.

    Args:
        network: that learns.
        parameters: of the optimiser: those of the network, or groups of them.
        schedule: of the training.
        processes: that share the work.

    Attributes:
        spent: minutes.
        seen: crops, of all processes.
    """

    def __init__(self, network: nn.Module, parameters: Iterable[Any], schedule: Schedule, processes: Processes) -> None:
        self.network = network
        self.schedule = schedule
        self.processes = processes
        self.generator = torch.Generator().manual_seed(schedule.seed + processes.rank)
        self.optimizer = torch.optim.AdamW(parameters, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98), fused=True)
        self.average = Average(network)
        self.spent, self.seen = 0.0, 0
        self._started = time.monotonic()

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch of ``images (B, S, S, 3)`` uint8 with ``targets (B, len(NAMES))``."""
        raise NotImplementedError

    def step(self, images: Tensor, targets: Tensor) -> float:
        """Learn from a batch, and return its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.spent)
        loss = self.loss(images, targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.spent = self.processes.agree(self.network, (time.monotonic() - self._started) / 60)
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.network)
        self.seen += len(images) * self.processes.count
        return loss.item()

    def facts(self) -> dict[str, Any]:
        """Minutes, steps and crops so far."""
        return {"minutes": round(self.spent, 2), "steps": self.average.steps, "crops": self.seen}

    def save(self, path: Path) -> None:
        """Write everything that `resume` needs."""
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state,
        }
        with replacing(path) as temporary:
            torch.save({**state, "spent": self.spent, "steps": self.average.steps, "seen": self.seen}, temporary)

    def resume(self, path: Path) -> None:
        """Continue from a saved state."""
        saved = torch.load(path, weights_only=True)
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average.state, self.average.steps = saved["average"], saved["steps"]
        self.spent, self.seen = saved["spent"], saved["seen"]
        self._started = time.monotonic() - self.spent * 60


def run(
    work: Training,
    crops: Renders,
    more: Callable[[], Renders | None],
    out: Path,
    write: Callable[[dict[str, Any]], str],
) -> None:
    """Train until the schedule ends; write weights and a report every few minutes and at the end.

    Args:
        work: the training. Its minutes include earlier runs into the same folder.
        crops: to learn from.
        more: returns the crops that have been added since it was last called, or None; called before each epoch.
        out: folder. ``training.pt`` in it lets an interrupted training resume; it is deleted at the end.
        write: takes the training's facts, writes weights and report, and returns a line to print.
    """
    state = out / "training.pt"
    out.mkdir(parents=True, exist_ok=True)
    if state.is_file():
        work.resume(state)
    reported, losses = work.spent, []
    while work.spent < work.schedule.minutes:
        added = more()
        if added is not None:
            crops = together([crops, added])
        for rows in batches(len(crops), work.generator):
            losses.append(work.step(crops.images[rows], crops.targets[rows]))
            if work.spent >= work.schedule.minutes:
                break
            if work.spent - reported >= work.schedule.every:
                if work.processes.rank == 0:
                    line = write(work.facts())
                    work.save(state)
                    print(f"{work.spent:.1f} min, {work.seen} crops, loss {np.mean(losses):.4f}, {line}", flush=True)
                reported, losses = work.spent, []
    if work.processes.rank == 0:
        write(work.facts() | {"distinct": len(crops) * work.processes.count})
        state.unlink(missing_ok=True)


def update_card(card: Path, report: dict[str, Any], figures: Iterable[tuple[str, float, str]]) -> None:
    """Replace hash and figures in a model's card; keep its text.

    Args:
        card: named like the model's folder below ``zoo/weights``.
        report: ``pretraining.json``.
        figures: metric, value and split of each.
    """
    source = f"zoo/weights/{card.stem}/pretraining.json"
    data = json.loads(card.read_text(encoding="utf-8"))
    data["weights"][0]["sha256"] = report["sha256"]
    data["figures"] = [{"metric": m, "value": v, "split": split, "source": source} for m, v, split in figures]
    write_json(card, data)


def argument_parser(doc: str | None, minutes: float) -> argparse.ArgumentParser:
    """Return a parser with the arguments of every pretraining.

    Args:
        doc: the tool's docstring, whose first line is the description.
        minutes: default of ``--minutes``.
    """
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--renders", type=Path, required=True, help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--minutes", type=float, default=minutes, help="training time (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    return parser
