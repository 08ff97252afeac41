"""Transcripts: commands stay, outputs are replaced."""

from pathlib import Path

import pytest

from tools.transcripts import BLOCK, LINES, PAGE, WIDTH, printed, render

BEFORE = """# Page

<!-- transcript: one -->

```console
$ echo hello > file; cat file
what was printed last year
```

<!-- end of transcript -->

<!-- transcript: two -->

```console
$ cat file && pwd
```

<!-- end of transcript -->
"""


def test_outputs_are_replaced_by_runs_in_one_folder(tmp_path: Path) -> None:
    after = render(BEFORE, tmp_path, {"PATH": "/usr/bin:/bin"})
    assert "last year" not in after
    assert "cat file\nhello\n```" in after
    assert f"pwd\nhello\n{tmp_path}\n```" in after
    assert render(after, tmp_path, {"PATH": "/usr/bin:/bin"}) == after


def test_a_failing_command_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="cat file: exit status 1"):
        render(BEFORE.replace("echo hello > file; ", ""), tmp_path, {"PATH": "/usr/bin:/bin"})


def test_output_is_shortened(tmp_path: Path) -> None:
    output = f"encode:  50%|#####     | 5/10\rencode: done\n{tmp_path}/runs\n" + "x" * 300 + "\n" + "line\n" * 30
    lines = printed(output, tmp_path)
    assert lines[:2] == ["encode: done", "runs"]
    assert len(lines[2]) == WIDTH
    assert len(lines) == LINES


def test_the_page_has_a_transcript_for_each_user() -> None:
    """Each fits on a screen and contains output."""
    blocks = [block["text"].splitlines() for block in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]
    assert len(blocks) == 3
    for lines in blocks:
        assert len(lines) <= 40
        assert max(map(len, lines)) <= WIDTH + 4
        assert sum(not line.startswith("$ ") for line in lines) >= 3
