"""Steps of the check, and what running them gives."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch

from registry import UserError, first_sentences

PASSED, FAILED = "passed", "FAILED"


class Wrong(Exception):
    """A step ran and gave a wrong result."""


@dataclass(frozen=True)
class Step:
    """One check.

    Attributes:
        name: for `--only` and the table.
        needs: what it needs besides this package, in words.
        run: does it on a device, and returns facts for the record.
    """

    name: str
    needs: str
    run: Callable[[torch.device], dict[str, Any]]


class Outcome(TypedDict):
    """A step's line in the record."""

    step: str
    needs: str
    outcome: str
    seconds: float
    facts: dict[str, Any]


def run_steps(steps: Sequence[Step], device: torch.device) -> list[Outcome]:
    """Run all steps, also after one has failed; prints a line for each."""
    outcomes = []
    for step in steps:
        outcomes.append(_outcome(step, device))
        print(line(outcomes[-1]), flush=True)
    return outcomes


def line(outcome: Outcome) -> str:
    """A step's outcome in one line."""
    facts = ", ".join(f"{name} {value}" for name, value in outcome["facts"].items())
    return f"{outcome['step']:<12} {outcome['outcome']:<8} {outcome['seconds']:>7.1f} s  {facts}"


def require(holds: bool, what: str) -> None:
    """Fail the step unless something holds.

    Raises:
        Wrong: it does not.
    """
    if not holds:
        raise Wrong(what)


def _outcome(step: Step, device: torch.device) -> Outcome:
    started, outcome = time.perf_counter(), PASSED
    try:
        facts = step.run(device)
    except (Wrong, UserError) as error:
        facts, outcome = {"because": str(error)}, FAILED
    except Exception as error:  # of any type: kernels, compilers and drivers raise their own
        facts, outcome = {"because": f"{type(error).__name__}: {first_sentences(error)}"}, FAILED
    seconds = round(time.perf_counter() - started, 1)
    return {"step": step.name, "needs": step.needs, "outcome": outcome, "seconds": seconds, "facts": facts}
