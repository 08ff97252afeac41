"""A job of the page: a folder with a video, its results, and the task that runs next.

The folder holds job.json, `video/` with the video, and what the commands wrote: `out/` of predict and label, labels.csv
as saved by the page of label, and a folder `calibrated-N` per calibrated model.
"""

from __future__ import annotations

import csv
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.video.inputs import SAMPLE
from registry import UserError, printable
from zoo.files.atomic import cannot_write, write_json
from zoo.files.untrusted import below, checked, checked_id, read_json

RECORD = "job.json"
NEW = ".new-"  # begins the name of a folder whose upload is not finished
MODEL = "calibrated-"  # begins the names of calibrated models' folders
LONGEST = 50  # characters of a file's name that are kept

# Files that can be downloaded: their place in the folder, and what they are.
DOWNLOADS = {
    "bouts.csv": "looks, as a table",
    "people.csv": "people, as a table",
    "frames.csv": "every face in every frame, as a table",
    "bouts.eaf": "looks for ELAN",
    "bouts.vtt": "looks as subtitles",
    "annotated.mp4": "the annotated video",
}
LABEL_PAGE = "label.html"

Task = Literal["predict", "label", "calibrate"]
State = Literal["waiting", "running", "done", "failed", "cancelled"]


@dataclass
class JobRecord:
    """What job.json holds.

    Attributes:
        name: of the video, as its owner calls it.
        video: file below `video/`; empty for the shipped sample.
        model: name or folder.
        task: command that is to be run, is running, or ran last.
        state: of this command.
        asked: seconds since 1970, when it was asked for; the queue is in this order.
        added: seconds since 1970, when the video was added.
        scored: predict has finished, so all results are there.
        said: lines that it printed.
        gained: lines that the last finished calibrate printed.
        error: why the command failed, in a line.
    """

    name: str
    video: str
    model: str
    task: Task = "predict"
    state: State = "waiting"
    asked: float = field(default_factory=time.time)
    added: float = field(default_factory=time.time)
    scored: bool = False
    said: list[str] = field(default_factory=list)
    gained: list[str] = field(default_factory=list)
    error: str = ""


class VideoJob:
    """A job in its folder.

    Attributes:
        folder: of its files; its name is the job's id.
        record: content of job.json, written by `save`.
        progress: label, finished units and total of the running command; None if it has said nothing yet.
        note: the last line that the running command said.
    """

    def __init__(self, folder: Path, record: JobRecord) -> None:
        self.folder, self.record = folder, record
        self.progress: tuple[str, int, int] | None = None
        self.note = ""

    @classmethod
    def read(cls, folder: Path) -> VideoJob:
        """Read a job's folder; a command that was running waits for its turn again.

        Raises:
            UserError: job.json is missing or damaged.
        """
        path = folder / RECORD
        try:
            job = cls(folder, checked(read_json(path, "a job of the page"), JobRecord))
        except ValueError as error:
            raise UserError(f"{path}: {error}; delete its folder") from error
        if job.record.video:
            below(folder / "video", job.record.video, str(path))
        if job.record.state == "running":
            job.record.state = "waiting"
        return job

    def save(self) -> None:
        """Write job.json."""
        write_json(self.folder / RECORD, asdict(self.record))

    @property
    def id(self) -> str:
        """Name of the folder, without letters that mean anything in an address."""
        return self.folder.name

    @property
    def video(self) -> Path:
        """The video."""
        return self.folder / "video" / self.record.video if self.record.video else SAMPLE

    @property
    def out(self) -> Path:
        """The folder of results."""
        return self.folder / "out"

    @property
    def labels(self) -> Path:
        """The saved marks."""
        return self.folder / "labels.csv"

    @property
    def models(self) -> list[Path]:
        """Folders of its calibrated models, oldest first."""
        found = {path.name.removeprefix(MODEL): path for path in self.folder.glob(f"{MODEL}*")}
        numbers = sorted(int(text) for text in found if text.isdecimal())
        return [path for k in numbers if ((path := self.folder / f"{MODEL}{k}") / "config.json").is_file()]

    def arguments(self) -> list[str]:
        """The command line of the job's task, without `python bench.py`."""
        if self.record.task == "label":
            return ["label", str(self.out)]
        if self.record.task == "calibrate":
            number = 1 + max((int(path.name.removeprefix(MODEL)) for path in self.models), default=0)
            return ["calibrate", str(self.out), str(self.labels), "-o", str(self.folder / f"{MODEL}{number}")]
        return ["predict", str(self.video), "--model", self.record.model, "-o", str(self.out)]

    def file(self, name: str) -> Path | None:
        """A file that the page may send; None if there is none of that name, or it leads out of the folder."""
        if name not in (*DOWNLOADS, LABEL_PAGE):
            return None
        return sent_file(self.folder, "out", name)

    def in_words(self, text: str) -> str:
        """A message with the name of the video in place of its path."""
        return text.replace(printable(str(self.video)), self.record.name)


def new_job(out: Path, name: str, model: str) -> VideoJob:
    """Make the folder of a job whose video is still to be written, under a name that `finish_job` replaces.

    Args:
        out: folder of all jobs.
        name: of the video's file, as a browser or a person gives it; empty for the shipped sample.
        model: name or folder.

    Raises:
        UserError: the folder cannot be written.
    """
    shown = printable(name)[:200] if name else "The sample"
    folder = out / f"{NEW}{secrets.token_hex(8)}"
    try:
        (folder / "video").mkdir(parents=True)
    except OSError as error:
        raise cannot_write(folder, error, "delete something") from error
    return VideoJob(folder, JobRecord(shown, file_name(name) if name else "", model))


def finish_job(job: VideoJob) -> VideoJob:
    """Give the folder of a new job its name, which begins with the time."""
    job.save()
    folder = job.folder.with_name(f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}")
    job.folder.rename(folder)
    return VideoJob(folder, job.record)


def file_name(name: str) -> str:
    r"""A file name for any system that keeps what it can of a given one.

    Example:
        >>> file_name("../../etc/passwd"), file_name('<b>"walk" 1</b>.mp4'), file_name(r"C:\clips\con.mp4")
        ('passwd', 'b_.mp4', 'video_con.mp4')
    """
    last = re.split(r"[/\\]", name)[-1]
    kept = re.sub(r"[^\w.()+ -]", "_", last)[-LONGEST:].strip(". _") or "video"
    try:
        return checked_id(kept, name)
    except UserError:
        return f"video_{kept}"


def sent_file(root: Path, *parts: str) -> Path | None:
    """A file below a folder, if no link is on the way to it; None if there is none of that name.

    Args:
        root: the folder.
        parts: names of the folders on the way, and of the file; checked here.
    """
    path = below(root, "/".join(parts), "an address")
    return path if path.is_file() and path.resolve() == root.resolve().joinpath(*parts) else None


def read_result_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that predict wrote, without the lines above its header."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line for line in file if not line.startswith("#")]
    return list(csv.DictReader(lines))


def read_jobs(out: Path) -> tuple[list[VideoJob], list[str]]:
    """Read the folders of all jobs, and remove unfinished uploads.

    Returns:
        The jobs, oldest first, and a line per folder that cannot be read.
    """
    jobs, lines = [], []
    for folder in sorted(out.iterdir()):
        if folder.name.startswith(NEW) and not folder.is_symlink():
            shutil.rmtree(folder, ignore_errors=True)
        elif (folder / RECORD).is_file() and not folder.is_symlink():
            try:
                jobs.append(VideoJob.read(folder))
            except UserError as error:
                lines.append(str(error))
    return sorted(jobs, key=lambda job: job.record.added), lines
