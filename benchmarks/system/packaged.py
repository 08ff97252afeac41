"""Networks that ship as files inside other packages, of which nothing else is used."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from backbones.checksums import file_sha256
from registry import UserError


def packaged_network(
    who: str, package: str, file: str, sha256: str, *, release: str, install: str, or_else: str = ""
) -> Path:
    """Return the path of a network inside an installed package, nothing of which is executed.

    Args:
        who: the part that needs it, and OpenCV to run it.
        package: its name as imported.
        file: path inside it.
        sha256: of the file.
        release: of the package that has this file.
        install: commands that install package and OpenCV.
        or_else: what else to do, in parentheses, after a blank.

    Raises:
        UserError: OpenCV or the package is not installed, or the file is another.
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
    raise UserError(f"{who} needs its network, which is a file in a package: {install}{or_else}")
