"""The command line as a shell sees it: exit status, one line on stderr, results on stdout."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bench
from tests.conftest import check_refused

HOME = Path(__file__).resolve().parent.parent
QUICK = ["--set", "training.epochs=2", "--set", "windows.stride.train=2", "--set", "windows.stride.val=2"]


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "bench.py", *arguments], cwd=HOME, capture_output=True, text=True, check=False, env=env
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tabel"], "unknown command 'tabel'; did you mean 'table'?"),
        (["--recipee", "internlstm"], "did you mean --recipe?"),
        (["run"], "--recipe"),
        (["--recipe", "internlsmt"], "unknown recipe 'internlsmt'; did you mean 'internlstm'?"),
        (["--recipe", ","], "--recipe names no recipe"),
        (["--recipe", "probe", "--seeds", "0"], "--seeds is 0"),
        (["--recipe", "probe", "--seeds", "many"], "invalid int value: 'many'"),
        (["--recipe", "probe", "--head", "gruu"], "unknown head 'gruu'; did you mean 'gru'?"),
        (["--recipe", "probe", "--dataset", "ego4"], "unknown dataset 'ego4'; did you mean 'ego4d'?"),
        (["--recipe", "probe", "--dataset", "ego4d"], "needs its folder: --root DIR"),
        (["--recipe", "probe", "--dataset", "ego4d", "--root", "/nowhere"], "/nowhere"),
        (["--recipe", "probe", "--device", "abacus"], "--device abacus: must be cpu, cuda, cuda:N or mps"),
        (["--recipe", "probe", "--plugin", "no_such_file.py"], "no_such_file.py does not exist"),
        (["--recipe", "probe", "--plugin", "no.such.module"], "no module"),
        (["--recipe", "probe", "--out", "/dev/null/x"], "cannot write /dev/null/x"),
        (["--show", "lstmm"], "unknown name 'lstmm'; did you mean 'lstm'?"),
        (["table", "--format", "excel"], "invalid choice: 'excel'"),
        (["import", "/nowhere/best.pth", "--as", "internlstm", "-o", "x.safetensors"], "best.pth does not exist"),
        (["import", "/nowhere/best.pth", "--as", "lstm", "-o", "x.safetensors"], "invalid choice: 'lstm'"),
        (["extract", "--images", "/nowhere", "--backbone", "x", "-o", "s"], "--images /nowhere is not a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture) -> None:
    check_refused(arguments, words, capsys)


def test_a_plugin_that_fails_says_which_line(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("import math\n\nmath.nothing()\n")
    done = run("--recipe", "probe", "--plugin", str(plugin))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{plugin}:3" in done.stderr
    assert "AttributeError" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_plugin_that_takes_a_name_says_both_places(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text('from registry import HEADS\n\n@HEADS.register_module(name="lstm")\nclass Mine:\n    pass\n')
    done = run("--recipe", "probe", "--plugin", str(plugin))
    assert done.returncode == 2
    assert f"{plugin}:3" in done.stderr
    assert "heads/recurrent.py" in done.stderr


def test_a_head_of_ones_own_by_name_alone(lam_tree: Path, tmp_path: Path) -> None:
    """The plug-in that the README shows, cut out of it."""
    readme = (HOME / "README.md").read_text(encoding="utf-8")
    plugin = tmp_path / "my_head.py"
    plugin.write_text(
        next(part for part in readme.split("```python\n")[1:] if "HEADS.register_module" in part).split("```")[0]
    )
    assert len(plugin.read_text().strip().splitlines()) <= 14
    name = plugin.read_text().partition("class ")[2].partition("(")[0]
    done = run(
        "--recipe", "internlstm_flip_tta", "--head", name, "--plugin", str(plugin),
        "--dataset", "ego4d", "--root", str(lam_tree),
        "--backbone", "tiny_means", "--plugin", "tests/parts/tiny.py", "--out", str(tmp_path / "runs"), *QUICK,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"head={name}" in done.stdout
    result = json.loads(next((tmp_path / "runs" / "results").rglob("result.json")).read_text())
    assert result["head"]["type"] == name


def test_the_main_job_needs_no_opencv(lam_tree: Path, tmp_path: Path) -> None:
    """OpenCV's wheel needs libGL.so.1, which many servers lack; importing cv2 fails there."""
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    done = run(
        "--recipe", "probe", "--dataset", "ego4d", "--root", str(lam_tree), "--backbone", "tiny_means",
        "--plugin", "tests/parts/tiny.py", "--out", str(tmp_path / "runs"), *QUICK,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "results").is_dir()


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("--table >&-", 0, ""),
        ("--table <&- 2>&- >/dev/null", 0, ""),
        ("--help >&- 2>&- <&-", 0, ""),
        ("--tabel 2>&-", 2, ""),  # not on stdout either
        ("list >/dev/full", 1, "bench.py list: No space left on device; fix this"),
        ("--help >/dev/full", 1, "bench.py: No space left on device; fix this"),
        ("--tabel 2>/dev/full", 2, ""),
        ("list | true", 141, ""),
    ],
)
def test_closed_or_full_streams(line: str, status: int, said: str) -> None:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} bench.py {line}"],
        cwd=HOME,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(said) and done.stderr.count("\n") == bool(said)


def test_too_little_address_space_is_one_line(tmp_path: Path) -> None:
    line = f"ulimit -v 2000000; {sys.executable} bench.py --recipe internlstm --out {tmp_path}"
    done = subprocess.run(["bash", "-c", line], cwd=HOME, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("bench.py run: out of memory: a library cannot be loaded; raise ulimit -v")
    assert done.stderr.count("\n") == 1


def test_help_answers_at_once() -> None:
    """0.3 s is promised; the fastest of five leaves a loaded machine out of it."""
    took = []
    for _ in range(5):
        started = time.perf_counter()
        done = run("--help")
        took.append(time.perf_counter() - started)
        assert done.returncode == 0
        assert "--recipe internlstm_flip_tta" in done.stdout
    assert min(took) < 0.3


def test_table_answers_soon() -> None:
    took = []
    for _ in range(3):
        started = time.perf_counter()
        done = run("--table")
        took.append(time.perf_counter() - started)
        assert done.returncode == 0
        assert "77.18" in done.stdout
    assert min(took) < 1.5


@pytest.mark.parametrize("command", bench.COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        bench.main([command, "--help"])
    assert stop.value.code == 0
    assert "python bench.py" in capsys.readouterr().out.partition("usage:")[2]


def test_list_and_show_name_every_part(capsys: pytest.CaptureFixture) -> None:
    from benchmarks.config.files import recipe_names
    from registry import BACKBONES, DATASETS, HEADS

    names = [*recipe_names(), *BACKBONES, *HEADS, *DATASETS]
    assert bench.main(["--list"]) == 0
    listed = capsys.readouterr().out
    for name in names:
        assert name in listed
        assert bench.main(["--show", name]) == 0
        assert name in capsys.readouterr().out
    assert bench.main(["--show", "internlstm"]) == 0
    assert "--set changes" in capsys.readouterr().out
