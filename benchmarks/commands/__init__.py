"""One module per command, with `add_arguments(parser)` and `run(args)`. Heavy imports belong inside `run`."""

import argparse
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Files of a model folder, and their unfinished versions.
_MODEL_FILE = re.compile(
    r"\.?((model|head)\.safetensors|(backbone|head)\.onnx|(card|config)\.json|README\.md)(\.\d+\.part)?"
)


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """Declare `--plugin`, for the commands that build parts."""
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE|MODULE", help="Python file or module with your own parts"
    )


@contextmanager
def new_model_folder(folder: Path) -> Iterator[None]:
    """Hold a new or empty folder while a model is written there; what a block that raises has written is removed.

    Raises:
        UserError: the folder holds something else, is not one, cannot be written, or another process writes it.
    """
    from benchmarks.system.locks import NAME, locked
    from registry import UserError
    from zoo.files.atomic import check_writable

    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name another with -o")
    made = not folder.exists()
    check_writable(folder)
    try:
        with locked(folder / NAME, str(folder)) as unfinished:
            there = [path for path in folder.iterdir() if path.name != NAME]
            if there and not (unfinished and all(_MODEL_FILE.fullmatch(path.name) for path in there)):
                raise UserError(f"{folder} exists and is not an empty folder; delete it, or name another with -o")
            try:
                _remove(there)  # left by a killed process
                yield
            except BaseException:
                _remove(folder.iterdir())
                raise
    finally:
        if made:
            with suppress(OSError):  # not empty
                folder.rmdir()


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if _MODEL_FILE.fullmatch(path.name):
            path.unlink()
