"""Runs the jobs' commands, one at a time, each in a child process."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.app.jobs import Task, VideoJob, read_jobs
from benchmarks.system.progress import PROGRESS, read_progress
from benchmarks.video.forecast import TAKES
from registry import UserError, printable
from zoo.cards import model_cards

BENCH = Path(__file__).resolve().parents[2] / "bench.py"
PATIENCE = 20.0  # seconds in which a cancelled command finishes its step
LOG = "log.txt"  # in a job's folder: what its commands wrote on stderr


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: its exit status.
        printed: lines on stdout.
        said: lines on stderr, without progress.
    """

    status: int
    printed: list[str]
    said: list[str]

    def error(self, command: str) -> str:
        """The line that says what went wrong."""
        begin = f"bench.py {command}: "
        lines = [line.removeprefix(begin) for line in self.said if line.startswith(begin)]
        if lines:
            return lines[-1]
        if self.status < 0:
            return f"{command} was killed (signal {-self.status}), perhaps for lack of memory; try again to resume"
        return f"{command} ended with exit status {self.status}; {LOG} in the job's folder has what it wrote"


class Command:
    """A command of bench.py in a process of its own, which Ctrl-C in the server's terminal does not reach.

    Attributes:
        cancelled: `cancel` was called.
    """

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self.cancelled = False

    async def run(self, heard: Callable[[str], None]) -> Ended:
        """Run it to its end.

        Args:
            heard: called with each line on stderr, progress included.
        """
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(BENCH),
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, PROGRESS: "lines"},
            start_new_session=True,
        )
        if self.cancelled:
            process.terminate()
        assert process.stdout is not None and process.stderr is not None
        printed = asyncio.create_task(process.stdout.read())
        said = []
        rest = ""
        while data := await process.stderr.read(8192):
            *lines, rest = re.split(r"[\r\n]", rest + data.decode("utf-8", "replace"))
            for line in filter(str.strip, lines):
                heard(line)
                if read_progress(line) is None:
                    said.append(printable(line))
        text = (await printed).decode("utf-8", "replace")
        return Ended(await process.wait(), [line for line in text.splitlines() if line.strip()], said)

    async def cancel(self) -> None:
        """End it: at the next step, or by force if that takes too long."""
        self.cancelled = True
        if (process := self._process) is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), PATIENCE)
            except asyncio.TimeoutError:
                process.kill()


class JobQueue:
    """All jobs of a folder. Everything happens in one event loop, so nothing is locked.

    Attributes:
        out: the folder.
        jobs: by id, oldest first.
        lines: what was wrong with the folders of jobs.

    Args:
        out: an existing folder; unfinished commands of an earlier server wait for their turn again.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        jobs, self.lines = read_jobs(out)
        self.jobs = {job.id: job for job in jobs}
        self._command: Command | None = None
        self._running: VideoJob | None = None
        self._closing = False
        self._wakes = asyncio.Event()

    @property
    def waiting(self) -> list[VideoJob]:
        """Jobs in the order of their turns."""
        found = [job for job in self.jobs.values() if job.record.state == "waiting"]
        return sorted(found, key=lambda job: job.record.asked)

    def before(self, job: VideoJob) -> int:
        """Number of commands that run or wait before a waiting job's."""
        return self.waiting.index(job) + (self._running is not None)

    def models(self) -> dict[str, str]:
        """Models that a video can be scored by: name or folder -> title. Shipped ones, and those of the jobs."""
        shipped = {name: f"{name}: {card.title}" for name, card in model_cards().items()}
        return shipped | self._calibrated()

    def title(self, model: str) -> str:
        """What to call a model in a sentence."""
        return self._calibrated().get(model, model)

    def _calibrated(self) -> dict[str, str]:
        return {str(path): f"{path.name} of {job.record.name}" for job in self.jobs.values() for path in job.models}

    def add(self, job: VideoJob) -> None:
        """Add a new job, whose folder is written."""
        self.jobs[job.id] = job
        self._wakes.set()

    def ask(self, job: VideoJob, task: Task) -> None:
        """Put a command of a job at the end of the queue; nothing if the job waits or runs already."""
        if job.record.state in ("waiting", "running"):
            return
        record = job.record
        record.task, record.state, record.asked, record.error = task, "waiting", time.time(), ""
        job.save()
        self._wakes.set()

    async def cancel(self, job: VideoJob) -> None:
        """Stop a job that waits or runs; what it has finished is kept."""
        if job.record.state == "waiting":
            job.record.state = "cancelled"
            job.save()
        elif job is self._running and self._command is not None:
            job.record.state = "cancelled"
            await self._command.cancel()

    async def delete(self, job: VideoJob) -> None:
        """Remove a job with its video, results and calibrated models."""
        await self.cancel(job)
        while job is self._running:
            await asyncio.sleep(0.05)
        self.jobs.pop(job.id, None)
        await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    async def work(self) -> None:
        """Run the commands, until `close`."""
        while not self._closing:
            if waiting := self.waiting:
                await self._run(waiting[0])
            else:
                self._wakes.clear()
                await self._wakes.wait()

    async def close(self) -> None:
        """End the running command; the next server resumes it."""
        self._closing = True
        self._wakes.set()
        if self._command is not None:
            await self._command.cancel()

    async def _run(self, job: VideoJob) -> None:
        record, task = job.record, job.record.task
        record.state, record.error, job.progress, job.note = "running", "", None, ""
        self._running, self._command = job, command = job, Command(job.arguments())
        try:
            job.save()
            with (job.folder / LOG).open("a", encoding="utf-8") as log:
                ended = await command.run(lambda line: _hear(job, line, log.write))
            _note(job, task, ended, command.cancelled)
        except Exception as error:  # of any kind: the jobs that wait must still run
            record.state, record.error = "failed", job.in_words(printable(str(error))) or type(error).__name__
        finally:
            self._running = self._command = None
        with suppress(UserError):  # the disk is full: said already
            job.save()


def _note(job: VideoJob, task: Task, ended: Ended, cancelled: bool) -> None:
    """Record how a command ended.

    One that was cancelled keeps its state: `cancelled`, `waiting` if it was asked for again meanwhile, or, if the
    server ends, `running`, so that the next server resumes it.
    """
    record = job.record
    nothing_gained = task == "calibrate" and ended.status == 1 and bool(ended.printed)
    if ended.status == 0 or nothing_gained:
        record.state = "done"
        if task == "predict":
            record.scored = True
            record.said = [*ended.printed, *(line for line in ended.said if TAKES not in line)]
        elif task == "calibrate":
            record.gained = ended.printed
    elif not cancelled:
        record.state, record.error = "failed", job.in_words(ended.error(task))


def _hear(job: VideoJob, line: str, write: Callable[[str], object]) -> None:
    """Record a line on stderr."""
    if (progress := read_progress(line)) is not None:
        job.progress = progress
    else:
        write(f"{line}\n")
        job.note = job.in_words(printable(line))
