"""The server of the page: its files, uploads and reports; the pages themselves are in `pages` and `comparison`."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from benchmarks.app.comparison import REPORTS, add_comparison
from benchmarks.app.guard import ADDRESS, Guard
from benchmarks.app.jobs import LABEL_PAGE, sent_file
from benchmarks.app.pages import add_pages
from benchmarks.app.queue import JobQueue
from benchmarks.app.uploads import receive_video
from benchmarks.system import interrupts
from registry import UserError

INSTALL = "pip install nicegui"
ENDING = 3  # seconds in which open connections end, before the server ends them


def check_installed() -> None:
    """Raise a UserError if the pages' library is missing."""
    try:
        import nicegui  # noqa: F401
    except ImportError:
        raise UserError(f"the page needs NiceGUI: {INSTALL}") from None


def bind(port: int) -> socket.socket:
    """Listen on a port of this computer alone.

    Args:
        port: 0 for any free one.

    Raises:
        UserError: another program listens there, or this one may not.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name != "nt":  # where it would share the port with a program that listens
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # at once after an earlier server has ended
    try:
        listening.bind((ADDRESS, port))
        listening.listen()
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} is taken, perhaps by another app that still runs; choose another one with --port N, or "
                "any free one with --port 0"
            ) from error
        raise UserError(f"cannot listen on port {port}: {error.strerror}; choose another one with --port N") from error
    return listening


def serve(queue: JobQueue, runs: Path, listening: socket.socket) -> None:
    """Serve the pages and run the jobs, until a signal.

    Args:
        queue: of the jobs.
        runs: folder of the rows that the comparison shows.
        listening: from `bind`.

    Raises:
        Stopped: a signal came; the running command has ended and is resumed by the next server.
    """
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # signals are those of `interrupts`

        async def on_tick(self, counter: int) -> bool:
            self.should_exit = self.should_exit or interrupts.pending != 0
            return await super().on_tick(counter)

    config = uvicorn.Config(
        Guard(build(queue, runs)), log_level="warning", access_log=False, timeout_graceful_shutdown=ENDING
    )
    with interrupts.deferred():
        Server(config).run(sockets=[listening])


def build(queue: JobQueue, runs: Path) -> Any:
    """The application; arguments as in `serve`."""
    from fastapi import FastAPI
    from nicegui import ui

    @asynccontextmanager
    async def working(app: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(queue.work())
        yield
        await queue.close()
        await work

    app = FastAPI(lifespan=working, routes=_files(queue), docs_url=None, redoc_url=None, openapi_url=None)
    add_pages(queue)
    add_comparison(queue.out, runs)
    ui.run_with(app, title="lamzoo", dark=None, language="en-US", tailwind=False, show_welcome_message=False)
    return app


def _files(queue: JobQueue) -> list[Any]:
    """The addresses of what is no page: files, reports, and the place that videos are sent to."""
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        job = queue.jobs.get(request.path_params["job"])
        path = None if job is None else job.file(name)
        if path is None:
            return PlainTextResponse("there is no such file\n", 404)
        kind = "inline" if name in (LABEL_PAGE, "annotated.mp4") else "attachment"
        return FileResponse(path, filename=name, content_disposition_type=kind)

    async def report(request: Request) -> Response:
        path = None
        with suppress(UserError):
            path = sent_file(queue.out, REPORTS, request.path_params["name"])
        return PlainTextResponse("there is no such report\n", 404) if path is None else FileResponse(path)

    async def upload(request: Request) -> Response:
        name, size = unquote(request.headers.get("x-name", "")), request.headers.get("content-length", "")
        model = request.query_params.get("model", "")
        if not (name and size.isdecimal() and model in queue.models()):
            return PlainTextResponse("an upload has a name, a length, and a model of the list\n", 400)
        try:
            job = await receive_video(queue.out, name, model, int(size), request.stream())
        except UserError as error:
            return PlainTextResponse(f"{error}\n", 422)
        queue.add(job)
        return JSONResponse({"job": job.id})

    return [
        Route("/files/{job}/{name}", file),
        Route("/reports/{name}", report),
        Route("/upload", upload, methods=["POST"]),
    ]
