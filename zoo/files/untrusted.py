"""Reads untrusted files, and checks the ids and paths in them before they become paths."""

from __future__ import annotations

import json
import os
import re
import select
import stat
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, BinaryIO

import msgspec

from backbones.opening import open_descriptor, open_regular, read_at_most
from registry import UserError

_PIPE_TIMEOUT = 500  # milliseconds
LARGEST_FILE = 2 << 30  # bytes of a file that is read as a whole: several times Ego4D's annotations

# Bytes of an id. File systems allow 255, and temporary files have longer names.
LONGEST_ID = 200

# Device names on Windows, with any extension.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_MISSING = re.compile("Object missing required field `(.*)`")  # msgspec's message
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # escaped in JSON


# -- files --------------------------------------------------------------------------------------------------------


def open_input(path: Path) -> BinaryIO:
    """Open a file or pipe for reading; a pipe without a writer counts as empty after half a second.

    Raises:
        OSError: the path does not exist, is not readable, or is neither a file nor a pipe.
    """
    descriptor = open_descriptor(path, os.O_RDONLY, pipes=True)
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            writer = select.poll()
            writer.register(descriptor, select.POLLIN)
            writer.poll(_PIPE_TIMEOUT)
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path, what: str) -> bytes:
    """Read a file.

    Args:
        path: the file.
        what: description of the file for messages, such as ``a model card``.

    Raises:
        UserError: the file cannot be read.
    """
    return _read(path, what, open_input)


def _read(path: Path, what: str, opened: Callable[[Path], IO[bytes]]) -> bytes:
    try:
        with opened(path) as file:
            return read_at_most(file, LARGEST_FILE)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file ({what})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error} ({what})") from None


_LIMIT = 1 << 63


def checked(value: Any, kind: Any, where: str = "") -> Any:
    """Check a JSON value against an annotation: a TypedDict, dataclass, list, union or plain type.

    Unknown keys of a TypedDict are allowed. Whole numbers are valid floats.

    Args:
        value: as read from JSON.
        kind: the annotation.
        where: dotted key of the value, for messages.

    Returns:
        The value as an instance of the annotation; a TypedDict loses its unknown keys.

    Raises:
        ValueError: the type is wrong, or a number is not finite or not below 2^63; gives the key.
    """
    _check_numbers(value, where)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        keys, missing, what = explained(error)
        place = f"{where}{keys}".lstrip(".")
        what = what if missing is None else f"lacks '{missing}'"
        raise ValueError(f"{place}: {what}" if place else what) from None
    except UnicodeEncodeError as error:  # JSON can hold half a surrogate pair; msgspec cannot quote it
        raise ValueError(f"{where or 'it'} has text that is not Unicode: {error.object!r:.60}") from None


def explained(error: msgspec.ValidationError) -> tuple[str, str | None, str]:
    """Split the message of a msgspec error.

    Returns:
        Keys from the value to the error, such as `.seeds[0]`, or empty; the missing key, or None; the problem, such as
        `expected int, got str`.
    """
    what, _, keys = str(error).partition(" - at `$")
    missing = _MISSING.fullmatch(what)
    return keys.rstrip("`"), missing and missing[1], what[:1].lower() + what[1:].replace("`", "")


def _check_numbers(value: Any, where: str) -> None:
    items: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        items, key_of = value.items(), "{}.{}"
    elif isinstance(value, list):
        items, key_of = enumerate(value), "{}[{}]"
    else:
        if isinstance(value, (int, float)) and not abs(value) < _LIMIT:
            raise ValueError(f"{where or 'it'} is {value!r:.60}; it must be finite and below 2^63")
        return
    for key, item in items:  # a record has ten thousand numbers, so a key is spelled only for what is not plainly right
        if not (isinstance(item, (int, float)) and -_LIMIT < item < _LIMIT) and not isinstance(item, str):
            _check_numbers(item, key_of.format(where, key).lstrip("."))


def read_text(path: Path, what: str) -> str:
    """Read a UTF-8 text file, with or without a byte order mark; arguments as in `read_bytes`, but no pipe.

    Raises:
        UserError: the file cannot be read, is not a regular file, or is not UTF-8; gives the first wrong byte.
    """
    data = _read(path, what, open_regular)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start}: {error.reason}; {what})") from None


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file; arguments as in `read_bytes`.

    Raises:
        UserError: the file cannot be read or is broken; gives the line. Nesting, numbers and characters that Python
            cannot represent also count as broken.
    """
    text = read_text(path, what)
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):  # unpaired surrogates cannot be written to a file; found by encoding
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path}: broken JSON at {place}: {error.msg} ({what})") from None
    except RecursionError:
        raise UserError(f"{path}: broken JSON: nested too deeply ({what})") from None
    except UnicodeEncodeError as error:
        letter = error.object[error.start]
        raise UserError(f"{path}: broken JSON: {letter!r} is an unpaired surrogate ({what})") from None
    except ValueError:  # int() limits the number of digits
        raise UserError(f"{path}: broken JSON: a number has too many digits ({what})") from None
    return value


# -- ids and paths --------------------------------------------------------------------------------------------------


def checked_id(value: object, where: str) -> str:
    """Check that an id is a valid name of a file or folder on any file system, and return it as text.

    Args:
        value: text or a whole number.
        where: origin of the id, for messages.

    Raises:
        UserError: the id is not valid; gives the reason.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise UserError(f"{where}: {value!r:.80} is not an id; an id is text or a whole number")
    text = str(value)
    if not text or text in (".", ".."):
        reason = "it is empty or means a folder above"
    elif any(letter in '/\\<>:"|?*' for letter in text):
        reason = 'not all systems allow / \\ < > : " | ? * in file names'
    elif not text.replace(" ", "").isprintable():
        reason = "it has an unprintable character"
    elif text != text.strip() or text.endswith("."):
        reason = "it starts or ends with a blank, or ends with a dot"
    elif len(text.encode()) > LONGEST_ID:
        reason = f"it has more than {LONGEST_ID} bytes"
    elif _DEVICE.fullmatch(text):
        reason = "Windows reserves it for a device"
    else:
        return text
    raise UserError(f"{where}: {text!r:.80} cannot name a file: {reason}")


def distinct(ids: Iterable[str], where: str) -> None:
    """Check that ids name different files on any file system.

    Raises:
        UserError: two ids are equal, or differ only in case or in the encoding of accents.
    """
    seen: dict[str, str] = {}
    for text in ids:
        folded = unicodedata.normalize("NFC", text).casefold()
        other = seen.get(folded)
        seen[folded] = text
        if other is None:
            continue
        if other == text:
            raise UserError(f"{where}: {text!r:.80} appears twice")
        raise UserError(f"{where}: {other!r:.80} and {text!r:.80} would be the same file on some file systems")


def below(root: Path, path: str, where: str, *, written: bool = False) -> Path:
    """Join a folder and an untrusted relative path. All paths made from ids or read from files go through here.

    For reading, links inside the folder are followed: they were made by its owner.

    Args:
        root: the folder.
        path: parts separated by `/`.
        where: origin of the path, for messages.
        written: the path will be written, so no link on the way may lead out of the folder.

    Raises:
        UserError: the path is empty or absolute, has a part `.` or `..` or a null character, is too long for any file
            system, or, if `written`, leads out through a link.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise UserError(f"{where}: {path!r:.80} is not a path below {root}")
    if len(path) > 60 and any(len(os.fsencode(part)) > 255 for part in parts):
        raise UserError(f"{where}: {path!r:.80} is too long for a file name")
    place = root / path
    if written:
        real, top = os.path.realpath(place.parent), os.path.realpath(root)
        if real != top and not real.startswith(top.rstrip(os.sep) + os.sep):
            raise UserError(f"{where}: {place.parent} is a link out of {root}; remove it, or write elsewhere")
    return place
