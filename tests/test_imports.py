"""One way down: bench -> benchmarks -> zoo -> backbones, heads -> registry; and no torch where a command needs none."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from bench import COMMANDS

HOME = Path(__file__).resolve().parent.parent
FLOORS = {"registry": 0, "backbones": 1, "heads": 1, "zoo": 2, "benchmarks": 3, "bench": 4, "tools": 4}
SOURCES = [HOME / "registry.py", HOME / "bench.py"] + [
    path
    for package in ("backbones", "heads", "zoo", "benchmarks", "tools")
    for path in sorted((HOME / package).rglob("*.py"))
]


def imports_of(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(HOME)))
def test_imports_go_one_way_down(path: Path) -> None:
    own = path.relative_to(HOME).parts[0].removesuffix(".py")
    for name in imports_of(path) & FLOORS.keys():
        lower = FLOORS[name] < FLOORS[own]
        assert lower or name == own, f"{path.relative_to(HOME)} imports {name}"


def test_the_registry_knows_mmengine_and_the_standard_library_only() -> None:
    assert imports_of(HOME / "registry.py") <= {*sys.stdlib_module_names, "mmengine"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(HOME)))
def test_no_module_is_both_script_and_import(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    may_be_run = path.name == "bench.py" or path.relative_to(HOME).parts[0] == "tools" or "speed" in path.parts
    assert may_be_run or "__main__" not in text
    assert "sys.path" not in text


@pytest.mark.parametrize(
    "command",
    [["--help"], ["--table"], *([name, "--help"] for name in COMMANDS)],
    ids=" ".join,
)
def test_torch_is_not_imported(command: list[str]) -> None:
    code = f"import sys, bench\ntry:\n    bench.main({command!r})\nexcept SystemExit:\n    pass\n"
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_installing_puts_no_module_into_site_packages(tmp_path: Path) -> None:
    """The generic names at the root must stay there: the wheel holds its metadata alone."""
    build = "from setuptools import build_meta as b; import sys; print(b.build_wheel(sys.argv[1]))"
    pytest.importorskip("setuptools", minversion="70")
    # A copy: building in place would leave build/ and *.egg-info behind.
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "registry.py", "bench.py"):
        (tmp_path / name).write_bytes((HOME / name).read_bytes())
    for name in ("zoo", "backbones", "heads", "benchmarks", "tests", "tools"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    import zipfile

    names = zipfile.ZipFile(tmp_path / done.stdout.split()[-1]).namelist()
    assert names
    assert all(".dist-info/" in name for name in names), names
