"""Which requests are answered: by the rule, and by a running server."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("nicegui")

import bench
from benchmarks.app.guard import refusal
from tests.benchmarks.app.serving import Server, running
from tests.conftest import check_refused

HOST = ("host", "127.0.0.1:8642")
OWN = ("origin", "http://127.0.0.1:8642")


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", [HOST]),
        ("GET", [HOST, OWN, ("sec-fetch-site", "same-origin")]),
        ("GET", [HOST, ("sec-fetch-site", "none")]),
        ("GET", [("host", "localhost:9000")]),  # forwarded by ssh
        ("POST", [HOST, OWN]),
        ("SOCKET", [HOST, OWN]),
    ],
)
def test_own_requests_are_answered(method: str, headers: list[tuple[str, str]]) -> None:
    assert refusal(method, headers) is None


@pytest.mark.parametrize(
    ("method", "headers", "said"),
    [
        ("GET", [], "this server is for this computer"),
        ("GET", [("host", "rebound.example:8642")], "this server is for this computer"),
        ("GET", [("host", "127.0.0.1.example:8642")], "this server is for this computer"),
        ("GET", [("host", "192.168.0.7:8642")], "this server is for this computer"),
        ("GET", [HOST, ("host", "rebound.example")], "this server is for this computer"),
        ("GET", [HOST, ("origin", "https://other.example")], "of other pages"),
        ("GET", [HOST, ("origin", "null")], "of other pages"),
        ("GET", [HOST, ("sec-fetch-site", "cross-site")], "of other pages"),
        ("GET", [HOST, ("sec-fetch-site", "same-site")], "of other pages"),  # another port of this computer
        ("POST", [HOST], "the header Origin is missing"),
        ("POST", [HOST, ("origin", "http://127.0.0.1:3000")], "of other pages"),
        ("DELETE", [HOST, ("origin", "https://127.0.0.1:8642")], "of other pages"),
        ("SOCKET", [HOST], "the header Origin is missing"),
        ("SOCKET", [HOST, OWN, ("origin", "https://other.example")], "of other pages"),
        ("SOCKET", [("host", "rebound.example"), ("origin", "http://rebound.example")], "for this computer"),
    ],
)
def test_others_are_refused(method: str, headers: list[tuple[str, str]], said: str) -> None:
    assert said in str(refusal(method, headers))


# -- a running server ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With one job, whose results are a few words."""
    home = tmp_path_factory.mktemp("app")
    folder = home / "jobs" / "20260101-000000-abcdef01"
    (folder / "out").mkdir(parents=True)
    (folder / "job.json").write_text('{"name": "walk", "video": "walk.mp4", "model": "geometry", "state": "done"}')
    (folder / "out" / "bouts.csv").write_text("track,start\n")
    (folder / "out" / "run.json").write_text("{}")
    (home / "jobs" / "other.txt").write_text("of another program")
    (home / "secret").write_text("secret")
    (folder / "out" / "bouts.vtt").symlink_to(home / "secret")
    (home / "jobs" / "reports").mkdir()
    (home / "jobs" / "reports" / "good.html").write_text("a report")
    (home / "jobs" / "reports" / "bad.html").symlink_to(home / "secret")
    with running(home) as started:
        yield started


JOB = "/files/20260101-000000-abcdef01"


def test_it_listens_on_this_computer_alone(server: Server) -> None:
    addresses = {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in addresses - {"127.0.0.1", "127.0.1.1"}:
        with socket.socket() as other:
            other.settimeout(2)
            assert other.connect_ex((address, server.port)) != 0, address
    with socket.socket() as other:  # all of 127.0.0.0/8 leads here, and only one address of it is listened on
        other.settimeout(2)
        assert other.connect_ex(("127.0.0.2", server.port)) != 0


def test_pages_and_files_are_sent_with_a_policy(server: Server) -> None:
    page = server.ask("GET", "/")
    assert page.status == 200 and "lamzoo" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'self'" in page.headers["content-security-policy"]
    file = server.ask("GET", f"{JOB}/bouts.csv")
    assert file.status == 200 and file.text == "track,start\n"
    assert file.headers["content-disposition"].startswith("attachment")
    assert file.headers["x-content-type-options"] == "nosniff"
    assert server.ask("GET", "/reports/good.html").text == "a report"


@pytest.mark.parametrize("path", ["/", "/table", f"{JOB}/bouts.csv", "/_nicegui_ws/socket.io/?EIO=4&transport=polling"])
def test_other_names_and_pages_are_refused(server: Server, path: str) -> None:
    answer = server.ask("GET", path, {"Host": "rebound.example"})
    assert (answer.status, answer.text.count("\n")) == (403, 1)
    assert server.ask("GET", path, {**server.own, "Origin": "https://other.example"}).status == 403
    assert server.ask("GET", path, {"Host": server.own["Host"], "Sec-Fetch-Site": "cross-site"}).status == 403


def test_a_web_socket_of_another_page_is_refused(server: Server) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    path = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    assert server.ask("GET", path, {**server.own, **upgrade, "Origin": "http://127.0.0.1:3000"}).status == 403
    assert server.ask("GET", path, {"Host": server.own["Host"], **upgrade}).status == 403


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://other.example"}, {"Origin": "null"}])
def test_only_its_own_pages_may_send_a_video(server: Server, headers: dict[str, str]) -> None:
    before = sorted(server.out.iterdir())
    given = {"Host": server.own["Host"], "X-Name": "a.mp4", **headers}
    assert server.ask("POST", "/upload?model=geometry", given, b"x").status == 403
    assert sorted(server.out.iterdir()) == before


@pytest.mark.parametrize(
    "path",
    [
        f"{JOB}/run.json",
        f"{JOB}/job.json",
        f"{JOB}/../job.json",
        f"{JOB}/..%2Fjob.json",
        f"{JOB}/..%2F..%2Fother.txt",
        f"{JOB}/%2e%2e/job.json",
        f"{JOB}/bouts.vtt",  # a link out of the folder
        f"{JOB}/annotated.mp4",  # not there
        f"{JOB}/",
        "/files/../other.txt",
        "/files/..%2f..%2fsecret/bouts.csv",
        "/files/none/bouts.csv",
        "/files/reports/good.html",
        "/reports/bad.html",
        "/reports/..%2Fother.txt",
        "/reports/../other.txt",
        "/reports/%2e%2e%2fother.txt",
        "/reports//etc/passwd",
        "/reports/..%5cother.txt",
        "/reports/none.html",
        "/other.txt",
        "/jobs/../../secret",
        "/docs",
        "/openapi.json",
    ],
)
def test_no_other_file_is_sent(server: Server, path: str) -> None:
    answer = server.ask("GET", path)
    assert answer.status == 404 or "There is no such video" in answer.text
    assert b"secret" not in answer.body and b"another program" not in answer.body and b"walk.mp4" not in answer.body


@pytest.mark.parametrize(
    ("name", "model", "headers", "status", "said"),
    [
        ("", "geometry", {}, 400, "has a name, a length, and a model"),
        ("a.mp4", "OWNER/NAME", {}, 400, "a model of the list"),
        ("a.mp4", "/etc", {}, 400, "a model of the list"),
        ("a.mp4", "geometry", {"Content-Length": "99000000000"}, 422, "a.mp4 has 99.0 GB, and this page takes at most"),
        ("a.mp4", "geometry", {}, 422, "video a.mp4 cannot be read"),
        ("..%2F..%2Fa.mp4", "geometry", {}, 422, "video ../../a.mp4 cannot be read"),
        ("%00%1b%5b31ma.mp4", "geometry", {}, 422, "video \\x00a.mp4 cannot be read"),
    ],
)
def test_uploads_are_refused_in_a_line(
    server: Server, name: str, model: str, headers: dict[str, str], status: int, said: str
) -> None:
    pytest.importorskip("av")
    before = sorted(server.out.iterdir())
    answer = server.upload(name, b"no video at all", model, **headers)
    assert answer.status == status and said in answer.text and answer.text.count("\n") == 1, answer
    assert sorted(server.out.iterdir()) == before


# -- starting and ending ------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_named(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    given = ["app", "--port", str(server.port), "--out", str(tmp_path)]
    check_refused(given, f"port {server.port} is taken, perhaps by another app", capsys)
    assert bench.main(["app", "--port", "70000", "--out", str(tmp_path)]) == 2


def test_without_its_library_a_line_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "nicegui", None)
    check_refused(["app", "--out", str(tmp_path / "jobs")], "the page needs NiceGUI: pip install nicegui", capsys)
    assert not (tmp_path / "jobs").exists()


def test_a_folder_has_one_server(server: Server, capsys: pytest.CaptureFixture) -> None:
    check_refused(["app", "--port", "0", "--out", str(server.out)], "is being written by process", capsys)


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert server.line == f"{server.address} (Ctrl-C ends it; jobs are in {server.out})\n"
        assert server.ask("GET", "/").status == 200
        status, said = server.end()
    assert status == 130
    assert said == "bench.py app: interrupted; finished work is kept, run the same command again to resume\n"
    assert list(server.out.iterdir()) == [] and list(tmp_path.iterdir()) == [server.out]
