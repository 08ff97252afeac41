"""The command line as a shell sees it: exit status, one line on stderr, results on stdout."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bench
from benchmarks.config.resolve import resolve
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
        (["--recipe", "probe", "--seed", "3"], "no --seed; use --set training.seed=3; --seeds N trains N of them"),
        (["--recipe", "probe", "--seed=3"], "use --set training.seed=3;"),
        (["--seed", "--recipe", "probe"], "use --set training.seed=N;"),
        (["run", "--recipe", "probe", "--epochs", "5"], "use --set training.epochs=5 "),
        (["--lr", "1e-3", "--recipe", "probe"], "use --set training.lr=1e-3 "),
        (["--recipe", "probe", "--batch-size", "8"], "use --set training.batch_size=8 "),
        (["--recipe", "probe", "--resume"], "run the same command again: it resumes"),
        (["--recipe", "probe", "--num-workers", "4"], "taskset limits them"),
        (["extract", "--images", ".", "--epochs", "3"], "unrecognized arguments: --epochs 3"),
        (["train", "--recipe", "probe"], "use run: python bench.py --recipe NAME trains and scores"),
        (["evaluate"], "use run: python bench.py --recipe NAME trains and scores; score is for prediction files"),
        (["eval"], "no command eval; use run"),
        (["test"], "no command test; use run"),
        (["--recipe", "probe", "--set", "head=gru"], "--set head=gru: use --head gru"),
        (["--recipe", "probe", "--set", "backbone=timm:resnet18"], "use --backbone timm:resnet18"),
        (["--recipe", "probe", "--set", "lr=1"], "unknown key 'lr'; did you mean 'training.lr'?"),
        (["--recipe", "probe", "--set", "seeds=3"], "unknown key 'seeds'; use --seeds"),
        (["--recipe", "probe", "--set", "version=3"], "unknown key 'version'; see --show"),
        (["--recipe", "probe", "--backbone", "resnet18"], "'resnet18'; did you mean 'timm:resnet18'?"),
        (["--recipe", "probe", "--backbone", "resnet18.a1_in1k"], "did you mean 'timm:resnet18.a1_in1k'?"),
        (["--recipe", "probe", "--backbone", "internvit_nan"], "did you mean 'internvit_nano'?"),
        (["run"], "--recipe"),
        (["--recipe", "internlsmt"], "unknown recipe 'internlsmt'; did you mean 'internlstm'?"),
        (["--recipe", ","], "--recipe names no recipe"),
        (["--recipe", "probe", "--seeds", "0"], "--seeds is 0"),
        (["--recipe", "probe", "--seeds", "many"], "'many' is neither a number nor table"),
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_version_without_torch() -> None:
    code = "import sys, bench; assert bench.main(['--version']) == 0; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HOME, capture_output=True, text=True, check=False).stdout
    assert f"(commit {commit[:7]}" in line if commit else "(no commit)" in line
    assert line.startswith("lamzoo 0.1.0 (") and f"Python {sys.version.split()[0]}, torch " in line
    assert line.endswith(importlib.metadata.version("torch"))


def test_what_other_programs_have_is_not_here() -> None:
    """The table of hints names nothing that exists, and everything that it names works."""
    options = run("run", "--help").stdout
    for option in bench.OPTIONS_ELSEWHERE:
        assert not re.search(rf"{option}\b(?!s)", options)
    assert not bench.COMMANDS_ELSEWHERE.keys() & bench.COMMANDS.keys()
    keys = ["training.seed=4", "training.epochs=4", "training.lr=0.5", "training.batch_size=4"]
    for option, key in zip(("--seed", "--epochs", "--lr", "--batch-size"), keys, strict=True):
        hint = bench.OPTIONS_ELSEWHERE[option].format(value=key.partition("=")[2])
        assert hint.split("--set ")[1].split(";")[0] == key
    assert resolve("probe", settings=keys).training.seed == 4


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
    """1.5 s is promised, on a machine that imports what the table needs in 0.8 s; torch alone would take two more."""
    imports = [sys.executable, "-c", "import mmengine.registry, msgspec, scipy.special, tabulate"]
    needed, took = [], []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(imports, cwd=HOME, check=True)
        needed.append(time.perf_counter() - started)
        done = run("--table")
        took.append(time.perf_counter() - started - needed[-1])
        assert done.returncode == 0
        assert "77.18" in done.stdout
    assert min(took) < 1.5 / 0.8 * 1.2 * min(needed)


@pytest.mark.parametrize("command", bench.COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        bench.main([command, "--help"])
    assert stop.value.code == 0
    assert "python bench.py" in capsys.readouterr().out.partition("usage:")[2]


def test_show_has_gazeposes_published_training(capsys: pytest.CaptureFixture) -> None:
    assert bench.main(["--show", "gazepose", "--dataset", "ego4d"]) == 0
    text = capsys.readouterr().out
    assert "On Ego4D name the file of import --as gaze360 with --weights FILE" in " ".join(text.split())
    shown, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
    assert shown["head"]["width"] == 512
    assert shown["augment"] == {"flip": 0.5, "crop": 0.8}
    assert shown["init"] == "gaze360"
    assert shown["windows"]["stride"] == {"train": 3, "val": 13, "test": 1}
    names = ("epochs", "lr", "schedule", "schedule_floor", "schedule_unit", "class_weight")
    wanted = (10, 1e-4, "cosine", 5e-6, "epoch", "balanced_key_frames")
    assert tuple(shown["training"][name] for name in names) == wanted


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
