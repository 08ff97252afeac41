"""Ctrl-C and SIGTERM as a process gets them: once, twice, with work under way and without."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent

# Two steps, each of which waits for a line; without `steps` around them when asked.
PROGRAM = """
import sys
from benchmarks.system import interrupts

interrupts.command = "bench.py toil"
interrupts.heed()
try:
    for step in interrupts.steps(range(2)) if sys.argv[1] == "steps" else range(2):
        print("begun", step, flush=True)
        sys.stdin.readline()
        print("kept", step, flush=True)
except KeyboardInterrupt as stopped:
    sys.exit(interrupts.leave(stopped))
"""
LINE = "bench.py toil: interrupted; what is finished is kept, the same command goes on from there\n"


def start(how: str, **options: object) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        cwd=HOME,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore interrupts, and so does what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )
    assert process.stdout.readline() == "begun 0\n"
    return process


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_once_the_step_is_finished(sent: int, status: int) -> None:
    process = start("steps")
    process.send_signal(sent)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    output, errors = process.communicate("\n\n", timeout=30)
    assert (process.returncode, output, errors) == (status, "kept 0\n", LINE)


@pytest.mark.parametrize("how", ["steps", "none"])
def test_twice_or_with_nothing_to_keep_it_ends_now(how: str) -> None:
    process = start(how)
    process.send_signal(signal.SIGINT)
    if how == "steps":
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGINT)
    process.wait(timeout=30)
    output, errors = process.communicate()
    assert (process.returncode, output, errors) == (130, "", LINE)


def test_ignored_interrupts_stay_ignored() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "none"], cwd=HOME, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    assert process.stdout.readline() == "begun 0\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate("\n\n", timeout=30)
    assert (process.returncode, output) == (0, "kept 0\nbegun 1\nkept 1\n")
