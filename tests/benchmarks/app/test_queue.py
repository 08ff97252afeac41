"""The queue: one command at a time, in order; cancelled, failed, ended with the server and resumed."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from benchmarks.app import queue as module
from benchmarks.app.jobs import VideoJob, finish_job, new_job
from benchmarks.app.queue import Command, Ended, JobQueue
from benchmarks.system.progress import read_progress

# In place of bench.py: what it does is the name of the video.
PROGRAM = """
import json, os, pathlib, signal, sys, time
command, out = sys.argv[1], pathlib.Path(sys.argv[sys.argv.index("-o") + 1] if "-o" in sys.argv else sys.argv[2])
what = pathlib.Path(sys.argv[2]).stem
with open(os.environ["SEEN"], "a") as file:
    print(what, "begins", file=file)
if what == "refused":
    sys.exit(print(f"bench.py predict: video {sys.argv[2]} is no video; give one", file=sys.stderr) or 2)
if what == "broken":
    raise RuntimeError("a mistake")
if what == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "slow":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for step in range(300):
        print(f"progress {step}/300 slow.mp4", end="\\r", file=sys.stderr, flush=True)
        time.sleep(0.1)
if what == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("progress 0/0 deaf", end="\\r", file=sys.stderr, flush=True)
    time.sleep(30)
assert os.environ["LAMZOO_PROGRESS"] == "lines"
print(f"progress 3/4 {what}.mp4", end="\\r", file=sys.stderr)
print(f"{what}: 300 frames will take about 9 seconds (1 per second)", file=sys.stderr)
print(f"{what}: 1 frame could not be decoded", file=sys.stderr)
out.mkdir(exist_ok=True)
print("1 look")
with open(os.environ["SEEN"], "a") as file:
    print(what, "ends", file=file)
"""


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Begins and ends of commands, in order; the program is in the place of bench.py."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "seen").touch()
    (tmp_path / "jobs").mkdir()
    monkeypatch.setattr(module, "BENCH", tmp_path / "program.py")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    return lambda: (tmp_path / "seen").read_text().splitlines()


def added(queue: JobQueue, what: str) -> VideoJob:
    job = finish_job(new_job(queue.out, f"{what}.mp4", "geometry"))
    queue.add(job)
    return job


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def working(out: Path, act: Callable[[JobQueue], Awaitable[None]]) -> JobQueue:
    """Run a queue while something is done with it, then close it."""

    async def main() -> JobQueue:
        queue = JobQueue(out)
        work = asyncio.create_task(queue.work())
        await act(queue)
        await queue.close()
        await asyncio.wait_for(work, 60)
        return queue

    return asyncio.run(main())


def test_one_at_a_time_in_order(tmp_path: Path, seen: Callable[[], list[str]]) -> None:
    async def act(queue: JobQueue) -> None:
        jobs = [added(queue, name) for name in ("one", "two", "three")]
        assert [queue.before(job) for job in jobs] == [0, 1, 2]
        await until(lambda: jobs[0].record.state == "running")
        assert [queue.before(job) for job in jobs[1:]] == [1, 2]
        await until(lambda: all(job.record.state == "done" for job in jobs))
        assert [job.record.scored for job in jobs] == [True] * 3
        assert jobs[0].progress == ("one.mp4", 3, 4)
        assert jobs[0].record.said == ["1 look", "one: 1 frame could not be decoded"]

    working(tmp_path / "jobs", act)
    assert seen() == [f"{name} {what}" for name in ("one", "two", "three") for what in ("begins", "ends")]


def test_failures_are_lines_and_stop_nothing(tmp_path: Path, seen: Callable[[], list[str]]) -> None:
    async def act(queue: JobQueue) -> None:
        refused, broken, killed, good = (added(queue, name) for name in ("refused", "broken", "killed", "good"))
        await until(lambda: good.record.state == "done")
        assert refused.record.state == broken.record.state == killed.record.state == "failed"
        assert refused.record.error == "video refused.mp4 is no video; give one"
        assert broken.record.error == "predict ended with exit status 1; log.txt in the job's folder has what it wrote"
        assert "a mistake" in (broken.folder / "log.txt").read_text()
        assert "was killed (signal 9), perhaps for lack of memory" in killed.record.error
        queue.ask(refused, "predict")
        assert refused.record.state == "waiting" and refused.record.error == ""
        await until(lambda: refused.record.state == "failed")
        assert json.loads((refused.folder / "job.json").read_text())["state"] == "failed"

    working(tmp_path / "jobs", act)


def test_jobs_are_cancelled_and_deleted(
    tmp_path: Path, seen: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)

    async def act(queue: JobQueue) -> None:
        slow, waits, deaf, good = (added(queue, name) for name in ("slow", "waits", "deaf", "good"))
        await until(lambda: slow.progress)
        await queue.cancel(waits)
        await queue.cancel(slow)
        await until(lambda: deaf.progress)
        assert slow.record.state == waits.record.state == "cancelled" and slow.record.error == ""
        await queue.delete(deaf)  # by force, as it does not listen
        assert not deaf.folder.exists() and deaf.id not in queue.jobs
        await until(lambda: good.record.state == "done")
        queue.ask(slow, "predict")
        await until(lambda: slow.progress)
        cancelling = asyncio.create_task(queue.cancel(slow))
        await asyncio.sleep(0)
        queue.ask(slow, "predict")  # before its process has ended: it runs again
        await cancelling
        await until(lambda: slow.record.state == "running" and slow.progress)
        await queue.cancel(slow)
        queue.ask(waits, "predict")
        await until(lambda: waits.record.state == "done")

    working(tmp_path / "jobs", act)
    assert [line for line in seen() if "waits" in line] == ["waits begins", "waits ends"]


def test_what_ran_when_the_server_ended_runs_again(tmp_path: Path, seen: Callable[[], list[str]]) -> None:
    async def first(queue: JobQueue) -> None:
        slow, waits = added(queue, "slow"), added(queue, "waits")
        await until(lambda: slow.progress)
        assert waits.record.state == "waiting"

    ended = working(tmp_path / "jobs", first)
    states = [json.loads((job.folder / "job.json").read_text())["state"] for job in ended.jobs.values()]
    assert sorted(states) == ["running", "waiting"]

    async def second(queue: JobQueue) -> None:
        slow, waits = queue.waiting
        await until(lambda: slow.progress)
        await queue.cancel(slow)
        await until(lambda: waits.record.state == "done")

    working(tmp_path / "jobs", second)
    assert seen() == ["slow begins", "slow begins", "waits begins", "waits ends"]


def test_a_calibration_that_gains_nothing_is_no_failure() -> None:
    assert Ended(1, [], ["bench.py calibrate: 3 marks"]).error("calibrate") == "3 marks"

    async def act(out: Path) -> None:
        queue = JobQueue(out)
        job = finish_job(new_job(out, "walk.mp4", "geometry"))
        job.record.task, job.record.scored = "calibrate", True
        queue.add(job)
        work = asyncio.create_task(queue.work())
        await until(lambda: job.record.state not in ("waiting", "running"))
        assert (job.record.state, job.record.gained) == ("done", ["nothing is gained"])
        await queue.close()
        await work

    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        program = Path(folder) / "program.py"
        program.write_text("import sys\nprint('nothing is gained')\nsys.exit(1)\n")
        patch.setattr(module, "BENCH", program)
        (Path(folder) / "jobs").mkdir()
        asyncio.run(act(Path(folder) / "jobs"))


def test_a_command_ends_when_its_server_is_killed(tmp_path: Path, seen: Callable[[], list[str]]) -> None:
    """It can no longer say how far it is, so it ends with the next bar: nothing keeps the folder locked."""
    reader, writer = os.pipe()
    code = (
        "import os, sys, time\nprint(os.getpid(), flush=True)\nfrom benchmarks.system.progress import Progress\n"
        "with Progress('a', 100, 'frame') as bar:\n  for _ in range(300):\n    time.sleep(0.1)\n    bar.advance()\n"
    )
    import subprocess

    environment = {**os.environ, "LAMZOO_PROGRESS": "lines"}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stderr=writer, stdout=subprocess.PIPE
    ) as child:
        os.close(writer)
        assert read_progress(os.read(reader, 100).decode().strip()) == ("a", 0, 100)
        os.close(reader)
        assert child.wait(20) != 0


def test_progress_is_read_as_it_was_written(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.system.progress import Progress, say

    monkeypatch.setenv("LAMZOO_PROGRESS", "lines")
    with Progress("progress 1/2 {x} %s", 3, "frame") as bar:
        say("progress of another kind")
        bar.advance(3)
    written = [text for text in capfd.readouterr().err.replace("\r", "\n").split("\n") if text.strip()]
    assert read_progress(written[0]) == ("progress 1/2 {x} %s", 0, 3)
    assert "progress of another kind" in written and read_progress("progress of another kind") is None


def test_a_command_can_be_cancelled_before_it_runs(seen: Callable[[], list[str]], tmp_path: Path) -> None:
    async def main() -> Ended:
        command = Command(["predict", "slow.mp4", "-o", str(tmp_path / "out")])
        await command.cancel()
        return await command.run(lambda line: None)

    assert asyncio.run(main()).status != 0
