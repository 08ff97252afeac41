"""Safetensors files of a snapshot: a folder as on the hub, with one file, or shards and an index."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from backbones.opening import read_small_json
from registry import UserError

_LFS_POINTER = b"version https://git-lfs"


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of ``folder``, sorted: those in its index, or all if it has no index.

    Raises:
        UserError: there are none, or the index names one that is missing or outside the folder.
    """
    index = folder / "model.safetensors.index.json"
    unfinished = ""
    if any(folder.glob("*.incomplete")) or any((folder / ".cache" / "huggingface" / "download").glob("*.incomplete")):
        unfinished = "; a download is unfinished: start it again"
    if index.is_file():
        try:
            names = read_small_json(index)["weight_map"].values()
            files = sorted({folder / name for name in names})
            if any(file.parent != folder or file.suffix != ".safetensors" for file in files):
                raise ValueError("it names a file that is not a safetensors file of this folder")
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise UserError(f"{index} is not an index of safetensors files: {error!r}") from error
    else:
        files = sorted(folder.glob("*.safetensors"))
    for file in files:
        if not file.is_file():
            raise UserError(f"{index} names {file.name}, which does not exist in {folder}{unfinished}")
    if not files:
        raise UserError(f"folder {folder} has no *.safetensors file{unfinished}")
    return files


def read_tensors(files: Sequence[Path], wanted: Callable[[str], bool] = bool) -> dict[str, Tensor]:
    """Read tensors by name, in their stored dtype, memory-mapped.

    Args:
        files: safetensors files that together hold each tensor once.
        wanted: whether to read the tensor of this name; by default all.

    Raises:
        UserError: a file is damaged, or a tensor is in two of them.
    """
    return {name: tensors.get_tensor(name) for name, tensors in _tensors(files) if wanted(name)}


def names_in_files(files: Sequence[Path]) -> list[str]:
    """Return the names of all tensors, without reading one; errors as in `read_tensors`."""
    return [name for name, _ in _tensors(files)]


def _tensors(files: Sequence[Path]) -> Iterator[tuple[str, safe_open]]:
    """Yield each tensor's name and its open file."""
    seen: set[str] = set()
    for file in files:
        with file.open("rb") as opened:
            if opened.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise UserError(f"{file} is a Git LFS pointer, not the weights; download them with git lfs pull")
        try:
            with safe_open(file, "pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dict
                    if name in seen:
                        raise UserError(f"{file}: tensor '{name}' is in two files")
                    seen.add(name)
                    yield name, tensors
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is damaged, incomplete or not a safetensors file: {error}") from error
