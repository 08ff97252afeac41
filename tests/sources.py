"""The project's Python files, parsed once, for tests of its structure."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import HOME

APPLICATION = ("registry.py", "backbones", "heads", "zoo", "benchmarks", "bench.py")


def python_files(*names: str) -> list[Path]:
    """Return the Python files of packages and modules, relative to the root, without plug-in templates."""
    found = [
        path for name in names for path in ([HOME / name] if name.endswith(".py") else (HOME / name).rglob("*.py"))
    ]
    return sorted(path.relative_to(HOME) for path in found if "plugin_templates" not in path.parts)


def module_name(path: Path) -> str:
    """Return the module name: `zoo/files/atomic.py` -> `zoo.files.atomic`; a package has its folder's name."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a file, given relative to the root."""
    return ast.parse((HOME / path).read_text(encoding="utf-8"))


MODULES = {module_name(path): path for path in python_files(*APPLICATION, "tools", "tests")}


def imported(node: ast.AST) -> list[str]:
    """Return the modules of an import statement: for `from a import b`, `a.b` if that is a module here, else `a`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        whole = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if name in MODULES else str(node.module) for name in whole]
    return []


def imports(path: Path) -> set[str]:
    """Return all modules that a file imports, also inside functions and for type checking."""
    return {name for node in ast.walk(parse(path)) for name in imported(node)}


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Yield the functions of a file, nested ones too.

    Yields:
        Qualified name, node, and whether it is a method.
    """

    def walk(node: ast.AST, prefix: str, in_class: bool) -> Iterator:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{prefix}{child.name}", child, in_class
                yield from walk(child, f"{prefix}{child.name}.", in_class=False)
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.", in_class=True)
            else:
                yield from walk(child, prefix, in_class)

    yield from walk(parse(path), "", in_class=False)
