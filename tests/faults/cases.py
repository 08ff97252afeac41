"""Cases: a scenario, a kind of fault, and all that is left to chance about it, drawn from a seed."""

from __future__ import annotations

import errno
import random
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.faults.scenarios import SCENARIOS

KINDS = {
    "kill": "SIGKILL",
    "term": "SIGTERM",
    "interrupt": "SIGINT",
    "interrupt twice": "SIGINT, and again within half a second",
    "full disk": "no space left: a small tmpfs, or ENOSPC from one operation on",
    "read-only": "the folder read-only: a tmpfs mounted so, or EROFS from one operation on",
    "failing write": "one operation fails, a write after half of its bytes",
    "truncated": "a file cut short after the run, or after half of it",
    "flipped bit": "a bit flipped in a file after the run, or after half of it",
    "clock": "the clock set back or forth, and the files' times with it",
    "two at once": "a second run started on the same folder",
    "memory": "an allocation that fails",
    "torchrun": "a worker of torchrun killed",
    "ray": "a Ray actor killed",
}
SIGNALS = {
    "kill": signal.SIGKILL,
    "term": signal.SIGTERM,
    "interrupt": signal.SIGINT,
    "interrupt twice": signal.SIGINT,
}
CLUSTERS = ("torchrun", "ray")


@dataclass(frozen=True)
class Case:
    """One injection.

    Attributes:
        id: scenario/kind/number; with the seed it stands for everything else.
        scenario: name.
        kind: of fault.
        number: of this scenario and kind.
        seed: of the draw.
        drawn: what was drawn; shares of the undisturbed run's operations, calls or seconds, not yet numbers of them.
    """

    id: str
    scenario: str
    kind: str
    number: int
    seed: int
    drawn: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def draw(scenario: str, kind: str, number: int, seed: int) -> Case:
    """The case of this number: the same whatever else is drawn."""
    name = f"{scenario}/{kind}/{number}"
    chance = random.Random(f"{seed} {name}")
    drawn: dict[str, Any] = {"share": chance.random()}
    if kind in SIGNALS:
        drawn["signal"] = int(SIGNALS[kind])
        # By the clock most moments lie in computation, by operations all of them in the writing of files.
        drawn["by"] = chance.choice(["clock", "operation"])
        drawn["group"] = kind != "term" and chance.random() < (1.0 if "interrupt" in kind else 0.5)
        drawn["gap"] = chance.uniform(0.02, 0.5)
        drawn["fresh"] = chance.random() < 0.12
    elif kind in ("full disk", "read-only"):
        drawn["mount"] = chance.random() < 0.5
        drawn["errno"] = errno.ENOSPC if kind == "full disk" else errno.EROFS
    elif kind == "failing write":
        drawn["errno"] = chance.choice([errno.EIO, errno.ENOSPC, errno.EDQUOT])
    elif kind in ("truncated", "flipped bit"):
        drawn["half-way"] = chance.random() < 0.4
        drawn["file"], drawn["place"], drawn["bit"] = chance.random(), chance.random(), chance.randrange(8)
    elif kind == "clock":
        drawn["seconds"] = chance.choice([-1, 1]) * chance.choice([3600, 86400, 365 * 86400, 9 * 365 * 86400])
        drawn["half-way"] = chance.random() < 0.5
    elif kind == "memory":
        drawn["error"] = chance.choice(["allocator", "MemoryError", "OutOfMemoryError"])
    elif kind in CLUSTERS:
        drawn["wait"] = chance.uniform(0.0, 2.0)
        drawn["restarts"] = chance.choice([0, 3])
    return Case(name, scenario, kind, number, seed, drawn)


def cases(count: int, seed: int, commands: Sequence[str] = (), kinds: Sequence[str] = ()) -> list[Case]:
    """`count` cases: each kind on each scenario in turn, as far as the commands and kinds are asked for.

    Torchrun and Ray are for extraction alone.
    """
    pairs = [
        (scenario.name, kind)
        for kind in KINDS
        for scenario in SCENARIOS.values()
        if (not commands or scenario.command in commands or scenario.name in commands)
        and (not kinds or kind in kinds)
        and (kind not in CLUSTERS or scenario.name == "extract-images")
    ]
    return [draw(*pairs[place % len(pairs)], place // len(pairs), seed) for place in range(count)] if pairs else []
