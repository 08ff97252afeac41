"""Downloads from a local stand-in for the hub: which files, of which commit, and what happens to changed files."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from backbones import hub
from registry import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"a": 1}',
    "card.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
    "pytorch_model.bin": b"a pickle",
    "modeling.py": b"raise SystemExit",
    "onnx/model.safetensors": b"another",
    "notes.json": b"{}",
}


class Hub(http.server.ThreadingHTTPServer):
    """Serves the hub's API for one repository, ``someone/looking``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[str] = []
        self.sent = dict(FILES)

    @property
    def fetched(self) -> set[str]:
        return {path.rpartition(f"/resolve/{COMMIT}/")[2] for path in self.asked if "/resolve/" in path}


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.server.asked.append(path)
        if path.startswith("/api/models/someone/looking/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": git_sha1(content)}
                | ({"lfs": {"oid": sha256(content), "size": len(content), "pointerSize": 1}} if is_large(name) else {})
                for name, content in FILES.items()
            ]
            self._send(json.dumps(tree).encode(), {})
        elif path.startswith("/api/models/someone/looking"):
            found = {"id": "someone/looking", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            self._send(json.dumps(found).encode(), {})
        elif path.startswith("/someone/looking/resolve/"):
            name = path.split("/", 5)[5]
            etag = sha256(FILES[name]) if is_large(name) else git_sha1(FILES[name])
            self._send(self.server.sent[name], {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        else:
            self.send_error(404)

    def _send(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def is_large(name: str) -> bool:
    return name.endswith(".safetensors")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        for module in ("constants", "file_download"):  # older versions have it in both
            monkeypatch.setattr(f"huggingface_hub.{module}.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        for name in (
            "HF_HUB_OFFLINE",
            "http_proxy",
            "https_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "all_proxy",
            "ALL_PROXY",
        ):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield server
        server.shutdown()


WANTED = ("config.json", "card.json", "model.safetensors")


def test_only_the_requested_files_of_one_commit(server: Hub) -> None:
    folder, repository, commit = hub.download_snapshot("someone/looking", WANTED)
    assert (repository, commit, folder.name) == ("someone/looking", COMMIT, COMMIT)
    assert {path.name for path in folder.iterdir()} == set(WANTED) == server.fetched
    assert all((folder / name).read_bytes() == FILES[name] for name in WANTED)
    assert not [path for path in server.asked if path.endswith((".bin", ".py"))]


def test_patterns_do_not_match_in_subfolders(server: Hub) -> None:
    hub.download_snapshot("someone/looking", ("config.json", "*.safetensors"))
    assert server.fetched == {"config.json", "model.safetensors"}


def test_a_named_commit_is_requested(server: Hub) -> None:
    hub.download_snapshot(f"someone/looking@{COMMIT}", WANTED)
    assert not [path for path in server.asked if path.endswith("/revision/main")]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_differs_from_the_hubs_is_refused(server: Hub, name: str) -> None:
    """The size is equal, and the hub's client checks nothing else."""
    content = bytearray(FILES[name])
    content[5] ^= 1
    server.sent[name] = bytes(content)
    with pytest.raises(UserError, match=f"{name} differs from the file in someone/looking"):
        hub.download_snapshot("someone/looking", WANTED)
    server.sent[name] = FILES[name]
    with pytest.raises(UserError, match=r"differs from the file .* delete .* to download") as refused:
        hub.download_snapshot("someone/looking", WANTED)  # the cache has it now
    Path(str(refused.value).partition("; delete ")[2].partition(" to download")[0]).unlink()
    folder, _, _ = hub.download_snapshot("someone/looking", WANTED)
    assert (folder / name).read_bytes() == FILES[name]


def test_one_file_comes_with_its_commit_and_is_verified(server: Hub) -> None:
    found = hub.download_file("someone/looking", "model.safetensors")
    assert found is not None
    assert (found[0].read_bytes(), found[1]) == (FILES["model.safetensors"], COMMIT)
    assert hub.download_file("someone/looking", "missing.safetensors") is None
    found[0].resolve().write_bytes(b"x" + FILES["model.safetensors"][1:])
    with pytest.raises(UserError, match="differs from the file"):
        hub.download_file("someone/looking", "model.safetensors")


@pytest.mark.parametrize("value", ["1", "yes", "ON", "true"])
def test_offline_nothing_is_requested(server: Hub, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(UserError, match="the hub is out of reach"):
        hub.download_snapshot("someone/looking", WANTED)
    assert hub.download_file("someone/looking", "model.safetensors") is None
    assert server.asked == []


def test_cached_files_need_no_network(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _, _ = hub.download_snapshot("someone/looking", WANTED)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = list(server.asked)
    assert hub.download_snapshot("someone/looking", WANTED) == (folder, "someone/looking", COMMIT)
    assert server.asked == asked


def test_repositories_named_by_a_file_are_not_downloaded(server: Hub) -> None:
    with hub.nothing_fetched(), pytest.raises(UserError, match="repositories named by a file are not downloaded"):
        hub.download_snapshot("someone/looking", WANTED)
    assert server.asked == []
    hub.download_snapshot("someone/looking", WANTED)
    assert server.asked
