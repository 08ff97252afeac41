"""A server of the page in a process of its own, and requests to it that no browser would make."""

import functools
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import HOME


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Server:
    """A running server.

    Attributes:
        process: of `python bench.py app`.
        out: folder of its jobs.
        port: that it listens on.
        line: what it printed.
    """

    def __init__(self, process: subprocess.Popen, out: Path) -> None:
        self.process, self.out = process, out
        assert process.stdout is not None
        self.line = process.stdout.readline()
        found = re.match(r"http://127\.0\.0\.1:(\d+) ", self.line)
        assert found, f"{self.line}{process.communicate()}"
        self.port = int(found[1])

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def own(self) -> dict[str, str]:
        """Headers of its own pages."""
        return {"Host": f"127.0.0.1:{self.port}", "Origin": self.address}

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
        """Send a request as it is, without the repairs that a browser would make to its path."""
        given = {"Host": f"127.0.0.1:{self.port}"} if headers is None else headers
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in given.items():
            connection.putheader(name, value)
        if body is not None and "Content-Length" not in given:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        found = Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        connection.close()
        return found

    def upload(self, name: str, body: bytes, model: str = "gaze_nano_lstm", **more: str) -> Answer:
        """Send a video; `name` as the page encodes it."""
        return self.ask("POST", f"/upload?model={model}", {**self.own, "X-Name": name, **more}, body)

    def record(self, job: str) -> dict[str, Any]:
        """The job.json of a job."""
        return json.loads((self.out / job / "job.json").read_text(encoding="utf-8"))

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """End it by a signal; returns its exit status and what it wrote on stderr."""
        self.process.send_signal(number)
        error = self.process.communicate(timeout=60)[1]
        return self.process.returncode, error


@contextmanager
def running(home: Path, *options: str) -> Iterator[Server]:
    """Start a server in a folder, on a free port."""
    out = home / "jobs"
    command = [sys.executable, str(HOME / "bench.py"), "app", "--port", "0", "--out", str(out), *options]
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
    # A shell's background jobs ignore Ctrl-C, and so would a child of tests that run in one.
    hearing = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=home, env=environment, text=True, preexec_fn=hearing, **pipes) as process:
        try:
            yield Server(process, out)
        finally:
            if process.poll() is None:
                process.kill()
