"""Receives a video from a browser: within limits, checked, and complete or not at all."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.app.jobs import VideoJob, finish_job, new_job
from benchmarks.video.decode import Video
from registry import UserError, printable
from zoo.files.atomic import cannot_write

MOST = 20_000_000_000  # bytes of a video
SPARE = 1_000_000_000  # bytes of disk that are left for results


async def receive_video(out: Path, name: str, model: str, size: int, data: AsyncIterator[bytes]) -> VideoJob:
    """Write a video into the folder of a new job, and decode its first frame.

    Args:
        out: folder of all jobs.
        name: of the file, as the browser gives it.
        model: name or folder.
        size: bytes that the browser announces.
        data: the content, which may differ from it.

    Raises:
        UserError: the video is too large for this page or the disk, empty, or none; then nothing is left of it.
    """
    check_size(out, name, size)
    job = new_job(out, name, model)
    try:
        await _write(job, size, data)
        try:
            await asyncio.to_thread(Video, job.video)
        except UserError as error:
            raise UserError(job.in_words(str(error))) from error
        return finish_job(job)
    except BaseException:
        shutil.rmtree(job.folder, ignore_errors=True)
        raise


def check_size(out: Path, name: str, size: int) -> None:
    """Refuse a video that is too large before it is sent; arguments and errors as in `receive_video`."""
    shown = printable(name)[:200]
    if size > MOST:
        raise UserError(
            f"{shown} has {size / 1e9:.1f} GB, and this page takes at most {MOST / 1e9:.1f} GB: use python bench.py "
            "predict"
        )
    free = shutil.disk_usage(out).free
    if size + SPARE > free:
        raise UserError(
            f"{shown} has {size / 1e9:.1f} GB, and {out} has {free / 1e9:.1f} GB free; delete something, or restart "
            "the app with --out on another disk"
        )


async def _write(job: VideoJob, size: int, data: AsyncIterator[bytes]) -> None:
    written = 0
    try:
        with job.video.open("xb") as file:
            async for chunk in data:
                written += len(chunk)
                if written > size:
                    break
                await asyncio.to_thread(file.write, chunk)
    except OSError as error:
        raise cannot_write(job.video, error, "delete something, and send it again") from error
    if written != size:
        raise UserError(f"{job.record.name} did not arrive as announced ({size} bytes); send it again")
