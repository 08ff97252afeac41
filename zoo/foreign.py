"""Read checkpoints of other programs: torch files with tensors, plain values and numpy numbers, and nothing else."""

from __future__ import annotations

import codecs
import re
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from backbones.checkpoints import load_checkpoint
from registry import UserError

_FIGURE = re.compile(r"map|acc|epoch|prec", re.IGNORECASE)


def read_checkpoint(path: Path) -> Any:
    """Read a checkpoint: tensors, plain Python values and numpy's numbers; whatever else it holds is not made.

    Raises:
        UserError: there is no such file, it is something else or damaged, or it holds other objects.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    expected = "expected a file that torch.save or safetensors wrote"
    if what := _something_else(path, start):
        raise UserError(f"checkpoint {path} is {what}; {expected}")
    try:
        if start[8:9] == b"{":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols and old storages; what matters raises
            return load_checkpoint(path, safe_globals=_numpy_numbers())
    except Exception as error:  # on bytes that are no checkpoint the unpickler fails in any way whatever
        text = str(error).strip().rpartition("WeightsUnpickler error:")[2].strip()
        if found := re.search(r"GLOBAL ([\w.]*\w) (?:was not|whose module)", text):
            raise UserError(
                f"checkpoint {path} holds a pickled {found[1]}, and not tensors and numbers alone; it is refused, "
                "nothing of it was run; save its state_dict() and give that"
            ) from error
        reason = re.split(r"\. |\n", text)[0][:200] or type(error).__name__
        if start[:1] == b"\x80" and start[1:2] > b"\x02":
            reason = f"a pickle of protocol {start[1]}, torch.save writes 2; nothing of it was run"
        raise UserError(f"checkpoint {path} is damaged or cut short ({reason}); {expected}") from error


def _something_else(path: Path, start: bytes) -> str | None:
    """What a file is that is certainly no checkpoint, in words."""
    if not start.strip(b"\0"):
        return "empty, or zeros in place of data"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer: the file itself was not downloaded"
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html", b"<head", b"<?xml"):
        return "a web page: the address gave a page in place of the file"
    if tarfile.is_tarfile(path):
        return "a tar archive: unpack it and give the checkpoint inside"
    if zipfile.is_zipfile(path):
        # What has the end of an archive and a broken list of contents is torch's to refuse.
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            if not any(name.endswith("data.pkl") for name in archive.namelist()):
                return "a zip archive that torch.save did not write: unpack it and give the checkpoint inside"
    elif b"\0" not in start:
        with suppress(UnicodeDecodeError):
            codecs.getincrementaldecoder("utf-8")().decode(start)  # which bears a letter that is cut in two
            return "a text file"
    return None


def _numpy_numbers() -> list[Any]:
    """What unpickling a numpy number takes, under the module names of numpy 1 and 2; it makes numbers, nothing else."""

    def named(module: str) -> Callable:
        def scalar(dtype: np.dtype, data: Any) -> Any:
            if not isinstance(dtype, np.dtype) or dtype.kind not in "biuf" or not isinstance(data, bytes):
                raise ValueError("a numpy scalar that is no number")
            return np.frombuffer(data, dtype)[0]

        scalar.__module__, scalar.__qualname__ = module, "scalar"
        return scalar

    numbers = (np.bool_, *np.sctypeDict.values())
    dtypes = {type(np.dtype(number)) for number in numbers if np.dtype(number).kind in "biuf"}
    return [named("numpy.core.multiarray"), named("numpy._core.multiarray"), np.dtype, *dtypes]


def figures(content: Any) -> dict[str, float]:
    """Return the numbers beside the tensors whose names say mAP, accuracy, precision or epoch, by name."""
    found = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if not (isinstance(name, str) and _FIGURE.search(name)):
            continue
        if isinstance(value, np.number) or (isinstance(value, Tensor) and value.numel() == 1 and is_plain(value)):
            value = value.item()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15:  # not NaN
            found[name] = value
    return dict(sorted(found.items()))


# -- finding the model in it --------------------------------------------------------------------------------------


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is its numbers one after another: neither sparse nor quantised nor without data."""
    return tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
