"""What strangers' files say, taken for no more than it is: nothing runs, and nothing takes more memory than the file.

Checkpoints that `torch.save` wrote are pickles. They are read by torch's unpickler for tensors and plain values, which
makes no other object; what a file claims beyond the bytes it has is refused. A network whose sizes a file says is first
built without memory, and with no more parts than the file has tensors for.
"""

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

STEPS_A_TENSOR = 16  # of building a network, for each tensor in its file: modules, parameters and what fills them
SPARE_STEPS = 5000
SPARE_NUMBERS = 50_000_000  # of networks that leave a part of themselves out of the file, such as a classifier
HEADER_BYTES = 50  # that a tensor takes in the header of a safetensors file, at least


def load_checkpoint(path: Path, *, safe_globals: Iterable[Any] = (), map_location: Any = "cpu") -> Any:
    """Read a file of `torch.save`: tensors and plain Python values.

    Args:
        path: the file.
        safe_globals: what else may be made of what is in it.
        map_location: as torch has it.

    Raises:
        Exception: it holds something else, or is damaged; on bytes that are no checkpoint torch fails in any way.
        ValueError: it is no regular file or packed, or its tensors claim more numbers than it has bytes for.
    """
    if not path.is_file():  # a pipe would be waited for
        raise ValueError("it is no file")
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            # torch writes them as they are; a packed one can be a thousand times as large as the file.
            if sum(member.file_size for member in members) > size:
                raise ValueError("a packed archive, which torch.save does not write")
            if spoilt := archive.testzip():  # torch writes checksums, and does not look at them
                raise ValueError(f"damaged: the checksum of {spoilt} differs")
    with torch.serialization.safe_globals(list(safe_globals)):
        content = torch.load(path, map_location=map_location, weights_only=True)
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(content))
    if claimed > 16 * size:  # state dicts may name one tensor several times
        raise ValueError(f"its tensors claim {claimed:,} bytes, the file has {size:,}")
    return content


def _tensors(content: Any) -> Iterator[Tensor]:
    """Every tensor in dictionaries and sequences; of one that is there several times, each."""
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
    """Refuse to build a network in many times the steps, or of many times the numbers, that a file has for it.

    A tensor is refused after it was made; where a file says sizes and not names, build on torch's device ``meta``
    first, which takes no memory.

    Args:
        tensors: in the file.
        numbers: in all of them.
        where: the file, for the message.

    Raises:
        UserError: the network has more.
    """
    most, room = STEPS_A_TENSOR * tensors + SPARE_STEPS, 4 * numbers + SPARE_NUMBERS
    made = counted = 0

    def another(module: nn.Module | None, name: str, part: Any) -> None:
        nonlocal made, counted
        made += 1
        counted += part.numel() if isinstance(part, Tensor) and part.device.type != "meta" else 0
        if made > most or counted > room:
            raise UserError(
                f"{where} describes a network that is far larger than the tensors in it; it is damaged, or meant to "
                "do harm"
            )

    handles = [
        registration.register_module_module_registration_hook(another),
        registration.register_module_parameter_registration_hook(another),
        registration.register_module_buffer_registration_hook(another),
    ]

    class Steps(TorchDispatchMode):
        """Sees what the hooks do not: layers that are copied from each other."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            another(None, "", None)
            return func(*args, **(kwargs or {}))

    try:
        with Steps():
            yield
    finally:
        for handle in handles:
            handle.remove()


def names_in(files: Iterable[Path]) -> int:
    """How many tensors safetensors files can have at most, by the length of their headers."""
    longest = 0
    for path in files:
        with path.open("rb") as file:
            longest += min(int.from_bytes(file.read(8), "little"), path.stat().st_size)
    return longest // HEADER_BYTES
