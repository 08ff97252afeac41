"""Reading untrusted files, and turning untrusted ids into paths."""

import json
import os
import threading
from pathlib import Path

import pytest

from registry import UserError
from zoo.files.untrusted import (
    LONGEST_ID,
    below,
    checked,
    checked_id,
    distinct,
    open_input,
    read_bytes,
    read_json,
    read_text,
)

ESCAPES = ("", ".", "..", "../secret", "a/../../secret", "/etc/passwd", "a//b", "a/", "/", "a/./b", "a\0b", "a/..")


@pytest.mark.parametrize("path", ESCAPES)
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match="an id: .* is not a path below"):
        below(tmp_path, path, "an id")


@pytest.mark.parametrize("path", ["a", "a/b.jpg", "...", "..a", "a..", "~", "-rf", "é", "a b", "a\\..\\b", "x" * 255])
def test_paths_below_the_folder_are_unchanged(tmp_path: Path, path: str) -> None:
    assert below(tmp_path, path, "an id") == tmp_path / path
    assert Path(os.path.normpath(tmp_path / path)).is_relative_to(tmp_path)


def test_names_too_long_for_a_file_are_refused(tmp_path: Path) -> None:
    for path in ("x" * 256, "é" * 128, "a/" + "x" * 300 + "/b"):
        with pytest.raises(UserError, match="too long for a file name"):
            below(tmp_path, path, "an id")


def test_links_are_followed_for_reading_only(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (root / "inside").mkdir(parents=True)
    (root / "out").symlink_to(outside)
    (root / "in").symlink_to(root / "inside")
    (tmp_path / "linked").symlink_to(root)
    assert below(root, "out/a", "an id") == root / "out" / "a"
    assert below(root, "in/a", "an id", written=True) == root / "in" / "a"
    assert below(tmp_path / "linked", "inside/a", "an id", written=True) == tmp_path / "linked" / "inside" / "a"
    with pytest.raises(UserError, match="out is a link out of .*root; remove it"):
        below(root, "out/a", "an id", written=True)
    (tmp_path / "rootless").mkdir()
    (root / "beside").symlink_to(tmp_path / "rootless")  # its path starts as the root's does
    with pytest.raises(UserError, match="is a link out of"):
        below(root, "beside/a", "an id", written=True)


@pytest.mark.parametrize(
    "value", ["c", "0d4-1e", "007", "a.b", "a b", "é", ".hidden", "x" * LONGEST_ID, "console", 7, 0]
)
def test_ids_are_taken_as_text(value: object) -> None:
    assert checked_id(value, "here") == str(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        *((text, "it is empty") for text in ("", ".", "..")),
        *(
            (text, "not all systems allow")
            for text in ("../a", "/a", "a/b", "a\\b", "C:a", "a:b", "a?", "a*", 'a"', "<a>", "a|b")
        ),
        *(
            (text, "unprintable")
            for text in ("a\0b", "a\nb", "\x1b[31m", "\u202ea", "\ud800", "\udcff", "\ufeffa", "a\tb")
        ),
        *((text, "blank") for text in (" a", "a ", "a.", " ")),
        *((text, "200 bytes") for text in ("x" * 201, "é" * 101)),
        *((text, "device") for text in ("CON", "nul", "aux.txt", "Com1", "LPT9.json")),
        *((value, "is not an id") for value in (None, True, 1.5, [], {}, b"a")),
    ],
)
def test_ids_that_are_not_file_names_are_refused(value: object, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        checked_id(value, "here")
    message = str(caught.value)
    assert message.startswith("here: ") and message.isprintable() and len(message) < 200


def test_ids_of_the_same_file_are_refused() -> None:
    distinct(["a", "b", "ab", "A1"], "here")
    for ids, said in (
        (["a", "b", "a"], "'a' appears twice"),
        (["clip", "Clip"], "'clip' and 'Clip' would be the same file"),
        (["stra\u00dfe", "STRASSE"], "would be the same file"),
        (["\u00e9", "e\u0301"], "would be the same file"),
    ):
        with pytest.raises(UserError, match=f"here: .*{said}"):
            distinct(ids, "here")


def test_a_pipe_is_read_and_one_without_a_writer_is_empty(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert read_bytes(tmp_path / "fifo", "a thing") == b""
    reader, writer = os.pipe()
    late = threading.Timer(0.1, lambda: (os.write(writer, b"late"), os.close(writer)))
    late.start()
    assert read_bytes(Path(f"/dev/fd/{reader}"), "a thing") == b"late"
    late.join()
    os.close(reader)
    late = threading.Timer(0.1, lambda: (tmp_path / "fifo").write_bytes(b"opened late"))
    late.start()
    assert read_bytes(tmp_path / "fifo", "a thing") == b"opened late"
    late.join()


def test_paths_that_are_not_files_are_one_line_errors(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    for path, said in (
        (tmp_path, "is a folder"),
        (Path("/dev/zero"), "is not a file"),
        (tmp_path / "loop", "symbolic links"),
        (tmp_path / "dangling", "no such file"),
        (tmp_path / "none" / "at all", "no such file"),
    ):
        with pytest.raises(UserError, match=rf"^{path}: .*{said} \(a thing\)|^{path}: {said} \(a thing\)"):
            read_bytes(path, "a thing")
    with pytest.raises(OSError):
        open_input(tmp_path)


def test_text_is_utf8_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbfa\r\n")
    assert read_text(tmp_path / "marked", "a list") == "a\r\n"
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"latin: not a text file in UTF-8 \(byte 3: .*; a list\)"):
        read_text(tmp_path / "latin", "a list")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[1,\n "a" 2]', "line 2, column 6"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("9" * 5000, "too many digits"),
        ('["\\ud800"]', r"'\ud800' is an unpaired surrogate"),
        ("", "line 1, column 1"),
    ],
    ids=["syntax", "lists", "objects", "digits", "half", "empty"],
)
def test_broken_json_is_a_one_line_error(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json: broken JSON") as caught:
        read_json(tmp_path / "x.json", "a thing")
    assert said in str(caught.value) and str(caught.value).isprintable()


def test_valid_json_is_read_unchanged(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True, "\U0001f600", "é"], "b": {}}
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(value).encode())
    assert read_json(tmp_path / "x.json", "a thing") == value


def test_an_error_is_one_printable_line() -> None:
    assert str(UserError("a\x07\n  b \u202ec\ud800")) == r"a\x07 b \u202ec\ud800"
    # Colours, cursor, title, character set: torch's messages have some of them, and a file's names may.
    assert (
        str(UserError("\x1b[1;31mred\x1b[0m \x1b[2J\x9b1mx \x1b]0;title\x07y\x1b]8;;u\x1b\\z \x1b(Bw\x1b"))
        == r"red x yz w\x1b"
    )
    assert str(UserError("plain é 'x'")) == "plain é 'x'"


def test_half_a_surrogate_pair_is_no_number() -> None:
    with pytest.raises(ValueError, match=r"training has text that is not Unicode: '\\ud800'"):
        checked({"seed": json.loads('"\\ud800"')}, dict[str, int], "training")
