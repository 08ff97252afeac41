"""Sizes, names and signatures of the application, and what its tests may import."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import HOME
from tests.sources import APPLICATION, MODULES, functions, imported, parse, python_files

LINES = 450
ARGUMENTS = 5
FEW_ARGUMENTS = (
    *("pipeline", "training", "rows", "features", "pixels", "scoring"),
    *("config", "evaluation", "table", "commands", "video", "calibration", "api", "app"),
)

# Names that several modules may have.
SHARED = {
    "add_arguments": "each command's options",
    "run": "each command; and the pipeline, which the command `run` runs",
    "SynthLAM": "the data set, and the prior that reads its ground truth; one plug-in name in two registries",
}

# mmengine's dictionary of names, from which tests remove the parts that they registered.
PRIVATE = {
    f"{file}: {name}"
    for file, name in (
        ("tests/heads/test_heads.py", "_module_dict"),
        ("tests/test_docs.py", "registry.HEADS._module_dict"),
        ("tests/test_registry.py", "_module_dict"),
    )
}

FILES = python_files(*APPLICATION)


def long_modules() -> set[str]:
    """The modules above the limit, tools included."""
    files = python_files(*APPLICATION, "tools")
    return {path.as_posix() for path in files if len((HOME / path).read_text(encoding="utf-8").splitlines()) > LINES}


def shared_names() -> set[str]:
    """Public classes and functions at the top of more than one module."""
    places: dict[str, set[Path]] = defaultdict(set)
    for path in FILES:
        for node in parse(path).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith(
                "_"
            ):
                places[node.name].add(path)
    return {name for name, paths in places.items() if len(paths) > 1}


def long_signatures() -> set[str]:
    """Functions with more arguments than the limit, `self` and `cls` not counted."""
    found = set()
    for room in FEW_ARGUMENTS:
        for path in python_files(f"benchmarks/{room}"):
            for name, function, is_method in functions(path):
                given = function.args
                count = (
                    len([*given.posonlyargs, *given.args, *given.kwonlyargs]) + bool(given.vararg) + bool(given.kwarg)
                )
                decorators = {node.id for node in function.decorator_list if isinstance(node, ast.Name)}
                count -= is_method and "staticmethod" not in decorators
                if count > ARGUMENTS:
                    found.add(f"{path.as_posix()}: {name}")
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def application_names(path: Path) -> dict[str, str]:
    """Name in a test file -> the module or object of the application or the tools that it stands for."""
    names = {}
    for node in ast.walk(parse(path)):
        if not any(module in MODULES and not module.startswith("tests") for module in imported(node)):
            continue
        for alias in node.names:
            whole = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
            bound = alias.asname or (alias.name if isinstance(node, ast.ImportFrom) else alias.name.split(".")[0])
            names[bound] = whole if alias.asname or isinstance(node, ast.ImportFrom) else bound
    return names


def private_names(path: Path) -> Iterator[str]:
    """Private names of the application or the tools that a test file imports, reads or replaces."""
    names = application_names(path)
    yield from (whole for whole in names.values() if is_private(whole.rpartition(".")[2]))
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            chain, root = [node.attr], node.value
            while isinstance(root, ast.Attribute):
                chain.append(root.attr)
                root = root.value
            if isinstance(root, ast.Name) and root.id in names:
                yield ".".join([names[root.id], *reversed(chain)])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and "attr" in node.func.attr:
            for argument in node.args[:2]:  # monkeypatch.setattr("module._name", ...) and setattr(module, "_name", ...)
                if isinstance(argument, ast.Constant) and re.search(r"(^|\.)_(?!_)", str(argument.value)):
                    yield str(argument.value)


def private_uses() -> set[str]:
    """Test file and private name, where a test uses one."""
    return {f"{path.as_posix()}: {name}" for path in python_files("tests") for name in private_names(path)}


def test_modules_are_short() -> None:
    assert long_modules() == set()


def test_benchmarks_holds_rooms_only() -> None:
    files = {path.name for path in (HOME / "benchmarks").iterdir() if path.is_file()}
    assert files == {"__init__.py", "published.csv"}


def test_public_names_are_unique() -> None:
    assert shared_names() == SHARED.keys()


def test_functions_take_few_arguments() -> None:
    assert long_signatures() == set()


def test_tests_use_public_names_only() -> None:
    assert private_uses() == PRIVATE
