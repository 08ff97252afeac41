"""OpenCV, and network files taken from packages that are not otherwise used."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from backbones.checksums import file_sha256
from registry import UserError, first_sentences

# mmengine requires this one too, so that an environment has one distribution of the module cv2 and not two.
OPENCV = "pip install opencv-python"
WITHOUT_GL = "pip uninstall -y opencv-python && pip install opencv-python-headless"


def need_opencv(who: str, install: str = OPENCV) -> None:
    """Check that OpenCV can be imported.

    Args:
        who: what needs it, for the message.
        install: commands that install it, and what else is needed.

    Raises:
        UserError: it is not installed, or a library of the system is missing, such as libGL on a server; gives the
            commands that put in its place the distribution that needs none.
    """
    if importlib.util.find_spec("cv2") is None:
        raise UserError(f"{who} needs OpenCV: {install}")
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        reason = first_sentences(error)
        raise UserError(
            f"{who} needs OpenCV, which does not load here ({reason}); without a screen, run {WITHOUT_GL}"
        ) from error


def classic_engine() -> dict[str, Any]:
    """Arguments for `cv2.dnn.readNet*`: OpenCV 5's new engine drops outputs, older releases have no other."""
    import cv2

    return {"engine": cv2.dnn.ENGINE_CLASSIC} if hasattr(cv2.dnn, "ENGINE_CLASSIC") else {}


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
        UserError: OpenCV or the package is not installed or does not load, or the file has another checksum.
    """
    need_opencv(who, install)
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or []:
        if (path := Path(folder) / file).is_file():
            found = file_sha256(path)
            if found != sha256:
                raise UserError(f"{path} has sha256 {found}, not {sha256}; reinstall {release}")
            return path
    raise UserError(f"{who} needs a network file from a package: {install}{or_else}")
