"""The example plug-ins: their own tests, collected here under the example's name, and their packages."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = sorted(
    path.parent for path in (Path(__file__).resolve().parent.parent / "examples").glob("*/pyproject.toml")
)


def load(path: Path) -> ModuleType:
    """Import a file under its own name, as its installation would."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


for _folder in EXAMPLES:
    load(_folder / f"lamzoo_{_folder.name}.py")
    for _name, _test in vars(load(_folder / f"test_lamzoo_{_folder.name}.py")).items():
        if _name.startswith("test_"):
            globals()[f"{_name}[{_folder.name}]"] = _test


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_the_entry_point_names_the_module(folder: Path) -> None:
    project = pytest.importorskip("tomllib").loads((folder / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["lamzoo.plugins"] == {folder.name: f"lamzoo_{folder.name}"}
    assert project["tool"]["setuptools"]["py-modules"] == [f"lamzoo_{folder.name}"]
    assert (folder / f"lamzoo_{folder.name}.py").is_file()
    assert f"examples/{folder.name}" in (folder / "README.md").read_text()


def test_there_are_two() -> None:
    assert [folder.name for folder in EXAMPLES] == ["oriented_gradients", "temporal_convolution"]
