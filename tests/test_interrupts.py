"""Ctrl-C and SIGTERM sent to a process, once and twice, inside and outside of `steps`."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent

# Two steps that each wait for a line on stdin, inside or outside of `steps`.
PROGRAM = """
import sys
from benchmarks.system import interrupts

interrupts.command = "bench.py wait"
interrupts.install_handlers()
try:
    for step in interrupts.steps(range(2)) if sys.argv[1] == "steps" else range(2):
        print("started", step, flush=True)
        sys.stdin.readline()
        print("saved", step, flush=True)
except KeyboardInterrupt as stopped:
    sys.exit(interrupts.exit_interrupted(stopped))
"""
LINE = "bench.py wait: interrupted; finished work is kept, run the same command again to resume\n"


def start(how: str, **options: object) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        cwd=HOME,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # In a shell's background job the process would inherit an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )
    assert process.stdout.readline() == "started 0\n"
    return process


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_the_end_of_the_step(sent: int, status: int) -> None:
    process = start("steps")
    process.send_signal(sent)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    output, errors = process.communicate("\n\n", timeout=30)
    assert (process.returncode, output, errors) == (status, "saved 0\n", LINE)


@pytest.mark.parametrize("how", ["steps", "none"])
def test_a_second_signal_or_one_outside_of_steps_ends_the_process(how: str) -> None:
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
    assert process.stdout.readline() == "started 0\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate("\n\n", timeout=30)
    assert (process.returncode, output) == (0, "saved 0\nstarted 1\nsaved 1\n")
