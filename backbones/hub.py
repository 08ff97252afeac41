"""Weights from the Hugging Face hub or its cache; if the hub does not respond, an error within seconds.

All files are of one commit and are compared with the hub's hashes: sha256 for large files, git's hash for small ones.
The hub's client stores each file under its hash but checks only its size.
"""

import hashlib
import os
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from backbones.checksums import file_sha256
from registry import UserError, first_sentences

_fetch = ContextVar("_fetch", default=True)  # whether downloads are allowed
_TRUE = ("1", "ON", "YES", "TRUE")  # values of HF_HUB_OFFLINE that the hub's client takes for true


@contextmanager
def nothing_fetched() -> Iterator[None]:
    """Forbid downloads, for parts named by a file and not by the user."""
    token = _fetch.set(False)
    try:
        yield
    finally:
        _fetch.reset(token)


def download_file(repository: str, name: str) -> tuple[Path, str] | None:
    """Return the path of a repository's file and its commit, from the cache or downloaded; None if unavailable.

    Raises:
        UserError: the file's hash differs from the hub's.
    """
    from huggingface_hub import constants, hf_hub_download

    offline = not _reachable(constants.ENDPOINT)
    try:
        path = Path(hf_hub_download(repository, name, local_files_only=offline, etag_timeout=5))
    except Exception:  # errors of the hub, and of three libraries when the network fails
        return None
    commit = path.parents[len(Path(name).parts) - 1].name
    _verify(path, repository)
    return path, commit


def download_snapshot(model: str, files: Sequence[str]) -> tuple[Path, str, str]:
    """Return a repository's folder in the cache, after downloading missing files.

    Args:
        model: ``OWNER/NAME``, or ``OWNER/NAME@REVISION`` with a branch, tag or commit.
        files: names or patterns like ``*.safetensors``, in the repository's top folder only.

    Returns:
        The folder, the repository, and the commit.

    Raises:
        UserError: the repository is neither in the cache nor downloadable (gives the command that downloads it), or
            a file's hash differs from the hub's.
    """
    from huggingface_hub import constants, snapshot_download

    repository, _, revision = model.partition("@")
    offline = not _reachable(constants.ENDPOINT)
    try:
        folder = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=list(files),
            ignore_patterns=["*/*"],
            local_files_only=offline,
            etag_timeout=5,
        )
    except Exception as error:  # as above
        away = "the hub is out of reach" if _fetch.get() else "repositories named by a file are not downloaded"
        reason = away if offline else first_sentences(error)
        raise UserError(
            f"{model} is neither a folder nor in the hub's cache, and was not downloaded ({reason}); "
            f"run {download_command(repository, revision)} with network access, then give DIR instead"
        ) from error
    for path in sorted(Path(folder).iterdir()):
        if any(path.match(pattern) for pattern in files):
            _verify(path, repository)
    return Path(folder), repository, Path(folder).name


def _verify(path: Path, repository: str) -> None:
    """Compare a file with the hub's hash, which names the file that the cache links to.

    Raises:
        UserError: the hashes differ.
    """
    if not path.is_symlink():  # on file systems without links the cache does not record the hash
        return
    expected = path.readlink().name
    hashes: dict[int, Callable[[Path], str]] = {64: file_sha256, 40: _git_sha1}
    found = hashes[len(expected)](path) if len(expected) in hashes else expected
    if found != expected:
        raise UserError(
            f"{path} differs from the file in {repository}: its hash is {found}, the hub's is {expected}; delete "
            f"{path.resolve()} to download it again"
        )


def _git_sha1(path: Path) -> str:
    """Return git's hash of a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def download_command(repository: str, revision: str = "") -> str:
    """Return the shell command that downloads a repository into a folder."""
    return f"hf download {repository}{f' --revision {revision}' if revision else ''} --local-dir DIR"


def is_hub_id(model: str) -> bool:
    """Whether ``model`` has the form ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` and is not a local path."""
    word = r"[A-Za-z0-9][\w.-]*"
    return bool(re.fullmatch(rf"{word}/{word}(@[\w./-]+)?", model)) and not Path(model).exists()


def _reachable(address: str) -> bool:
    """Whether the hub responds within two seconds; its client would try for half a minute."""
    from huggingface_hub import constants

    if not _fetch.get() or constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE:
        return False
    url = urllib.parse.urlparse(address)
    if urllib.request.getproxies().get(url.scheme):
        return True  # a connection past the proxy would show nothing
    try:
        socket.create_connection((url.hostname or "", url.port or 443), timeout=2).close()
    except OSError:
        return False
    return True
