"""Weights from the hub: what its cache holds or can be downloaded within a moment's asking, or an error at once."""

import os
import re
import socket
import urllib.parse
import urllib.request
from pathlib import Path

from registry import UserError


def download_file(repository: str, name: str) -> Path | None:
    """Return one file of a repository, from the cache or downloaded; None where it cannot be had."""
    from huggingface_hub import constants, hf_hub_download

    offline = not _reachable(constants.ENDPOINT)
    try:
        return Path(hf_hub_download(repository, name, local_files_only=offline, etag_timeout=5))
    except Exception:  # the hub's own errors, and any of three libraries' for a network that breaks off
        return None


def download_snapshot(model: str) -> tuple[Path, str, str]:
    """Return a repository's folder in the cache, with its JSON and safetensors files; no code is downloaded.

    Args:
        model: ``OWNER/NAME``, or ``OWNER/NAME@REVISION``: a branch, a tag or a commit.

    Returns:
        The folder, the repository, and the commit that its files are of.

    Raises:
        UserError: it is neither in the cache nor can it be downloaded; says which command downloads it.
    """
    from huggingface_hub import constants, snapshot_download

    repository, _, revision = model.partition("@")
    offline = not _reachable(constants.ENDPOINT)
    try:
        folder = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=["*.json", "*.safetensors"],
            local_files_only=offline,
            etag_timeout=5,
        )
    except Exception as error:  # as above
        reason = "the hub is out of reach" if offline else " ".join(str(error).split())[:200]
        raise UserError(
            f"{model} is neither a folder nor in the hub's cache, and cannot be downloaded ({reason}); "
            f"where there is a network: {download_command(repository, revision)}, then give DIR instead"
        ) from error
    return Path(folder), repository, Path(folder).name


def download_command(repository: str, revision: str = "") -> str:
    """Return the command that copies a repository into a folder."""
    return f"hf download {repository}{f' --revision {revision}' if revision else ''} --local-dir DIR"


def is_hub_id(model: str) -> bool:
    """Tell whether ``model`` can be a repository: ``OWNER/NAME``, perhaps ``@REVISION``, and no file or folder here."""
    word = r"[A-Za-z0-9][\w.-]*"
    return bool(re.fullmatch(rf"{word}/{word}(@[\w./-]+)?", model)) and not Path(model).exists()


def _reachable(address: str) -> bool:
    """Tell within two seconds whether the hub answers; its client would try for half a minute."""
    if os.environ.get("HF_HUB_OFFLINE"):
        return False
    url = urllib.parse.urlparse(address)
    if urllib.request.getproxies().get(url.scheme):
        return True  # only the proxy knows
    try:
        socket.create_connection((url.hostname or "", url.port or 443), timeout=2).close()
    except OSError:
        return False
    return True
