"""What a machine runs out of, or no longer does: memory, space, open files, a disk; told in a line, not a traceback."""

from __future__ import annotations

import errno

# Of these nobody is to blame but the machine; any other OSError that nobody expected is a mistake in the code.
_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory: of a GPU, torch's on a CPU, Python's, numpy's or Pillow's."""
    words = ("out of memory", "can't allocate memory", "Cannot allocate memory")
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, without torch
    # Pillow's decoders raise an OSError without a number; one with a number has a file's name in it.
    worded = isinstance(error, RuntimeError) or (isinstance(error, OSError) and error.errno is None)
    return named or (worded and any(word in str(error) for word in words))


def line_of(error: BaseException) -> str | None:
    """What the user hears of an error of the machine; None where it is none."""
    if is_out_of_memory(error):
        return (
            "out of memory; what is finished is kept, the same command goes on from there: end other programs, or use "
            "a machine with more"
        )
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; put that right, and the same command goes on from what is finished"
    return None
