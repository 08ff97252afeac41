"""Reads checkpoints of other programs without executing anything in them."""

from __future__ import annotations

import codecs
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from backbones.checkpoints import load_checkpoint
from registry import UserError

_FORMATTING = re.compile(r"\x1b\[[0-9;]*m")  # of terminals, in torch's messages
_LONGEST = 200  # characters of torch's reason; a longer one explains options that there are none here


def read_checkpoint(path: Path) -> Any:
    """Read a file written by ``torch.save`` or safetensors: tensors, plain Python values and numpy numbers.

    Raises:
        UserError: the file is missing, damaged or not a checkpoint, or it holds other objects.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    expected = "expected a file written by torch.save or safetensors"
    if what := _other_format(path, start):
        raise UserError(f"checkpoint {path} is {what}; {expected}")
    try:
        if start[8:9] == b"{":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pickle protocols and old storages; real problems raise
            return load_checkpoint(path, safe_globals=_numpy_numbers())
    except Exception as error:  # the unpickler raises almost any exception on bytes that are not a checkpoint
        text = _FORMATTING.sub("", str(error)).strip().rpartition("WeightsUnpickler error:")[2].strip()
        if found := re.search(r"GLOBAL ([\w.]*\w) (?:was not|whose module)", text):
            raise UserError(
                f"checkpoint {path} holds a pickled {found[1]}, which is neither a tensor nor a number; it was refused "
                "and no code in it was run; save the model's state_dict() and use that file"
            ) from error
        protocol = _protocol(path, start)
        if protocol > 2:
            raise UserError(
                f"checkpoint {path} is a pickle of protocol {protocol}, and only protocol 2 is read; no code in it was "
                "run; save it again with torch.save(state_dict, FILE), without pickle_protocol"
            ) from error
        reason = re.split(r"\.\s|\n", text)[0]
        if not 0 < len(reason) <= _LONGEST or not reason.isprintable():
            reason = type(error).__name__
        raise UserError(f"checkpoint {path} is damaged or truncated ({reason}); {expected}") from error


def _protocol(path: Path, start: bytes) -> int:
    """The protocol of a pickle, alone or in an archive of torch.save; 0 if it cannot be told."""
    with suppress(zipfile.BadZipFile, OSError, StopIteration, NotImplementedError, RuntimeError, zlib.error):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                with archive.open(name) as file:
                    start = file.read(2)
    return start[1] if len(start) > 1 and start[:1] == b"\x80" else 0


def _other_format(path: Path, start: bytes) -> str | None:
    """Describe a file that is certainly not a checkpoint; None if it may be one."""
    if not start.strip(b"\0"):
        return "empty or filled with zeros"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer: the file itself was not downloaded"
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html", b"<head", b"<?xml"):
        return "a web page: the download returned a page instead of the file"
    for beginning, what in ((b"\x89HDF", "an HDF5 file"), (b"GGUF", "a GGUF file"), (b"\x93NUMPY", "a NumPy array")):
        if start.startswith(beginning):
            return what
    if tarfile.is_tarfile(path):
        return "a tar archive: unpack it and import the checkpoint inside"
    if zipfile.is_zipfile(path):
        # An archive with a broken list of contents is left to torch, which reports it as damaged.
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            if any("/code/" in name for name in archive.namelist()):
                return "a TorchScript program, which is not run: save the model's state_dict() with torch.save"
            if any(name.endswith("archive_format") for name in archive.namelist()):
                return "a program of torch.export, which is not run: save the model's state_dict() with torch.save"
            if not any(name.endswith("data.pkl") for name in archive.namelist()):
                return "a zip archive that torch.save did not write: unpack it and import the checkpoint inside"
    elif b"\0" not in start:
        with suppress(UnicodeDecodeError):
            codecs.getincrementaldecoder("utf-8")().decode(start)  # incremental: the last character may be cut
            return "a text file"
    return None


def _numpy_numbers() -> list[Any]:
    """Globals that a pickled numpy number refers to, under the module names of numpy 1 and 2.

    `scalar` replaces numpy's own function and can only make numbers.
    """

    def named(module: str) -> Callable:
        def scalar(dtype: np.dtype, data: Any) -> Any:
            if not isinstance(dtype, np.dtype) or dtype.kind not in "biuf" or not isinstance(data, bytes):
                raise ValueError("a numpy scalar that is not a number")
            return np.frombuffer(data, dtype)[0]

        scalar.__module__, scalar.__qualname__ = module, "scalar"
        return scalar

    numbers = (np.bool_, *np.sctypeDict.values())
    dtypes = {type(np.dtype(number)) for number in numbers if np.dtype(number).kind in "biuf"}
    return [named("numpy.core.multiarray"), named("numpy._core.multiarray"), np.dtype, *dtypes]
