"""Cases: a scenario, a kind of fault, and its parameters drawn from a seed."""

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
    "interrupt twice": "SIGINT twice within half a second",
    "full disk": "no space left: a small tmpfs, or ENOSPC from some operation on",
    "read-only": "read-only folder: a tmpfs, or EROFS from some operation on",
    "failing write": "one operation fails; a write, after half of its bytes",
    "truncated": "a file cut short after a run, finished or killed",
    "flipped bit": "a bit flipped in a file after a run, finished or killed",
    "link": "a symbolic link to a file elsewhere under a name that the command writes, before or after a run",
    "special file": "a pipe, device, folder or endless file under such a name",
    "clock": "the clock moved back or forth, or the files' times",
    "two at once": "a second run on the same folder",
    "memory": "a failing allocation",
    "torchrun": "a killed worker of torchrun",
    "ray": "a killed Ray actor",
}
SIGNALS = {
    "kill": signal.SIGKILL,
    "term": signal.SIGTERM,
    "interrupt": signal.SIGINT,
    "interrupt twice": signal.SIGINT,
}
CLUSTERS = ("torchrun", "ray")
DAMAGES = ("truncated", "flipped bit")
PLACED = ("link", "special file")


@dataclass(frozen=True)
class Case:
    """One injection.

    Attributes:
        id: scenario/kind/number; together with the seed it determines the rest.
        scenario: name.
        kind: of fault.
        number: counts the cases of this scenario and kind.
        seed: of the draw.
        drawn: parameters; moments are shares of the undisturbed run's operations, calls or seconds.
    """

    id: str
    scenario: str
    kind: str
    number: int
    seed: int
    drawn: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, ready for JSON."""
        return asdict(self)


def draw(scenario: str, kind: str, number: int, seed: int) -> Case:
    """Draw a case; it does not depend on other draws."""
    name = f"{scenario}/{kind}/{number}"
    chance = random.Random(f"{seed} {name}")
    drawn: dict[str, Any] = {"share": chance.random()}
    if kind in SIGNALS:
        drawn["signal"] = int(SIGNALS[kind])
        # Most moments of the clock lie in computation; all moments of operations lie in the writing of files.
        drawn["by"] = chance.choice(["clock", "operation"])
        drawn["group"] = kind != "term" and chance.random() < (1.0 if "interrupt" in kind else 0.5)
        drawn["gap"] = chance.uniform(0.02, 0.5)
        drawn["fresh"] = chance.random() < 0.12
    elif kind in ("full disk", "read-only"):
        drawn["mount"] = chance.random() < 0.5
        drawn["errno"] = errno.ENOSPC if kind == "full disk" else errno.EROFS
    elif kind == "failing write":
        drawn["errno"] = chance.choice([errno.EIO, errno.ENOSPC, errno.EDQUOT])
    elif kind in DAMAGES:
        drawn["half-way"] = chance.random() < 0.4
        drawn["file"], drawn["place"], drawn["bit"] = chance.random(), chance.random(), chance.randrange(8)
    elif kind in PLACED:
        drawn["when"], drawn["file"] = chance.choice(["before", "half-way", "done"]), chance.random()
        targets = ["a file", "no file"] if kind == "link" else ["pipe", "device", "folder", "endless file"]
        drawn["what"] = chance.choice(targets)
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
    """Return `count` cases: each kind on each scenario in turn, limited to some commands and kinds if given.

    Torchrun and Ray are injected into extraction only.
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
