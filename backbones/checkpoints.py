"""Reads untrusted checkpoints and builds networks from untrusted sizes, without running code or exhausting memory.

Files of `torch.save` are pickles. torch's restricted unpickler reads them: it makes tensors and plain values and
refuses other objects. Files that claim more data than they have bytes are refused too. A network with sizes from a
file is first built on the meta device, and with no more modules than the file has tensors for.
"""

import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration
from torch.utils._python_dispatch import TorchDispatchMode

from registry import UserError

STEPS_PER_TENSOR = 16  # module and parameter registrations and operations, per tensor in the file
SPARE_STEPS = 5000
SPARE_NUMBERS = 50_000_000  # for parts that the file may lack, such as a classifier
HEADER_BYTES = 50  # minimum per tensor in the header of a safetensors file


def load_checkpoint(path: Path, *, safe_globals: Iterable[Any] = ()) -> Any:
    """Read a file written by `torch.save`: tensors on the CPU and plain Python values.

    Args:
        path: the file.
        safe_globals: further classes and functions that the pickle may refer to.

    Raises:
        ValueError: the path is not a regular file, the archive is compressed, or its tensors claim more data than the
            file has.
        Exception: the file is damaged or holds other objects. On arbitrary bytes, torch raises almost anything.
    """
    if not path.is_file():  # opening a pipe would block
        raise ValueError("not a regular file")
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            # torch does not compress; compressed data could unpack to a thousand times the size of the file.
            if sum(member.file_size for member in members) > size:
                raise ValueError("a compressed archive, which torch.save does not write")
            if damaged := archive.testzip():  # torch writes checksums but does not check them
                raise ValueError(f"damaged: the checksum of {damaged} differs")
    with torch.serialization.safe_globals(list(safe_globals)):
        content = torch.load(path, map_location="cpu", weights_only=True)
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(content))
    if claimed > 16 * size:  # some room, because state dicts may share tensors
        raise ValueError(f"its tensors claim {claimed:,} bytes, the file has {size:,}")
    return content


def _tensors(content: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested dicts and sequences; a tensor in several places is yielded for each."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (Mapping, list, tuple, set)) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, Mapping) else value)


@contextmanager
def at_most(tensors: int, numbers: int, where: str) -> Iterator[None]:
    """Refuse networks built in this block that are far larger than the file they come from.

    A tensor is counted after it was allocated. If the file sets sizes, build on the meta device first.

    Args:
        tensors: number of tensors in the file.
        numbers: number of elements in all of them.
        where: the file, for the message.

    Raises:
        UserError: building takes too many steps, or the network has too many elements.
    """
    most_steps, most_numbers = STEPS_PER_TENSOR * tensors + SPARE_STEPS, 4 * numbers + SPARE_NUMBERS
    steps = counted = 0

    def count(module: nn.Module | None, name: str, part: Any) -> None:
        nonlocal steps, counted
        steps += 1
        counted += part.numel() if isinstance(part, Tensor) and part.device.type != "meta" else 0
        if steps > most_steps or counted > most_numbers:
            raise UserError(
                f"{where} describes a network far larger than the tensors in it; the file is damaged or malicious"
            )

    handles = [
        registration.register_module_module_registration_hook(count),
        registration.register_module_parameter_registration_hook(count),
        registration.register_module_buffer_registration_hook(count),
    ]

    class Operations(TorchDispatchMode):
        """Counts operations, because copied layers do not trigger the hooks."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            count(None, "", None)
            return func(*args, **(kwargs or {}))

    try:
        with Operations():
            yield
    finally:
        for handle in handles:
            handle.remove()


def all_finite(tensor: Tensor) -> bool:
    """Whether no number of a tensor is NaN or infinite; one pass over it, without a copy.

    Example:
        >>> all_finite(torch.tensor([1.0, 2.0])), all_finite(torch.tensor([1.0, float("nan")]))
        (True, False)
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(math.isfinite(end) for end in torch.aminmax(tensor.detach()))


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that are not finite: one such number makes every result NaN.

    Args:
        state: tensors by name.
        where: the file or folder, for the message.

    Raises:
        UserError: a tensor has such a number; names the first, and how many.
    """
    bad = [name for name, tensor in state.items() if not all_finite(tensor)]
    if bad:
        tensor = state[bad[0]]
        count = int((~tensor.isfinite()).sum())
        more = f", as have {len(bad) - 1} other tensors" if len(bad) > 1 else ""
        raise UserError(
            f"weights {where}: tensor '{bad[0]}' has {count:,} of {tensor.numel():,} values that are NaN or infinite"
            f"{more}; use another checkpoint"
        )


def most_tensors(files: Iterable[Path]) -> int:
    """Return an upper bound of the number of tensors in safetensors files, from the length of their headers."""
    length = 0
    for path in files:
        with path.open("rb") as file:
            length += min(int.from_bytes(file.read(8), "little"), path.stat().st_size)
    return length // HEADER_BYTES
