"""Network files taken from packages that are not otherwise used."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from backbones.checksums import file_sha256
from registry import UserError


def packaged_network(
    who: str, package: str, file: str, sha256: str, *, release: str, install: str, or_else: str = ""
) -> Path:
    """Return the path of a network file in an installed package, without importing the package.

    Args:
        who: the part that runs the network with OpenCV, for messages.
        package: import name.
        file: path inside the package.
        sha256: of the file.
        release: name and version of a release that contains this file.
        install: commands that install the package and OpenCV.
        or_else: an alternative, appended to the error: a blank and a phrase in parentheses.

    Raises:
        UserError: OpenCV or the package is not installed, or the file has another checksum.
    """
    if importlib.util.find_spec("cv2") is None:
        raise UserError(f"{who} needs OpenCV: {install}")
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or []:
        if (path := Path(folder) / file).is_file():
            found = file_sha256(path)
            if found != sha256:
                raise UserError(f"{path} has sha256 {found}, not {sha256}; reinstall {release}")
            return path
    raise UserError(f"{who} needs a network file from a package: {install}{or_else}")
