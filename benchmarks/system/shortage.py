"""Errors of the machine (memory, disk space, open files, a failing disk, a lost process) as one-line messages."""

from __future__ import annotations

import errno

# Any other OSError that reaches the command line is a bug, and keeps its traceback.
_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE}


# Of cuBLAS, cuDNN and cuFFT, which allocate workspaces on their own: CUBLAS_STATUS_ALLOC_FAILED and the like.
_ALLOCATIONS = ("ALLOC_FAILED", "ALLOCATION_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or in torch, Python, numpy or Pillow."""
    words = ("out of memory", "can't allocate memory", "Cannot allocate memory", *_ALLOCATIONS)
    if isinstance(error, ImportError):  # torch's libraries need gigabytes of address space
        return any(word in str(error) for word in ("failed to map segment", "cannot allocate memory", *words))
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, without its import
    # Pillow's decoders raise an OSError without a number; one with a number may contain these words in a file name.
    worded = isinstance(error, RuntimeError) or (isinstance(error, OSError) and error.errno is None)
    return named or (worded and any(word in str(error) for word in words))


def shortage_message(error: BaseException) -> str | None:
    """The message for an error of the machine; None for any other error."""
    if is_out_of_memory(error) and isinstance(error, ImportError):
        return "out of memory: a library cannot be loaded; raise ulimit -v, or use a machine with more memory"
    if is_out_of_memory(error):
        return (
            "out of memory; close other programs or use a machine with more memory, and run the same command again; "
            "finished work is kept"
        )
    # Errors of torch's process groups, without its import; those of gloo have no class of their own.
    if type(error).__name__.startswith("Dist") or (isinstance(error, RuntimeError) and "gloo" in str(error)):
        return (
            "lost the connection to another process of torchrun, whose own line says why; run the same command again; "
            "finished work is kept"
        )
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; fix this and run the same command again; finished work is kept"
    return None
