"""What a shell is told when the key for completion is pressed after `python bench.py ...`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bench
from benchmarks.config.files import recipe_names
from registry import BACKBONES, DATASETS, DETECTORS, HEADS, PRIORS
from tests.conftest import HOME
from zoo.models import model_names

argcomplete = pytest.importorskip("argcomplete")
HOOK = Path(argcomplete.__file__).parent / "bash_completion.d" / "_python-argcomplete"

# The completer ends its process by os._exit.
AT_THE_END = """
import os, sys
end = os._exit
def leave(status):
    open("modules", "w").write(" ".join(sys.modules))
    end(status)
os._exit = leave
"""


def asked(line: str, folder: Path) -> list[str]:
    """The completer's answer, as the shell's hook gets it."""
    said = folder / "said"
    environment = {
        **os.environ,
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE": "2",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(said),
        "ARGCOMPLETE_USE_TEMPFILES": "1",
    }
    done = subprocess.run([sys.executable, HOME / "bench.py"], cwd=folder, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return [word.strip() for word in said.read_text().split("\013")]


def test_commands_options_and_values(tmp_path: Path) -> None:
    first = asked("python bench.py ", tmp_path)
    assert set(bench.COMMANDS) <= set(first)
    assert {"--recipe", "--seeds", "--list", "--show"} <= set(first)
    assert asked("python bench.py --recipe internlstm_flip_t", tmp_path) == [
        "internlstm_flip_tta",
        "internlstm_flip_tta_smooth",
    ]
    assert asked("python /else/where/bench.py score --gr", tmp_path) == ["--groundtruth"]


def test_names_are_those_of_the_registries() -> None:
    """Of what ships: tests and plug-ins register more."""
    from benchmarks.commands import completion

    kinds = {"backbone": BACKBONES, "head": HEADS, "prior": PRIORS, "detector": DETECTORS, "dataset": DATASETS}
    for kind, registry in kinds.items():
        shipped = {name for name in registry if not Path(registry.origin(name)).is_relative_to(HOME / "tests")}
        places = {name for name in shipped if Path(registry.origin(name)).is_relative_to(HOME / completion.PARTS[kind])}
        assert completion.complete_registered(kind)() == sorted(places)
    assert completion.complete_recipes() == ["all", *recipe_names()]
    assert completion.complete_recipes("probe,int")[:1] == [f"probe,{recipe_names()[0]}"]
    assert [name for name in completion.complete_models() if not Path(name).is_dir()] == model_names()


def test_rows_that_were_run(tmp_path: Path) -> None:
    row = tmp_path / "elsewhere" / "results" / "synthlam" / "mine+head=gru"
    row.mkdir(parents=True)
    (row / "result.json").write_text("{}")
    assert asked("python bench.py report --out elsewhere m", tmp_path) == ["mine+head=gru"]


def test_nothing_heavy_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each press of the key starts a process."""
    (tmp_path / "sitecustomize.py").write_text(AT_THE_END)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    asked("python bench.py predict --model ", tmp_path)
    modules = (tmp_path / "modules").read_text().split()
    assert "argcomplete" in modules
    assert not {"torch", "numpy", "pandas", "mmengine"} & set(modules)


def test_bash(tmp_path: Path) -> None:
    """The hook that `activate-global-python-argcomplete` prints."""
    line = "python bench.py --recipe probe --head gr"
    words = " ".join(line.split())
    script = f"source {HOOK}; COMP_LINE='{line}'; COMP_POINT={len(line)}; COMP_WORDS=({words}); COMP_CWORD=5; "
    script += 'COMP_TYPE=9; _python_argcomplete_global python 2>/dev/null; echo "${COMPREPLY[@]}"'
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=HOME, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["gru"], done.stderr


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish() -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    script = 'source tools/completion.fish; complete -C "python bench.py --recipe probe --head gr"'
    done = subprocess.run(["fish", "-N", "-c", script], cwd=HOME, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["gru"], done.stderr
