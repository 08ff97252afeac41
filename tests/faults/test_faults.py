"""The fault harness itself, in seconds; and, marked slow, a sample of its injections, in minutes."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.__main__ import RECORD, as_line, inject
from tests.faults.cases import CLUSTERS, KINDS, SIGNALS, cases, draw
from tests.faults.compare import contents, difference
from tests.faults.machine import ALL, CLOCK, FAIL, LASTING, ONCE, SIGNAL, Machine
from tests.faults.scenarios import COMMANDS, SCENARIOS
from tools.record_tables import MARKS, RELIABILITY_TABLES

# Writes three files, each in two halves and moved into place: 15 operations.
WRITER = """
import os, sys, time
print(int(time.time()))
for number in range(3):
    place = f"{sys.argv[1]}/{number}"
    try:
        descriptor = os.open(place + ".part", os.O_WRONLY | os.O_CREAT)
        for half in (b"one ", b"two "):
            os.write(descriptor, half)
        os.fsync(descriptor)
        os.close(descriptor)
        os.rename(place + ".part", place)
    except OSError as error:
        print(number, error.errno)
print(int(time.time()))
"""
OPERATIONS = 15


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    return Machine(tmp_path_factory.mktemp("machine"))


def write(machine: Machine, folder: Path, **what: int) -> tuple[int, list[str], dict[str, bytes], int]:
    """Run the writer under a fault; return exit status, printed lines, files and number of operations."""
    folder.mkdir()
    machine.arm(folder, **what)
    line = [sys.executable, "-S", "-c", WRITER, str(folder)]
    environment = {**os.environ, **machine.environment}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, start_new_session=True)
    return done.returncode, done.stdout.splitlines()[1:-1], contents(folder), machine.disarm()


def test_operations_are_counted_and_fail_on_request(machine: Machine, tmp_path: Path) -> None:
    whole = {str(number): b"one two " for number in range(3)}
    assert write(machine, tmp_path / "a") == (0, [], whole, OPERATIONS)
    # Operation 8 is the second write of the second file: half of its bytes are written.
    struck = write(machine, tmp_path / "b", action=FAIL, at=8, number=errno.EIO, lasting=ONCE)
    assert struck[:3] == (0, [f"1 {errno.EIO}"], {"0": b"one two ", "1.part": b"one tw", "2": b"one two "})
    struck = write(machine, tmp_path / "c", action=FAIL, at=5, number=errno.ENOSPC, lasting=LASTING)
    assert struck[1] == ["1 28", "2 28"] and struck[2] == {"0": b"one two "}  # a move needs no space
    struck = write(machine, tmp_path / "d", action=FAIL, at=5, number=errno.EROFS, lasting=ALL)
    assert struck[1] == ["0 30", "1 30", "2 30"] and struck[2] == {"0.part": b"one two "}
    struck = write(machine, tmp_path / "e", action=SIGNAL, at=8, number=signal.SIGKILL, group=0)
    assert (struck[0], struck[2]) == (-signal.SIGKILL, {"0": b"one two ", "1.part": b"one tw"})


def test_the_clock_is_set_back(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    machine.arm(tmp_path / "a", action=CLOCK, at=4, shift=-86400)
    line = [sys.executable, "-S", "-c", WRITER, str(tmp_path / "a")]
    done = subprocess.run(line, env={**os.environ, **machine.environment}, capture_output=True, text=True)
    machine.disarm()
    before, after = map(int, done.stdout.split())
    assert -86400 <= after - before < -86400 + 60


def test_seed_and_name_determine_a_case() -> None:
    drawn = cases(300, seed=5)
    assert len({case.id for case in drawn}) == 300
    assert {case.kind for case in drawn} == set(KINDS)
    assert {SCENARIOS[case.scenario].command for case in drawn} == set(COMMANDS)
    for case in drawn[::37]:
        assert draw(case.scenario, case.kind, case.number, 5) == case
        assert draw(case.scenario, case.kind, case.number, 6).drawn != case.drawn
    assert drawn[:20] == cases(20, seed=5)
    assert {case.kind for case in cases(9, 5, ["run"], ["kill", "ray"])} == {"kill"}
    assert set(SIGNALS) < set(KINDS) and set(CLUSTERS) < set(KINDS)


def test_every_byte_but_times_is_compared(tmp_path: Path) -> None:
    record = {"date": "a", "seconds": {}, "environment": {}, "training": [{"seconds": 1.0, "mAP": 0.5}], "name": "x"}
    for name, change in (("one", {}), ("times", {"date": "b", "training": [{"seconds": 2.0, "mAP": 0.5}]})):
        (tmp_path / name / "row").mkdir(parents=True)
        (tmp_path / name / "row" / "result.json").write_text(json.dumps({**record, **change}))
        (tmp_path / name / ".hidden.part").write_bytes(b"")
    one = contents(tmp_path / "one")
    assert difference(contents(tmp_path / "times"), one) == {}
    (tmp_path / "times" / "row" / "result.json").write_text(json.dumps({**record, "name": "y"}))
    (tmp_path / "times" / ".hidden.part").rename(tmp_path / "times" / ".other.part")
    assert difference(contents(tmp_path / "times"), one) == {
        "missing": [".hidden.part"],
        "left over": [".other.part"],
        "differ": ["row/result.json"],
    }


def test_the_document_shows_every_record_and_no_fault_did_harm() -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    rendered = {marks[1] for marks in MARKS.findall(RELIABILITY_TABLES.read_text(encoding="utf-8"))}
    # There is no record of a GPU before there is one; its place says so.
    assert rendered == {"gpu", *(path.stem for path in RECORD.parent.glob("*.json"))}
    outcomes = record["outcomes"]
    assert len({(outcome["id"], outcome["seed"]) for outcome in outcomes}) >= 200
    assert [outcome["id"] for outcome in outcomes if outcome["verdict"] != "same"] == []
    assert {outcome["kind"] for outcome in outcomes} == set(KINDS)
    assert {outcome["command"] for outcome in outcomes} == set(COMMANDS)


@pytest.mark.slow
def test_a_sample_of_faults_does_no_harm(tmp_path: Path, machine: Machine) -> None:
    """Each kind once or twice over all commands; `python -m tests.faults` injects hundreds."""
    every = [case for case in cases(2000, seed=2) if case.number == 0]
    sample = [case for number, case in enumerate(every) if number % 4 == 0 or case.kind in CLUSTERS]
    outcomes = inject(sample, tmp_path, jobs=2)
    assert [as_line(outcome) for outcome in outcomes if outcome["verdict"] != "same"] == []
