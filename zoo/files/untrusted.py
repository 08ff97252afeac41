"""What comes from elsewhere: files that may be anything, and the ids and paths in them that lead to other files."""

from __future__ import annotations

import json
import os
import re
import select
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from registry import UserError

_PATIENCE = 500  # milliseconds, with a pipe

# Bytes of an id: file systems stop at 255, and a file is written beside its place under a longer name.
LONGEST_ID = 200

# Names of devices on Windows, whatever follows the first dot.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_MISSING = re.compile("Object missing required field `(.*)`")  # of msgspec
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # what may be half of a pair of surrogates, in JSON


# -- files --------------------------------------------------------------------------------------------------------


def open_input(path: Path) -> BinaryIO:
    """Open a file for reading; a pipe that nobody has opened for writing within half a second counts as empty.

    Raises:
        OSError: it does not exist, may not be read, or is neither a file nor a pipe.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise OSError(None, "is a folder" if stat.S_ISDIR(mode) else "is no file", str(path))
        if stat.S_ISFIFO(mode):
            writer = select.poll()
            writer.register(descriptor, select.POLLIN)
            writer.poll(_PATIENCE)
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path, what: str) -> bytes:
    """Read a file.

    Args:
        path: of the file.
        what: it is, for the message.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open_input(path) as file:
            return file.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file ({what})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error} ({what})") from None


def checked(value: Any, kind: Any, where: str = "") -> Any:
    """Check a JSON value against an annotation: a TypedDict, a dataclass, a list, a union, a plain type.

    Keys that a TypedDict does not name may be there. Whole numbers are valid floats.

    Args:
        value: as read from JSON.
        kind: the annotation.
        where: dotted key of the value, for the message.

    Returns:
        The value as an instance of the annotation; a TypedDict without the keys that it does not name.

    Raises:
        ValueError: the value is of another type, or a number is not finite or not below 2^63; names the place.
    """
    _check_numbers(value, where)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        keys, missing, what = explained(error)
        place = f"{where}{keys}".lstrip(".")
        what = what if missing is None else f"lacks '{missing}'"
        raise ValueError(f"{place}: {what}" if place else what) from None


def explained(error: msgspec.ValidationError) -> tuple[str, str | None, str]:
    """Split the message of msgspec.

    Returns:
        The keys from the value down to the place, such as `.seeds[0]`, or empty; the name of a missing key, or None;
        what is wrong, such as `expected int, got str`.
    """
    what, _, keys = str(error).partition(" - at `$")
    missing = _MISSING.fullmatch(what)
    return keys.rstrip("`"), missing and missing[1], what[:1].lower() + what[1:].replace("`", "")


def _check_numbers(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(item, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check_numbers(item, f"{where}[{number}]")
    elif isinstance(value, (int, float)) and not abs(value) < 1 << 63:
        raise ValueError(f"{where or 'it'} is {value!r:.60}; it has to be finite, and below 2^63")


def read_text(path: Path, what: str) -> str:
    """Read a text file in UTF-8, with or without a byte order mark; arguments as of `read_bytes`.

    Raises:
        UserError: it cannot be read, or is no such text; names the first byte that is not.
    """
    data = read_bytes(path, what)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start}: {error.reason}; {what})") from None


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file; arguments as of `read_bytes`.

    Raises:
        UserError: it cannot be read, or is broken; says where. Nesting, digits and characters that Python cannot take
            are broken too.
    """
    text = read_text(path, what)
    try:
        value = json.loads(text)
        if _HALF.search(text):  # seldom; such text can be kept in no file
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path}: broken JSON at {place}: {error.msg} ({what})") from None
    except RecursionError:
        raise UserError(
            f"{path}: broken JSON: lists or objects within each other, too deep to be read ({what})"
        ) from None
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise UserError(f"{path}: broken JSON: {half!r} is half a character ({what})") from None
    except ValueError:  # the only one left: a whole number of thousands of digits
        raise UserError(f"{path}: broken JSON: a number of too many digits ({what})") from None
    return value


# -- ids and the paths that are made of them ------------------------------------------------------------------------


def checked_id(value: object, where: str) -> str:
    """Check that an id can be the name of a file or folder, on any file system, and return it as text.

    Args:
        value: text or a whole number.
        where: it was found, for the message.

    Raises:
        UserError: it cannot; says why.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise UserError(f"{where}: {value!r:.80} is no id; an id is text or a whole number")
    text = str(value)
    if not text or text in (".", ".."):
        reason = "it names no file or folder of its own"
    elif any(letter in '/\\<>:"|?*' for letter in text):
        reason = "none of / \\ < > : \" | ? * can be in a file's name everywhere"
    elif not text.replace(" ", "").isprintable():
        reason = "it has a character that cannot be printed"
    elif text != text.strip() or text.endswith("."):
        reason = "it starts or ends with a blank, or ends with a dot"
    elif len(text.encode()) > LONGEST_ID:
        reason = f"it has more than {LONGEST_ID} bytes"
    elif _DEVICE.fullmatch(text):
        reason = "Windows keeps that name for a device"
    else:
        return text
    raise UserError(f"{where}: {text!r:.80} cannot name a file: {reason}")


def distinct(ids: Iterable[str], where: str) -> None:
    """Check that the files of some ids are different ones on every file system.

    Raises:
        UserError: two are equal, or differ in upper and lower case or in how accents are encoded alone.
    """
    seen: dict[str, str] = {}
    for text in ids:
        folded = unicodedata.normalize("NFC", text).casefold()
        other = seen.get(folded)
        seen[folded] = text
        if other is None:
            continue
        if other == text:
            raise UserError(f"{where}: {text!r:.80} comes twice")
        raise UserError(
            f"{where}: {other!r:.80} and {text!r:.80} would be one file where upper and lower case are not told apart"
        )


def below(root: Path, path: str, where: str, *, written: bool = False) -> Path:
    """The place of a relative path below a folder: every path that is made of an id, or was read, goes through here.

    Links that lie below the folder are their owner's own and are followed in reading.

    Args:
        root: the folder.
        path: parts with `/` between them.
        where: it comes from, for the message.
        written: something is to be written there, so no link on the way may lead out of the folder.

    Raises:
        UserError: it is empty or absolute, has a part `.` or `..` or a null character, is too long for any file system,
            or, where it is written to, leads out through a link.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise UserError(f"{where}: {path!r:.80} is no path below {root}")
    if len(path) > 60 and any(len(os.fsencode(part)) > 255 for part in parts):
        raise UserError(f"{where}: {path!r:.80} is too long for the name of a file")
    place = root / path
    if written:
        real, top = os.path.realpath(place.parent), os.path.realpath(root)
        if real != top and not real.startswith(top.rstrip(os.sep) + os.sep):
            raise UserError(f"{where}: {place.parent} is a link out of {root}, and nothing is written there")
    return place
