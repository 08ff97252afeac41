"""Output on a terminal of 80 columns, and where there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.system.terminal import fitted

pty = pytest.importorskip("pty")  # Windows has none

HOME = Path(__file__).resolve().parents[3]


def on_terminal(*arguments: str, columns: int = 80) -> list[str]:
    """Lines that a command prints on a terminal of this width."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(
        [sys.executable, "bench.py", *arguments],
        cwd=HOME, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    read = b""
    try:
        while part := os.read(ours, 65536):
            read += part
    except OSError:  # Linux says so when the other side is closed
        pass
    assert process.wait() == 0, read.decode()
    os.close(ours)
    return read.decode().replace("\r\n", "\n").split("\n")


@pytest.mark.parametrize(
    "command",
    [
        ["table"],
        ["table", "internlstm", "gazepose", "--sort", "map"],
        ["list"],
        ["show", "internlstm_flip_tta"],
        ["show", "gazepose"],
        ["show", "internlstm_nano"],
        ["show", "benchmarks/records/synthlam/internlstm.json"],
        ["compare", "internlstm_flip", "internlstm"],
        ["--recipe", "all", "--dry-run", "--seeds", "table"],
    ],
    ids=" ".join,
)
def test_no_line_is_wider_than_the_terminal(command: list[str]) -> None:
    lines = on_terminal(*command)
    assert len(lines) > 3
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.slow
def test_a_run_fits_and_marks_its_row(lam_tree: Path, tmp_path: Path) -> None:
    command = ["--recipe", "probe", "--dataset", "ego4d", "--root", str(lam_tree), "--backbone", "tiny_means"]
    quick = ["--set", "windows.stride.train=2", "--set", "windows.stride.val=2", "--set", "training.epochs=1"]
    plugin = ["--plugin", str(HOME / "tests" / "parts" / "tiny.py")]
    lines = on_terminal(*command, *quick, *plugin, "--out", str(tmp_path))
    shown = [line.split("\r")[-1] for line in lines]  # progress bars return to the first column
    assert [line for line in shown if len(line) > 80 and " " in line.strip()] == []  # a row's name is one word
    (row,) = (line for line in shown if line.startswith(">  "))
    assert "Linear probe**" in row
    assert ">: just run." in shown
    assert not any("\\*" in line for line in shown)


def test_a_narrow_terminal_breaks_methods_into_lines() -> None:
    lines = on_terminal("table", columns=66)
    assert max(map(len, lines)) <= 66


def test_without_a_terminal_the_table_is_markdown_with_all_columns() -> None:
    done = subprocess.run([sys.executable, "bench.py", "table"], cwd=HOME, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("| method ")
    assert "origin" in done.stdout.partition("\n")[0]


def test_list_as_json() -> None:
    done = subprocess.run(
        [sys.executable, "bench.py", "list", "heads", "l*m", "--json"],
        cwd=HOME, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [*json.loads(done.stdout)["heads"]] == ["lstm"]


def test_words_stay_whole_and_lines_hang() -> None:
    assert fitted("  two words", 8) == "  two\n    words"
    assert fitted("/a/path/that/is/longer", 8) == "/a/path/that/is/longer"
    assert fitted("any length at all", None) == "any length at all"
