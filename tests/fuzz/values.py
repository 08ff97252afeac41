"""Ingredients of bad files: values, JSON trees, CSV rows and bytes, wrong in every way that we know."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.harness import OUTSIDE

# Inserted into JSON verbatim: json.dumps would not write them.
RAW = ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 5000, "1" + "0" * 400, "[" * 100_000 + "]" * 100_000,
       '{"a":' * 100_000 + "1" + "}" * 100_000, '"\\ud800"', '"\\u0000"', "-0", "0x10", "'a'", "undefined")  # fmt: skip
PLAIN = (None, True, False, "", "1", "nan", "looking", -1, 0, 1, -(10**12), 10**12, 2**31, 2**63, 10**18, -0.5, 0.5,
         1e308, 1e-320, [], {}, [1], [[]], {"a": 1}, [None], "\x1b[31mred", "a\nb", "\x00", "é", "x" * 5000,
         )  # fmt: skip
IDS = ("..", ".", "", "/", "\\", "../secret", "../../secret", "../../../secret", "../../up/secret", OUTSIDE,
       f"{OUTSIDE}/secret", "a/../../../../secret", "/etc/passwd", "a/b", "a\\b", "..\\..\\secret", "a\x00b", "a\nb",
       "a\rb", "a\tb", "\x1b[2J", "\u202egpj.", "\x9b31m", "x" * 200, "x" * 256, "é" * 120, "x" * 5000, "CON",
       "nul.txt", "COM1", "aux", "C:", "C:secret", "a:b", "a.", "a ", " a", "~", "~root", "-rf", "$HOME", "*", "?",
       "[a]", "%2e%2e", "\ud800", "\udc80", "\ufeffc", "A", "a", ".hidden", "a.json", "c.part", "'", '"', "<b>", "&",
       "#", "None", "NaN", "１", "e\u0301", "\u00e9", "null", "007", "1e5")  # fmt: skip
ODD = ("folder", "fifo", "loop", "dangling", "unreadable", "empty", "socket")

ids = st.sampled_from(IDS)


@st.composite
def spoilt_json(draw: st.DrawFn, sound: Any, most: int = 3, names: st.SearchStrategy[str] = ids) -> bytes:
    """JSON text of a sound value with up to `most` changes, sometimes with damaged bytes."""
    root = [copy.deepcopy(sound)]
    raw: dict[str, str] = {}
    for number in range(draw(st.integers(0, most))):
        places = _places(root)
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        what = draw(st.sampled_from(("plain", "plain", "raw", "id", "delete", "twice", "text")))
        if what == "delete" and holder is not root:
            del holder[key]
        elif what == "twice" and isinstance(holder, list) and holder is not root:
            holder.insert(key, copy.deepcopy(holder[key]))
        elif what == "raw":
            raw[f"@{number}@"] = draw(st.sampled_from(RAW))
            holder[key] = f"@{number}@"
        elif what == "id":
            holder[key] = draw(names)
        elif what == "text":
            holder[key] = str(holder[key])[:100]
        else:
            holder[key] = copy.deepcopy(draw(st.sampled_from(PLAIN)))
    text = json.dumps(root[0])
    for mark, token in raw.items():
        text = text.replace(f'"{mark}"', token)
    return draw(styled(text.encode("utf-8", "surrogatepass")))


def _places(root: list) -> list[tuple[Any, Any]]:
    """Return container and key of every node of a tree."""
    found: list[tuple[Any, Any]] = []
    queue: list[Any] = [root]
    while queue:
        holder = queue.pop()
        keys = range(len(holder)) if isinstance(holder, list) else list(holder)
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], (list, dict)):
                queue.append(holder[key])
    return found


@st.composite
def spoilt_csv(draw: st.DrawFn, rows: Sequence[Sequence[Any]], most: int = 3) -> bytes:
    """CSV text of sound rows with up to `most` changes, sometimes with damaged bytes."""
    table = [[str(cell) for cell in row] for row in rows]
    cells = st.sampled_from(
        [str(value) for value in PLAIN] + [*IDS, *RAW[:5], '"', '"a', 'a"b', "1,5", "1 000", "0x1f"]
    )
    for _ in range(draw(st.integers(0, most))):
        row = draw(st.integers(0, len(table) - 1))
        what = draw(
            st.sampled_from(("cell", "cell", "cell", "drop", "twice", "short", "wide", "swap", "column", "blank"))
        )
        if what == "cell" and table[row]:
            table[row][draw(st.integers(0, len(table[row]) - 1))] = draw(cells)
        elif what == "drop" and len(table) > 1:
            del table[row]
        elif what == "twice":
            table.append(list(table[row]))
        elif what == "short":
            table[row] = table[row][: draw(st.integers(0, len(table[row])))]
        elif what == "wide":
            table[row] = table[row] * draw(st.integers(2, 50))
        elif what == "swap":
            table.reverse()
        elif what == "column":
            place = draw(st.integers(0, 8))
            table = [each[:place] + each[place + 1 :] for each in table]
        elif what == "blank":
            table.insert(row, [])
    text = "\n".join(",".join(row) for row in table) + "\n"
    return draw(styled(text.encode("utf-8", "surrogatepass")))


@st.composite
def styled(draw: st.DrawFn, data: bytes) -> bytes:
    """A text as saved by another program or damaged by a bad disk; mostly unchanged."""
    style = draw(st.sampled_from(("as is",) * 6 + ("bom", "crlf", "cr", "nul", "latin", "utf-16", "bytes", "no end")))
    if style == "bom":
        return b"\xef\xbb\xbf" + data
    if style == "crlf":
        return data.replace(b"\n", b"\r\n")
    if style == "cr":
        return data.replace(b"\n", b"\r")
    if style == "utf-16":
        return data.decode("utf-8", "replace").encode("utf-16")
    if style == "no end":
        return data.rstrip(b"\n")
    if style in ("nul", "latin"):
        place = draw(st.integers(0, len(data)))
        return data[:place] + (b"\0" if style == "nul" else b"\xe9\xff") + data[place:]
    return draw(spoilt_bytes(data)) if style == "bytes" else data


@st.composite
def spoilt_bytes(draw: st.DrawFn, sound: bytes) -> bytes:
    """Bytes with one to three cuts, flips, insertions, removals or other damage."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.sampled_from((1, 1, 2, 4, 8, 64)))
        what = draw(st.sampled_from(("cut", "flip", "flip", "zero", "ones", "insert", "remove", "double", "noise")))
        if what == "cut":
            del data[place:]
        elif what == "flip" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif what in ("zero", "ones"):
            data[place : place + length] = (b"\0" if what == "zero" else b"\xff") * length
        elif what in ("insert", "noise"):
            data[place : place + (length if what == "noise" else 0)] = draw(st.binary(min_size=length, max_size=length))
        elif what == "remove":
            del data[place : place + length]
        elif what == "double":
            data[place:place] = data[:place]
        if len(data) > 4_000_000:
            break
    return bytes(data)


def file_of(content: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes | str]:
    """The content of a file or, sometimes, one of `ODD`: not a readable file."""
    return st.one_of(content, content, content, content, content, st.sampled_from(ODD))


def place(path: Path, what: bytes | str) -> None:
    """Create a case of `file_of` at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.exists():
        path.unlink()
    if isinstance(what, bytes):
        path.write_bytes(what)
    elif what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "socket":
        os.mknod(path, 0o140600)
    elif what == "loop":
        path.symlink_to(path.name)
    elif what == "dangling":
        path.symlink_to("nowhere")
    else:
        path.write_bytes(b"")
        if what == "unreadable":
            path.chmod(0)
