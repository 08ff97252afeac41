"""Weights from the hub: what its cache holds or can be downloaded within a moment's asking, or an error at once.

Whatever is taken is of one commit, and compared with the hub's own hash of it: a sha256 of large files, git's hash of
small ones. The hub's client keeps each file under that hash and compares sizes alone.
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
from registry import UserError

_fetch = ContextVar("_fetch", default=True)  # whether anything may be downloaded
_TRUE = ("1", "ON", "YES", "TRUE")  # as the hub's client reads HF_HUB_OFFLINE


@contextmanager
def nothing_fetched() -> Iterator[None]:
    """Keep to what is here: for building what a file names, and not the user."""
    token = _fetch.set(False)
    try:
        yield
    finally:
        _fetch.reset(token)


def download_file(repository: str, name: str) -> tuple[Path, str] | None:
    """Return one file of a repository and its commit, from the cache or downloaded; None where it cannot be had.

    Raises:
        UserError: it is not the file that the hub says it is.
    """
    from huggingface_hub import constants, hf_hub_download

    offline = not _reachable(constants.ENDPOINT)
    try:
        path = Path(hf_hub_download(repository, name, local_files_only=offline, etag_timeout=5))
    except Exception:  # the hub's own errors, and any of three libraries' for a network that breaks off
        return None
    commit = path.parents[len(Path(name).parts) - 1].name
    _verify(path, repository)
    return path, commit


def download_snapshot(model: str, files: Sequence[str]) -> tuple[Path, str, str]:
    """Return a repository's folder in the cache, with the files asked for; no code is downloaded.

    Args:
        model: ``OWNER/NAME``, or ``OWNER/NAME@REVISION``: a branch, a tag or a commit.
        files: names, or patterns such as ``*.safetensors``; of the repository's own folder, not of those in it.

    Returns:
        The folder, the repository, and the commit that its files are of.

    Raises:
        UserError: it is neither in the cache nor can it be downloaded (says which command downloads it), or a file is
            not the one that the hub says it is.
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
        away = "the hub is out of reach" if _fetch.get() else "what a file names is not fetched unasked"
        reason = away if offline else " ".join(str(error).split())[:200]
        raise UserError(
            f"{model} is neither a folder nor in the hub's cache, and cannot be downloaded ({reason}); "
            f"where there is a network: {download_command(repository, revision)}, then give DIR instead"
        ) from error
    for path in sorted(Path(folder).iterdir()):
        if any(path.match(pattern) for pattern in files):
            _verify(path, repository)
    return Path(folder), repository, Path(folder).name


def _verify(path: Path, repository: str) -> None:
    """Compare a file with the hash that it is kept under.

    Raises:
        UserError: it has another.
    """
    if not path.is_symlink():  # a cache on a file system without links; nothing says what the hub's hash was
        return
    expected = path.readlink().name
    hashes: dict[int, Callable[[Path], str]] = {64: file_sha256, 40: _git_sha1}
    found = hashes[len(expected)](path) if len(expected) in hashes else expected
    if found != expected:
        raise UserError(
            f"{path} is not the file that {repository} has there: its hash is {found}, the hub says {expected}; delete "
            f"{path.resolve()}, and it is downloaded again"
        )


def _git_sha1(path: Path) -> str:
    """What git calls a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def download_command(repository: str, revision: str = "") -> str:
    """Return the command that copies a repository into a folder."""
    return f"hf download {repository}{f' --revision {revision}' if revision else ''} --local-dir DIR"


def is_hub_id(model: str) -> bool:
    """Tell whether ``model`` can be a repository: ``OWNER/NAME``, perhaps ``@REVISION``, and no file or folder here."""
    word = r"[A-Za-z0-9][\w.-]*"
    return bool(re.fullmatch(rf"{word}/{word}(@[\w./-]+)?", model)) and not Path(model).exists()


def _reachable(address: str) -> bool:
    """Tell within two seconds whether the hub answers; its client would try for half a minute."""
    from huggingface_hub import constants

    if not _fetch.get() or constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE:
        return False
    url = urllib.parse.urlparse(address)
    if urllib.request.getproxies().get(url.scheme):
        return True  # only the proxy knows
    try:
        socket.create_connection((url.hostname or "", url.port or 443), timeout=2).close()
    except OSError:
        return False
    return True
